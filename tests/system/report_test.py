"""Reports of real runs, opened in a browser: every chart is drawn, nothing complains, nothing is loaded from elsewhere."""
import html
import json
import os
import pathlib
import re
import shutil
import unittest

from browser import CHROMIUM, browse
from harness import SOURCE, SystemTest, run, settings

ARTEFACTS = pathlib.Path(os.environ.get("TADAPT_ARTEFACTS", SOURCE / "build/report"))
STEPS = 40
NASTY = "<img src=x onerror=alert(1)>"


class ReportTest(SystemTest):
    ROWS = 8000

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        test = cls()
        evaluated = dict(train__steps=STEPS, checkpoint__every_steps=10)
        test.train("sparse", loss__sparsity=0.3, **evaluated)
        test.train("dense", loss__sparsity=0.01, **evaluated)
        test.succeed("train", "--config", SOURCE / "configs/toy_bridging.yaml", *settings(
            run__dir=cls.scratch / "bridging", adapter__init_from=cls.scratch / "dense", train__steps=8,
            train__batch_sequences=4, train__held_out_tokens=1500, train__evaluate_every_steps=4))
        for name, lines in (("validation", 12), ("questions", 12)):
            text = (SOURCE / f"data/toy/{name}.jsonl").read_text().splitlines(keepends=True)[:lines]
            (cls.scratch / f"{name}.jsonl").write_text("".join(text))
        for name in ("dense", "bridging"):
            test.succeed("eval", cls.scratch / name, "--corpus", cls.scratch / "validation.jsonl")
        test.succeed("benchmark", cls.scratch / "dense", "--questions", cls.scratch / "questions.jsonl", "--max-new-tokens", 64)
        shutil.rmtree(ARTEFACTS, ignore_errors=True)
        ARTEFACTS.mkdir(parents=True)

    def assert_said(self, dom, *texts):
        for text in texts:
            self.assertTrue(text in dom, f"not on the page: {text}")

    def report(self, name, *folders):
        """A page of these, and what a browser makes of it: every chart drawn, and nothing said about it."""
        page = ARTEFACTS / f"{name}.html"
        self.succeed("report", *folders, "--out", page)
        if CHROMIUM is None:
            self.skipTest("chromium is not installed")
        dom, console = browse(page)
        self.assertEqual(console, [])
        dom = re.sub("<(script|style)[ >].*?</\\1>", "", dom, flags=re.DOTALL)
        self.assert_said(dom, 'data-ready="true"')
        titles = [html.unescape(title) for title in re.findall(r'data-chart="([^"]*)"', dom)]
        self.assertEqual(len(titles), int(re.search(r'data-charts="(\d+)"', dom).group(1)))
        self.assertEqual(dom.count('data-rendered="true"'), len(titles))
        self.assertFalse("cannot be shown" in dom, "a section failed")
        self.assertGreater(page.with_suffix(".png").stat().st_size, 50_000)
        return dom, titles

    def test_one_run(self):
        dom, titles = self.report("one-run", self.scratch / "dense")
        for title in ("Loss", "NMSE", "L0", "Learning rate", "Gradient norm", "NMSE by layer", "L0 by layer", "L0 of each layer",
                      "Token KL", "Residual NMSE", "Delta NMSE by layer", "Replacing only layer k of the target",
                      "Replacing the first k layers of the target", "Replacing the last k layers of the target", "Accuracy",
                      "Length", "Throughput", "Where the time went"):
            self.assertIn(title, titles)
        self.assert_said(dom, "Finished", "12 questions", "loss.sparsity", "oneDNN", str(self.scratch / "dense"))

    def test_several_runs_of_both_objectives(self):
        names = ("sparse", "dense", "bridging")
        dom, titles = self.report("comparison", *(self.scratch / name for name in names))
        for title in ("Loss", "NMSE", "KL adapter", "KL a2r", "L0 by layer", "Token KL"):
            self.assertIn(title, titles)
        self.assert_said(dom, "3 runs", "loss.sparsity", "train.objective")

    def test_names_are_text_and_unfinished_runs_are_said_to_be(self):
        shutil.copytree(self.scratch / "dense", self.scratch / NASTY)
        lines = (self.scratch / NASTY / "metrics.jsonl").read_text().splitlines(keepends=True)[:25]
        message = {"step": 26, "not_finite": "</script><script>alert(2)</script>"}
        (self.scratch / NASTY / "metrics.jsonl").write_text("".join(lines) + json.dumps(message) + '\n{"step": 27, "tra')
        dom, _ = self.report("unfinished", self.scratch / NASTY)
        self.assert_said(dom, f"<h1>{html.escape(NASTY, quote=False)}</h1>",
                         '<li class="problem">&lt;/script&gt;&lt;script&gt;alert(2)', f"Unfinished: at step 26 of {STEPS}")

    def test_a_sweep(self):
        folder = self.scratch / "sweep"
        folder.mkdir()
        shutil.copytree(self.scratch / "sparse", folder / "sparse")
        points = [dict(dictionary=size, l1=l1, seed=0, layer=layer, l0=50 * l1**-0.3, nmse=0.1 * size**-0.2 * l1**0.3,
                       kl=None if layer == 0 else 0.01 * l1, dead_share=0.01, tokens_per_second=1e4, seconds=60, run="sparse")
                  for size in (512, 1024, 2048) for l1 in (0.01, 0.1) for layer in ("all", 0)]
        fits = [dict(l1=0.01, metric="nmse", amplitude=0.025, exponent=-0.2, low=-0.25, high=-0.15)]
        (folder / "sweep.json").write_text(json.dumps(dict(points=points, pareto=dict(nmse=[8, 10], kl=[8]), fits=fits, recommended=2)))
        dom, titles = self.report("sweep", folder)
        for title in ("L0 against NMSE", "L0 against KL", "NMSE over dictionary size", "KL over dictionary size", "Loss"):
            self.assertIn(title, titles)
        self.assert_said(dom, "Recommended: 512 features, λ 0.1")

    def test_several_ranks_write_one_page(self):
        page = self.scratch / "ranks.html"
        result = run(["report", self.scratch / "sparse", "--out", page], ranks=2)
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertEqual(result.stdout.count("ranks.html"), 1)
        self.succeed("report", self.scratch / "sparse")
        self.assertEqual((self.scratch / "sparse/report.html").read_bytes(), page.read_bytes())

    def refused(self, code, *needles, words):
        result = run(["report", *words])
        self.assertEqual(result.returncode, code, result.stdout)
        self.assertEqual(len(result.stdout.splitlines()), 1, result.stdout)
        for needle in needles:
            self.assertIn(needle, result.stdout)

    def test_what_cannot_be_is_refused_in_one_line(self):
        good, empty = self.scratch / "sparse", self.scratch / "empty"
        self.refused(78, "usage: tadapt-dist report RUN", words=[])
        self.refused(66, "nowhere: there is no such path", words=[self.scratch / "nowhere"])
        self.refused(66, "neither a run nor a sweep", words=[self.cache])
        self.refused(73, "is a folder", words=[good, "--out", self.scratch])
        self.refused(73, "nowhere/page.html", words=[good, "--out", self.scratch / "nowhere/page.html"])
        self.refused(78, "given twice", words=[good, good])
        shutil.copytree(good, empty, ignore=shutil.ignore_patterns("report.html"))
        (empty / "metrics.jsonl").write_text("")
        self.refused(65, "empty/metrics.jsonl: holds no step", words=[empty])
        (empty / "metrics.jsonl").write_text('{"step":1}\nnonsense\n')
        self.refused(65, "empty/metrics.jsonl:2: expected a JSON object", words=[empty])
        self.assertFalse((empty / "report.html").exists())


if __name__ == "__main__":
    unittest.main()
