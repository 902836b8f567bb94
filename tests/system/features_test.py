"""Collecting features with the whole program: any number of ranks, kills and stops, the same bytes."""
import json
import os
import random
import signal
import time
import unittest

from harness import CAMPAIGN, SEED, SOURCE, SystemTest, kill_everything, rank_pids, run, start, tell, tree_bytes, wait_until


class FeaturesTest(SystemTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        trained = run(cls.train_words(cls, "run", train__steps=40, adapter__features=64))
        assert trained.returncode == 0, trained.stdout
        lines = (SOURCE / "data/toy/train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        cls.corpus = cls.scratch / "corpus.jsonl"
        cls.corpus.write_text("".join(lines[:400]), encoding="utf-8")
        done = run(cls.words("reference"), 1)
        assert done.returncode == 0, done.stdout

    @classmethod
    def words(cls, out, *more):
        return ["features", "--run", cls.scratch / "run", "--corpus", cls.corpus, "--out", cls.scratch / out,
                "--set", "log.every_seconds=1", *more]

    def store(self, out):
        """All files but the lock, which names its holder."""
        return {name: data for name, data in tree_bytes(self.scratch / out).items() if name != "features.lock"}

    def assert_is_reference(self, out):
        expected, found = self.store("reference"), self.store(out)
        self.assertEqual(sorted(expected), sorted(found))
        for name, data in expected.items():
            self.assertEqual(data, found[name], f"{name} of {out} differs")

    def test_ranks_change_no_byte(self):
        for ranks in (2, 4):
            done = run(self.words(f"ranks-{ranks}", "--batch-tokens", 1000 * ranks), ranks)
            self.assertEqual(done.returncode, 0, done.stdout)
            self.assert_is_reference(f"ranks-{ranks}")
        self.assertIn("tokens", done.stdout)
        description = json.loads((self.scratch / "reference/features.json").read_text())
        self.assertEqual(description["sequences"], 400)
        self.assertFalse((self.scratch / "reference/partial").exists())

    def test_kills_and_stops_lose_and_repeat_nothing(self):
        draw = random.Random(SEED)
        good = stops = 0
        for case in range(CAMPAIGN):
            out = f"interrupted-{case}"
            words = self.words(out, "--save-seconds", 1, "--batch-tokens", 500)
            for attempt in range(3):
                process = start(words, draw.choice((1, 2, 3)))
                wait_until(lambda: (self.scratch / out / "partial").exists() or process.poll() is not None)
                time.sleep(draw.uniform(0.2, 2.0))
                if attempt % 2 == 0:
                    kill_everything(process)
                    continue
                for pid in rank_pids(process):
                    os.kill(pid, signal.SIGUSR1)
                said, _ = process.communicate(timeout=60)
                self.assertIn(process.returncode, (0, 75), said)
                stops += process.returncode == 75
            done = run(words, 2)
            self.assertEqual(done.returncode, 0, done.stdout)
            self.assert_is_reference(out)
            good += 1
        tell("features", "collections killed and stopped at random, then the bytes of the uninterrupted one", good, CAMPAIGN)

    def test_a_dry_run_writes_nothing(self):
        done = run(self.words("dry", "--dry-run"))
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("features in 4 layers over 400 conversations", done.stdout)
        self.assertFalse((self.scratch / "dry").exists())


if __name__ == "__main__":
    unittest.main()
