"""The feature site at the size of a 7B model's adapters, 229,376 features, in a browser; the server; what is refused."""
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import tempfile
import time
import unittest
import urllib.parse

from browser import CHROMIUM
from driven_browser import Browser
from harness import BINARY, SOURCE, execute, run, start

PROGRAM = pathlib.Path(os.environ.get("FEATURE_STORE_PROGRAM", BINARY.parent / "tests/feature_store_program"))
ARTEFACTS = pathlib.Path(os.environ.get("TADAPT_ARTEFACTS", SOURCE / "build/feature-site"))
LAYERS, FEATURES, CONVERSATIONS = 28, 8192, 120
ADAPTERS = "transcoder 0123456789abcdef"
HOSTILE = ["</script><img src=x onerror=alert(1)>", "\u202ereversed\u0007", " Wait\"'`${x}"]
TOYS = SOURCE / "data/toy"


def write_model(folder):
    """The toy's tokenizer with three tokens that a page must not take for anything but text."""
    folder.mkdir()
    shutil.copy(TOYS / "target/tokenizer_config.json", folder)
    tokenizer = json.loads((TOYS / "target/tokenizer.json").read_text(encoding="utf-8"))
    last = max(token["id"] for token in tokenizer["added_tokens"])
    for number, text in enumerate(HOSTILE, 1):
        tokenizer["added_tokens"].append(dict(tokenizer["added_tokens"][-1], id=last + number, content=text))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")


def write_graphs(folder, adapters=ADAPTERS):
    """One graph: a token leads to feature 3/17, that to 5/40, that to a prediction."""
    def node(name, kind, layer, position, probability=0.0, influence=0.5):
        return dict(node_id=name, feature=0, layer=layer, ctx_idx=position, feature_type=kind, token_prob=probability, is_target_logit=kind == "logit",
                    run_idx=0, reverse_ctx_idx=0, jsNodeId=name, clerp=f"Output (p={probability})", influence=influence, activation=1.5)
    folder.mkdir()
    nodes = [node("E_40_1", "embedding", "E", 1), node("3_17_1", "cross layer transcoder", "3", 1), node("5_40_2", "cross layer transcoder", "5", 2),
             node("29_50_2", "logit", "29", 2, 0.75)]
    links = [dict(source=a, target=b, weight=w) for a, b, w in (("E_40_1", "3_17_1", 0.5), ("3_17_1", "5_40_2", -0.25), ("5_40_2", "29_50_2", 2.0))]
    metadata = dict(slug="one & only", scan="tadapt", transcoder_list=[], prompt_tokens=["a", "b", "c"], prompt=f"a prompt {HOSTILE[0]}", node_threshold=0.8, schema_version=1)
    (folder / "one & only.json").write_text(json.dumps(dict(metadata=metadata, qParams={}, nodes=nodes, links=links)))
    (folder / "one & only.balances.json").write_text(json.dumps(dict(job="j", adapters=adapters, metadata=metadata, summary={}, targets=[])))
    (folder / "graph-metadata.json").write_text(json.dumps(dict(graphs=[metadata])))


def label(layer, feature, task, said, adapters=ADAPTERS):
    return json.dumps(dict(adapters=adapters, layer=layer, feature=feature, task=task, label=said)) + "\n"


class FeatureSiteTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = pathlib.Path(tempfile.mkdtemp(prefix="tadapt-system-"))
        cls.addClassCleanup(shutil.rmtree, cls.scratch, ignore_errors=True)
        write_model(cls.scratch / "model")
        lines = (TOYS / "validation.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:CONVERSATIONS]
        (cls.scratch / "corpus.jsonl").write_text("".join(lines), encoding="utf-8")
        cls.store, cls.site = cls.scratch / "store", cls.scratch / "a site #1"
        written = execute([PROGRAM, cls.scratch / "model", cls.scratch / "corpus.jsonl", str(LAYERS), str(FEATURES), cls.store])
        assert written.returncode == 0, written.stdout
        write_graphs(cls.scratch / "graphs")
        (cls.scratch / "labels.jsonl").write_text(label(3, 17, "classify", "reasoning/hesitation") + label(3, 17, "describe", f"hesitates {HOSTILE[0]}")
                                                  + label(3, 17, "detect", dict(top=[9, 10], uniform=[3, 5], silent=[8, 10])) + label(27, 8191, "classify", "language"))
        made = run(cls.words("--graphs", cls.scratch / "graphs", "--labels", cls.scratch / "labels.jsonl"), 2)
        assert made.returncode == 0, made.stdout
        assert f"{LAYERS * FEATURES} features, 2 labels, 1 graphs" in made.stdout, made.stdout
        shutil.rmtree(ARTEFACTS, ignore_errors=True)
        ARTEFACTS.mkdir(parents=True)
        if CHROMIUM:
            cls.browser = Browser()
            cls.addClassCleanup(cls.browser.__exit__)

    @classmethod
    def words(cls, *more, out=None, store=None):
        return ["features", "report", "--features", store or cls.store, "--out", out or cls.site, *more]

    def setUp(self):
        if CHROMIUM is None and "page" in self.id():
            self.skipTest("chromium is not installed")

    def tearDown(self):
        if CHROMIUM:
            console, self.browser.console = self.browser.console, []
            self.assertEqual(console, [])

    def open(self, route="", whole=True):
        self.browser.open((self.site / "index.html").as_uri() + route)
        self.browser.until("document.readyState === 'complete' && document.documentElement.dataset.view")
        if whole:
            self.browser.until("document.documentElement.dataset.index === 'whole'")
        return self.browser

    def go(self, route, view):
        """Another address in the open page."""
        self.browser.run(f"delete document.documentElement.dataset.view; void (location.hash = {json.dumps(route)})")
        self.browser.until(f"document.documentElement.dataset.view === {json.dumps(view)}")

    def texts(self, selector):
        return self.browser.run(f"[...document.querySelectorAll({json.dumps(selector)})].filter((e) => e.checkVisibility()).map((e) => e.innerText)")

    def found(self):
        return int(self.browser.run("document.documentElement.dataset.found"))

    def test_page_one_is_there_in_less_than_a_second(self):
        browser = self.open(whole=False)
        drawn = int(browser.run("document.documentElement.dataset.firstRows"))
        painted = browser.until("performance.getEntriesByType('paint').find((one) => one.name === 'first-contentful-paint')?.startTime")
        self.assertGreaterEqual(len(self.texts(".row")), 10)
        browser.until("document.documentElement.dataset.index === 'whole'")
        whole = browser.run("performance.now()")
        print(f"first rows after {drawn} ms, painted after {painted:.0f} ms, the whole index after {whole:.0f} ms", flush=True)
        self.assertLess(max(drawn, painted), 1000)
        self.assertEqual(self.texts(".status"), [f"{LAYERS * FEATURES:,} features"])
        self.assertLess(browser.run("document.querySelectorAll('.row').length"), 100)
        browser.picture(ARTEFACTS / "list.png")

    def test_page_search_finds(self):
        browser = self.open()
        browser.press("/")
        browser.type('"</script><img src=x onerror=alert(1)>"')
        browser.until("document.documentElement.dataset.found === '1'")
        self.assertEqual(self.texts(".address"), ["3 / 17"])
        self.assertEqual(self.texts(".chip")[:3], [HOSTILE[0].replace(" ", "·"), "·Wait\"'`${x}", "\\u{202e}reversed\\x07"])
        self.assertIn("reasoning/hesitation", self.texts(".said")[0])
        self.assertEqual(browser.run("document.querySelectorAll('img').length"), 0)
        self.assertIn("q=", browser.run("location.hash"))
        browser.picture(ARTEFACTS / "search.png")
        browser.press("Enter")
        browser.until("document.documentElement.dataset.view === 'feature/3/17'")
        for query, count in (("q=3/17", 1), ("q=layer 3 feature 17", 1), ("q=hesitates", 1), ("kind=reasoning", 1), ("q=nothing-like-that", 0),
                             ("layer=3", FEATURES), ("", LAYERS * FEATURES)):
            self.go(f"#/?{urllib.parse.quote(query, safe='=')}", "list")
            self.assertEqual(self.found(), count, query)

    def test_page_filters_and_sorts(self):
        self.open("#/?sort=largest")
        self.assertEqual(self.texts(".address")[0], "3 / 17")
        self.browser.run("[...document.querySelectorAll('.columns button')].find((one) => one.innerText === 'strongest').click()")
        self.assertEqual(self.texts(".row .number")[0], "dead")
        self.go("#/?sort=layer", "list")
        self.assertEqual(self.texts(".address")[:3], ["0 / 0", "0 / 1", "0 / 2"])
        self.browser.run("void (document.querySelector('.scroll').scrollTop = 1e9)")
        self.browser.until(f"document.querySelector('.row:last-child .address').innerText === '{LAYERS - 1} / {FEATURES - 1}'")
        self.go("#/?layer=3&alive=dead", "list")
        dead = self.found()
        self.assertTrue(0.02 * FEATURES < dead < 0.04 * FEATURES, dead)
        self.go("#/?layer=3&alive=live", "list")
        self.assertEqual(self.found(), FEATURES - dead)
        self.go("#/", "list")
        shares = [float(re.match(r"[\d.]+", text).group()) for text in self.texts(".row .number:nth-child(2)")]
        self.assertEqual(shares, sorted(shares, reverse=True))
        self.browser.run("document.querySelector('.layer[data-layer=\"5\"]').click()")
        self.assertEqual(self.found(), FEATURES)

    def test_page_of_a_feature(self):
        browser = self.open("#/feature/3/17")
        self.assertEqual(self.texts("#page h1"), ["Layer 3, feature 17"])
        activations = [text.split()[0] for text in self.texts(".example header")]
        self.assertEqual(activations[:3], ["500", "250", "125"])
        self.assertEqual(sorted(activations[3:]), ["125", "250", "500"])
        said = json.loads((self.scratch / "corpus.jsonl").read_text(encoding="utf-8").splitlines()[0])["conversations"]
        whole = "".join(turn["value"] for turn in said).replace("\n", "⏎").replace(" ", "")
        around = self.texts(".context")[0].strip("… ").replace(" ", "")
        self.assertIn(around.split("<think>")[-1][:60].strip("⏎"), whole)
        self.assertEqual(browser.run("getComputedStyle(document.querySelector('mark.own')).getPropertyValue('--heat')"), "100%")
        self.assertEqual(browser.run("document.querySelector('.example').querySelectorAll('mark').length"), 2)
        for text in ("Promotes", "Suppresses", "Activation", "Place in the thinking", "Regions", "What leads to it", "What it leads to"):
            self.assertIn(text, self.texts("h2"))
        self.assertIn(f"hesitates {HOSTILE[0]}", self.texts(".said")[0])
        self.assertIn("85 % strongest, 70 % drawn", self.texts(".said")[0])
        self.assertIn("5 / 40", "".join(self.texts("table.edges")))
        self.assertEqual(browser.run("document.querySelectorAll('img').length"), 0)
        browser.picture(ARTEFACTS / "feature.png")
        self.go("#/feature/3/18", "feature/3/18")
        self.assertIn("This feature is dead", self.texts(".dead")[0])
        for route in ("#/feature/3/8192", "#/feature/99/1"):
            self.go(route, "problem")
            self.assertTrue(self.texts(".problem")[0])

    def test_page_by_keys(self):
        browser = self.open("#/?layer=3&sort=layer")
        for key in "jjjk":
            browser.press(key)
        self.assertEqual(self.texts(".row.chosen .address"), ["3 / 1"])
        browser.press("Enter")
        for key, feature in (("", 1), ("j", 2), ("j", 3), ("k", 2)):
            if key:
                browser.press(key)
            browser.until(f"document.documentElement.dataset.view === 'feature/3/{feature}'")
        self.assertIn(f"3 of {FEATURES:,}", self.texts("nav")[0])
        browser.press("u")
        browser.until("document.documentElement.dataset.view === 'list'")
        self.assertEqual(self.found(), FEATURES)

    def test_page_of_graphs(self):
        browser = self.open("#/graphs")
        self.assertIn(f"a prompt {HOSTILE[0]}", self.texts(".example")[0])
        browser.run("document.querySelector('.example a').click()")
        browser.until("location.pathname.endsWith('.html') && location.pathname.includes('graphs') && document.documentElement.dataset.ready")
        browser.run("document.querySelector('[data-node=\"3_17_1\"]').dispatchEvent(new MouseEvent('click'))")
        browser.run("document.querySelector('#detail a').click()")
        browser.until("document.documentElement.dataset.view === 'feature/3/17'")

    def test_page_on_a_phone_and_in_the_dark(self):
        browser = self.open("#/?sort=largest")
        try:
            browser.theme("dark")
            browser.picture(ARTEFACTS / "list-dark.png")
            self.go("#/feature/3/17", "feature/3/17")
            browser.picture(ARTEFACTS / "feature-dark.png")
            browser.theme("light")
            browser.size(390, 844, mobile=True, scale=2)
            for route, view in (("#/?sort=largest", "list"), ("#/feature/3/17", "feature/3/17")):
                self.go(route, view)
                time.sleep(0.2)  # for the new size
                self.assertLessEqual(browser.run("document.scrollingElement.scrollWidth"), 390)
                browser.picture(ARTEFACTS / f"{view.split('/')[0]}-phone.png")
            self.assertEqual(len(self.texts(".example")), 6)
        finally:
            browser.size(1280, 860)
            browser.theme("")

    def test_server_gives_the_site_and_nothing_else(self):
        (self.scratch / "secret.txt").write_text("secret")
        process = start(["features", "report", "--out", self.site, "--serve", "--port", "0"])
        try:
            port = int(re.match(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline()).group(1))

            def get(path, host=f"127.0.0.1:{port}"):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                try:
                    connection.putrequest("GET", path, skip_host=True)
                    connection.putheader("Host", host)
                    connection.endheaders()
                    answer = connection.getresponse()
                    return answer.status, answer.read()
                finally:
                    connection.close()

            self.assertEqual(get("/"), (200, (self.site / "index.html").read_bytes()))
            self.assertEqual(get("/data/vocabulary.js", f"localhost:{port}")[0], 200)
            for path in ("/../secret.txt", "/data/../../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "//etc/passwd", "/nothing"):
                status, body = get(path)
                self.assertIn(status, (400, 403, 404), path)
                self.assertNotIn(b"secret", body)
            self.assertEqual(get("/", "evil.example")[0], 403)
            self.refused(78, f"--port: {port} is taken", ["features", "report", "--out", self.site, "--serve", "--port", port])
        finally:
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 0, said)

    def refused(self, code, needle, words):
        result = run(words)
        self.assertEqual(result.returncode, code, result.stdout)
        self.assertEqual(len(result.stdout.splitlines()), 1, result.stdout)
        self.assertIn(needle, result.stdout)

    def test_what_cannot_be_is_refused_in_one_line(self):
        out, other = self.scratch / "refused", self.scratch / "other"
        self.refused(78, "--out is not given", ["features", "report", "--features", self.store])
        self.refused(78, "--features is not given", ["features", "report", "--out", out])
        self.refused(78, "--port: expected a number from 0 to 65535, found '-3'", self.words("--serve", "--port=-3"))
        self.refused(66, "no features were collected here", self.words(out=out, store=self.scratch / "model"))
        self.refused(66, "holds no feature site", ["features", "report", "--out", other, "--serve"])
        self.refused(73, "is no feature site", self.words(out=self.scratch / "model"))
        result = run(["features", "report", "--out", self.site, "--serve", "--port", "0"], ranks=2)
        self.assertEqual(result.returncode, 78, result.stdout)
        self.assertIn("--serve: expected one rank, found 2", result.stdout)
        other.mkdir()
        for name in ("features.json", "tokens.h5", "layer-000.h5"):
            shutil.copy(self.store / name, other)
        damaged = bytearray((other / "tokens.h5").read_bytes())
        damaged[len(damaged) // 2] ^= 16
        (other / "tokens.h5").write_bytes(damaged)
        self.refused(65, "tokens.h5: ", self.words(out=out, store=other))
        (other / "labels.jsonl").write_text(label(3, 17, "classify", "language", adapters="transcoder ff"))
        self.refused(78, "labels for features of", self.words("--labels", other / "labels.jsonl", out=out))
        (other / "labels.jsonl").write_text(label(3, FEATURES, "classify", "language"))
        self.refused(65, f"a label for feature {FEATURES}", self.words("--labels", other / "labels.jsonl", out=out))
        write_graphs(other / "graphs", adapters="transcoder ff")
        self.refused(78, "a graph of the adapters", self.words("--graphs", other / "graphs", out=out))
        self.assertFalse(out.exists())


if __name__ == "__main__":
    unittest.main()
