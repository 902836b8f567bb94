"""The hesitation study with the whole program: kills and stops change no byte; the page in a browser; what is refused."""
import html
import json
import os
import pathlib
import random
import re
import signal
import time
import unittest

from browser import CHROMIUM, browse
from harness import SEED, SOURCE, SystemTest, kill_everything, rank_pids, run, start, tree_bytes

ARTEFACTS = pathlib.Path(os.environ.get("TADAPT_ARTEFACTS", SOURCE / "build/study"))
QUESTIONS = 24


class StudyTest(SystemTest):
    ROWS = 8000

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        test = cls()
        test.train("run", train__steps=40, adapter__features=128)
        for name, source, lines in (("corpus", "train", 200), ("questions", "questions", QUESTIONS)):
            text = (SOURCE / f"data/toy/{source}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:lines]
            (cls.scratch / f"{name}.jsonl").write_text("".join(text), encoding="utf-8")
        test.succeed("features", "--run", cls.scratch / "run", "--corpus", cls.scratch / "corpus.jsonl", "--out",
                     cls.scratch / "features")
        test.succeed(*cls.words("undisturbed"))
        cls.expected = tree_bytes(cls.scratch / "undisturbed")

    @classmethod
    def words(cls, out, *more, features="features"):
        return ["study", "hesitation", cls.scratch / "run", "--features", cls.scratch / features, "--questions",
                cls.scratch / "questions.jsonl", "--max-new-tokens", 60, "--controls", "0.5,1", "--output-rule",
                "promotes(wait hmm but alternatively) - region(bos)", "--template-rule", "region(bos)",
                "--out", cls.scratch / out, *more]

    def assert_whole(self, out):
        self.assert_same_files(self.scratch / out, self.expected)

    def refused(self, code, *needles, words):
        result = run(words)
        self.assertEqual(result.returncode, code, result.stdout)
        errors = [line for line in result.stdout.splitlines() if line.startswith("tadapt: ") and "exit=" not in line]
        self.assertEqual(len(errors), 1, result.stdout)
        for needle in needles:
            self.assertIn(needle, errors[0])

    def test_the_files_agree_with_each_other(self):
        study = json.loads(self.expected["study.json"])
        rows = {row["model"]: row for row in study["models"]}
        sets = {one["name"]: one for one in study["sets"]}
        self.assertEqual(study["questions"], QUESTIONS)
        self.assertEqual(sets["both"]["features"], sets["output"]["features"] + sets["template"]["features"])
        self.assertEqual(sets["control-1"]["features"], sets["both"]["features"])
        for name in ("adapter-without-both", "hybrid-with-control-1", "target-less-both"):
            self.assertIn(name, rows)
        table = self.expected["study.csv"].decode().splitlines()
        self.assertEqual(len(table), 1 + 5 * len(rows))
        cells = dict(zip(table[0].split(","), next(line for line in table if line.startswith("adapter,")).split(",")))
        self.assertEqual(cells["metric"], "accuracy")
        self.assertAlmostEqual(float(cells["value"]), rows["adapter"]["accuracy"]["value"]["value"])
        # Lengths, recounted from the responses.
        lines = [json.loads(line) for line in self.expected["responses-adapter-without-both.jsonl"].decode().splitlines()]
        lengths = [line["tokens"] for line in lines if "tokens" in line]
        self.assertEqual(len(lengths), QUESTIONS)
        self.assertAlmostEqual(sum(lengths) / QUESTIONS, rows["adapter-without-both"]["mean_tokens"]["value"]["value"])
        for line in self.expected["study.md"].decode().splitlines():
            if line.startswith("| adapter-without-both"):
                self.assertIn(f"| {sets['both']['features']} |", line)

    def test_kills_stops_and_ranks_change_no_byte(self):
        draw = random.Random(SEED)
        for attempt in range(3):
            process = start(self.words("interrupted"), draw.choice((1, 2)))
            time.sleep(draw.uniform(0.5, 2.5))
            if attempt % 2 == 0:
                kill_everything(process)
                continue
            for pid in rank_pids(process):
                try:
                    os.kill(pid, signal.SIGUSR1)
                except ProcessLookupError:
                    pass
            said, _ = process.communicate(timeout=60)
            self.assertIn(process.returncode, (0, 75), said)
        self.succeed(*self.words("interrupted"), ranks=2)
        self.assert_whole("interrupted")

    def test_what_cannot_be_is_refused_in_one_line(self):
        other = self.scratch / "other.json"
        content = json.loads((self.scratch / "undisturbed/sets/both.json").read_text())
        content["layers"] = [{"layer": 2, "features": [9999]}]
        other.write_text(json.dumps(content))
        self.refused(65, "names feature 9999 of layer 2, whose dictionary has 128",
                     words=["select", self.scratch / "features", f"set({other})"])
        self.train("again", train__steps=20, adapter__features=128)
        self.refused(78, "holds features of transcoder ", words=[*self.words("refused")[:2], self.scratch / "again", *self.words("refused")[3:]])
        self.refused(66, "nowhere", words=self.words("refused", features="nowhere"))
        self.refused(78, "of another job", "responses-target.jsonl", words=self.words("undisturbed", "--seed", 1))
        self.assert_whole("undisturbed")

    def test_the_page_in_a_browser(self):
        if CHROMIUM is None:
            self.skipTest("chromium is not installed")
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        page = ARTEFACTS / "study.html"
        page.write_bytes(self.expected["study.html"])
        dom, console = browse(page)
        self.assertEqual(console, [])
        dom = re.sub("<(script|style)[ >].*?</\\1>", "", dom, flags=re.DOTALL)
        self.assertIn('data-ready="true"', dom)
        self.assertNotIn("cannot be shown", dom)
        titles = [html.unescape(title) for title in re.findall(r'data-chart="([^"]*)"', dom)]
        self.assertEqual(dom.count('data-rendered="true"'), len(titles))
        for title in ("Necessity: Hesitation", "Sufficiency: Length", "Transfer: Accuracy",
                      "Hesitation: change by number of features removed"):
            self.assertIn(title, titles)
        for claim in json.loads(self.expected["study.json"])["claims"]:
            self.assertIn(html.escape(claim["claim"], quote=False), dom)
        self.assertGreater(page.with_suffix(".png").stat().st_size, 50_000)


if __name__ == "__main__":
    unittest.main()
