"""Scaling studies: every run of a sweep is the run it would have been alone, whatever happens on the way."""
import csv
import json
import os
import random
import signal
import unittest

from harness import FULL, SEED, SystemTest, CONFIG, kill_everything, run, settings, start, tell, tree_bytes, wait_until

STEPS = 60 if FULL else 24
KILLS = 10 if FULL else 3
DICTIONARIES, WEIGHTS = (64, 96), ("0.01", "0.1")
POINTS = [(dictionary, weight) for dictionary in DICTIONARIES for weight in WEIGHTS]


class SweepTest(SystemTest):
    OPTIONS = dict(train__steps=STEPS, train__evaluate_every_steps=10, checkpoint__every_steps=6)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        test = cls()
        for dictionary, weight in POINTS:
            test.train(f"alone-{dictionary}-{weight}", adapter__features=dictionary, loss__sparsity=weight, **cls.OPTIONS)

    def sweep_words(self, out, dictionaries=DICTIONARIES, weights=WEIGHTS, more=("--evaluate", "no"), **options):
        common = self.OPTIONS | dict(cache__dir=self.cache, cache__max_tokens=self.ROWS, cache__sequences_per_shard=64,
                                     train__window_tokens=4096, log__every_seconds=1, grid__device="cpu")
        return ["sweep", "--config", CONFIG, "--out", self.scratch / out, "--dict", ",".join(map(str, dictionaries)),
                "--l1", ",".join(weights), *more, *settings(**(common | options))]

    def sweep(self, out, ranks=1, **options):
        result = run(self.sweep_words(out, **options), ranks)
        self.assertEqual(result.returncode, 0, result.stdout)
        return result.stdout

    def assert_runs_are_those_alone(self, out, points=POINTS):
        for dictionary, weight in points:
            folder = self.scratch / out / "runs" / f"d{dictionary}-l{weight}-s0"
            alone = self.scratch / f"alone-{dictionary}-{weight}"
            for part in (f"checkpoints/step-{STEPS:09d}", "metrics.jsonl"):
                self.assertEqual(self.content(folder / part), self.content(alone / part), f"{folder}/{part}")

    @staticmethod
    def content(path):
        return tree_bytes(path) if path.is_dir() else path.read_bytes()

    def test_runs_side_by_side_are_those_alone_on_any_grid(self):
        for ranks, options in ((1, {}), (2, {}), (4, {"optim__shard_state": "on", "grid__data_parallel": 2}),
                               (3, {"grid__layer_blocks": 3, "more": ("--together", "3", "--evaluate", "no")})):
            with self.subTest(ranks=ranks):
                self.sweep(f"grid-{ranks}", ranks, **options)
                self.assert_runs_are_those_alone(f"grid-{ranks}")

    def test_points_are_added_and_finished_ones_left_alone(self):
        self.sweep("growing", dictionaries=(64,))
        before = tree_bytes(self.scratch / "growing/runs")
        said = self.sweep("growing", 2)
        self.assertIn("2 of 4 runs are to be trained", said)
        after = tree_bytes(self.scratch / "growing/runs")
        self.assertEqual({name: after[name] for name in before}, before)
        self.assert_runs_are_those_alone("growing")
        again = self.sweep("growing", dictionaries=(96,), weights=("0.1",))
        self.assertNotIn("are to be trained", again)
        self.assertEqual(len(json.loads((self.scratch / "growing/sweep.json").read_text())["points"]), 4)

    def test_kills_and_a_signal(self):
        draw = random.Random(SEED)
        checkpoints = self.scratch / "killed/runs/d64-l0.01-s0/checkpoints"
        kills = 0
        for _ in range(KILLS):
            before = set(checkpoints.glob("step-*[0-9]"))
            process = start(self.sweep_words("killed"), draw.choice([1, 2]))
            wait_until(lambda: set(checkpoints.glob("step-*[0-9]")) - before or process.poll() is not None)
            kills += process.poll() is None
            kill_everything(process)
        before = set(checkpoints.glob("step-*[0-9]"))
        process = start(self.sweep_words("killed"))
        wait_until(lambda: process.poll() is not None or set(checkpoints.glob("step-*[0-9]")) - before)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGUSR1)
        output, _ = process.communicate(timeout=60)
        self.assertIn(process.returncode, (0, 75), output)
        self.sweep("killed", 2)
        self.assert_runs_are_those_alone("killed")
        tell("R1", "kills of a sweep, each run byte for byte the one alone", kills, kills)

    def test_results_are_told(self):
        said = self.sweep("told", dictionaries=(64, 96, 128), weights=("0.1",), more=())
        study = json.loads((self.scratch / "told/sweep.json").read_text())
        self.assertEqual([point["dictionary"] for point in study["points"]], [64, 96, 128])
        for point in study["points"]:
            evaluation = json.loads((self.scratch / "told" / point["run"] / "evaluation.json").read_text())
            adapter = next(model for model in evaluation["models"] if model["model"] == "adapter")
            self.assertEqual(point["kl"], adapter["response"]["token_kl"])
            self.assertAlmostEqual(point["l0"], evaluation["mean_l0"])
            self.assertGreater(point["seconds"], 0)
        self.assertEqual({fit["metric"] for fit in study["fits"]}, {"nmse", "kl"})
        self.assertIsNotNone(study["recommended"])
        with open(self.scratch / "told/sweep.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual(len(rows), 3 * 5)
        self.assertIn("exit=0 reason=finished runs=3 failed=0 of=3", said)

    def test_a_run_that_diverges_does_not_take_the_others_along(self):
        said = self.sweep("diverging", dictionaries=(64,), weights=("0.1", "1e38"))
        self.assertIn("the other runs go on without it", said)
        study = json.loads((self.scratch / "diverging/sweep.json").read_text())
        self.assertEqual([point["l1"] for point in study["failed"]], [1e38])
        self.assertIn("not finite", study["failed"][0]["reason"])
        self.assert_runs_are_those_alone("diverging", [(64, "0.1")])

    def test_bridging_runs_one_after_the_other(self):
        said = self.sweep("bridging", dictionaries=(32,), weights=("0.001", "0.01"),
                          more=("--objective", "bridging", "--evaluate", "no"), train__steps=2,
                          train__batch_sequences=4, loss__sparsity_scale="absolute")
        self.assertIn("runs=2 failed=0 of=2", said)

    def test_what_cannot_be_is_refused_in_one_line(self):
        for code, part, words in ((78, "--dict", ["sweep", "--l1", "1"]), (78, "--l1: expected a number", ["sweep", "--dict", "8", "--l1", "x"]),
                                  (78, "given twice", ["sweep", "--dict", "8,8", "--l1", "1"]),
                                  (78, "--seeds", ["sweep", "--dict", "8", "--l1", "1", "--seeds", "0"]),
                                  (78, "did you mean", ["sweep", "--dicts", "8"])):
            result = run([*words, "--config", CONFIG])
            self.assertEqual(result.returncode, code, result.stdout)
            self.assertIn(part, result.stdout)
        folder = self.scratch / "strange"
        folder.mkdir()
        (folder / "sweep.json").write_text("{}")
        result = run(self.sweep_words("strange"), 2)
        self.assertEqual(result.returncode, 65, result.stdout)
        self.assertIn("expected the results of a sweep", result.stdout)


if __name__ == "__main__":
    unittest.main()
