"""Attribution graphs of the toy pair, as a user makes them: the same files on any number of ranks, after kills and
signals; what is refused; the page in a browser."""
import json
import os
import pathlib
import re
import shutil
import signal
import unittest

from browser import CHROMIUM, browse
from harness import SOURCE, SystemTest, kill_everything, rank_pids, run, start, tree_bytes, wait_until

ARTEFACTS = pathlib.Path(os.environ.get("TADAPT_ARTEFACTS", SOURCE / "build/attribution"))
QUESTIONS = 4


class AttributeTest(SystemTest):
    ROWS = 8000

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        test = cls()
        test.train("run", train__steps=60, loss__sparsity=0.03)
        prompts = cls.scratch / "prompts"
        prompts.mkdir()
        lines = (SOURCE / "data/toy/questions.jsonl").read_text().splitlines(keepends=True)[:QUESTIONS]
        (prompts / "questions.jsonl").write_text("".join(lines))
        begin = json.loads((SOURCE / "data/toy/target/tokenizer_config.json").read_text())["bos_token"]
        begin = begin if isinstance(begin, str) else begin["content"]
        (prompts / "hard <name>.txt").write_text(f"{begin}<｜User｜>12 + 30<｜Assistant｜><think>\n12 + 30 = 42. wait\n")
        test.attribute("undisturbed")
        cls.expected = tree_bytes(cls.scratch / "undisturbed")

    @classmethod
    def words(cls, out, *more, prompts=None):
        return ["attribute", "--run", cls.scratch / "run", "--prompts", prompts or cls.scratch / "prompts", "--out",
                cls.scratch / out, "--max-nodes", 300, "--batch", 16, *more]

    def attribute(self, out, *more, ranks=1):
        return self.succeed(*self.words(out, *more), ranks=ranks)

    def assert_whole(self, out):
        self.assert_same_files(self.scratch / out, self.expected)

    def test_graphs_are_complete_and_account_for_their_targets(self):
        names = [f"questions-{i:04}" for i in range(1, QUESTIONS + 1)] + ["hard--name-"]
        self.assertEqual(sorted(self.expected), sorted([f"{name}{end}" for name in names for end in (".json", ".html", ".balances.json")]
                                                       + ["graph-metadata.json"]))
        metadata = json.loads(self.expected["graph-metadata.json"])["graphs"]
        self.assertEqual(sorted(entry["slug"] for entry in metadata), sorted(names))
        features = 0
        for name in names:
            graph = json.loads(self.expected[f"{name}.json"])
            ids = {node["node_id"] for node in graph["nodes"]}
            self.assertTrue(all(link["source"] in ids and link["target"] in ids for link in graph["links"]))
            self.assertTrue(graph["links"])
            self.assertFalse(any(node["ctx_idx"] == 0 for node in graph["nodes"]))
            features += sum(node["feature_type"] == "cross layer transcoder" for node in graph["nodes"])
            for target in json.loads(self.expected[f"{name}.balances.json"])["targets"]:
                parts = sum(target[part] for part in ("edges", "left_out", "biases", "first_position", "residual"))
                self.assertAlmostEqual(parts, target["value"], places=6)
                self.assertLess(abs(target["residual"]), 1e-3 * (1 + abs(target["value"])))
        self.assertGreater(features, 0)

    def test_ranks_share_prompts(self):
        for ranks in (2, 3):
            self.attribute(f"ranks-{ranks}", ranks=ranks)
            self.assert_whole(f"ranks-{ranks}")

    def test_what_is_done_is_not_done_again(self):
        out = self.scratch / "resumed"
        shutil.copytree(self.scratch / "undisturbed", out)
        for name in ("questions-0002.balances.json", "questions-0003.balances.json", "questions-0003.json", "graph-metadata.json"):
            (out / name).unlink()
        kept = (out / "questions-0001.json").stat().st_mtime_ns
        self.assertIn("attribution: 2 prompts", self.attribute("resumed"))
        self.assert_whole("resumed")
        self.assertEqual((out / "questions-0001.json").stat().st_mtime_ns, kept)

    def interrupted(self, out, ranks, interrupt):
        """Starts it, interrupts when a graph is there, and starts it again."""
        process = start(self.words(out), ranks)
        self.assertTrue(wait_until(lambda: list((self.scratch / out).glob("*.balances.json"))))
        interrupt(process)
        self.attribute(out, ranks=ranks)
        self.assert_whole(out)

    def test_killed_at_any_moment(self):
        for ranks in (1, 2):
            self.interrupted(f"killed-{ranks}", ranks, kill_everything)

    def test_signals_end_it_with_75(self):
        def stop(process):
            for pid in rank_pids(process):
                try:
                    os.kill(pid, signal.SIGUSR1)
                except ProcessLookupError:
                    pass
            said, _ = process.communicate(timeout=60)
            # It may have been done before the signal came.
            self.assertIn(process.returncode, (0, 75), said)
            if process.returncode == 75:
                self.assertIn("start it again to go on", said)
        self.interrupted("stopped", 2, stop)

    def refused(self, code, *needles, words):
        result = run(words)
        self.assertEqual(result.returncode, code, result.stdout)
        errors = [line for line in result.stdout.splitlines() if line.startswith("tadapt: ") and "exit=" not in line]
        self.assertEqual(len(errors), 1, result.stdout)
        for needle in needles:
            self.assertIn(needle, errors[0])

    def test_what_cannot_be_is_refused_in_one_line(self):
        empty, long = self.scratch / "empty.txt", self.scratch / "long.txt"
        empty.write_text("")
        long.write_text("12 + 30 = 42. " * 2000)
        self.refused(78, "--prompts is not given", words=["attribute", "--run", self.scratch / "run", "--out", self.scratch / "x"])
        self.refused(65, "empty.txt: an empty prompt", words=self.words("refused", prompts=empty))
        self.refused(65, "long.txt: a prompt of", "positions", words=self.words("refused", prompts=long))
        self.refused(66, "nowhere", words=self.words("refused", prompts=self.scratch / "nowhere"))
        self.refused(78, "bytes", "models", "--batch", words=self.words("refused", "--memory-gib", 0.001))
        self.refused(78, "--logits: expected a number from 1", words=self.words("refused", "--logits", 0))
        self.refused(78, "balances.json: of another job", words=self.words("undisturbed", "--logits", 3))
        self.assert_whole("undisturbed")

    def test_the_page_in_a_browser(self):
        if CHROMIUM is None:
            self.skipTest("chromium is not installed")
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        page = ARTEFACTS / "graph.html"
        page.write_bytes(self.expected["hard--name-.html"])
        dom, console = browse(page, "1500,980")
        self.assertEqual(console, [])
        dom = re.sub("<script[ >].*?</script>", "", dom, flags=re.DOTALL)
        graph = json.loads(self.expected["hard--name-.json"])
        self.assertIn('data-ready="true"', dom)
        self.assertIn(f'data-nodes="{len(graph["nodes"])}"', dom)
        self.assertEqual(len(re.findall('<circle class="node', dom)), len(graph["nodes"]))
        first = next(node for node in graph["nodes"] if node["is_target_logit"])
        into = sum(link["target"] == first["node_id"] for link in graph["links"])
        self.assertIn(f"{into} edges in", dom)
        self.assertGreater(page.with_suffix(".png").stat().st_size, 20_000)


if __name__ == "__main__":
    unittest.main()
