"""Training from the running models gives what training from the cache gives, byte for byte, and writes no cache."""
import json
import unittest

from harness import FULL, SystemTest, kill_everything, run, start, wait_until

STEPS = 20
# (ranks, data-parallel ranks)
GRIDS = [(1, 1), (2, 1), (2, 2), (4, 2)] + ([(3, 1), (4, 1), (4, 4), (8, 2)] if FULL else [])


class StreamingTest(SystemTest):
    def words(self, name, **options):
        common = dict(train__steps=STEPS, train__batch_tokens=256, train__window_tokens=1000, adapter__features=64,
                      train__evaluate_every_steps=5, train__held_out_tokens=700, checkpoint__every_steps=5,
                      grid__threads=1)
        streamed = dict(cache__source="stream", cache__dir="") if "stream" in name else {}
        return self.train_words(name, **(common | streamed | options))

    def trained(self, name, ranks=1, **options):
        result = run(self.words(name, **options), ranks)
        self.assertEqual(result.returncode, 0, result.stdout)
        return result.stdout

    def assert_same_training(self, cached, streamed):
        """Metrics, weights, moments and counters are equal; state.json only says where the rows came from."""
        expected, found = self.checkpoint(cached, STEPS), self.checkpoint(streamed, STEPS)
        self.assertEqual(sorted(expected), sorted(found))
        states = [json.loads(files.pop("state.json"))["state"] for files in (expected, found)]
        for files in (expected, found):
            del files["MANIFEST"]
        self.assertEqual(expected, found)
        for state in states:
            for key in ("config", "config_hash", "cache"):
                del state[key]
        self.assertEqual(*states)
        metrics = [(self.scratch / name / "metrics.jsonl").read_bytes() for name in (cached, streamed)]
        self.assertEqual(*metrics)
        self.assertEqual(list((self.scratch / streamed).rglob("*.h5")), [])
        self.assertFalse((self.scratch / streamed / "cache").exists())

    def test_the_cache_s_bits_on_any_grid(self):
        self.trained("from-cache")
        for ranks, data_parallel in GRIDS:
            name = f"stream-{ranks}-{data_parallel}"
            with self.subTest(name):
                self.trained(name, ranks, grid__data_parallel=data_parallel)
                self.assert_same_training("from-cache", name)

    def test_the_cache_s_bits_of_chosen_int8_rows(self):
        options = dict(cache__rows="int8", cache__tokens_per_sequence=40, cache__drop_first_positions=2,
                       cache__max_tokens=6000, train__window_tokens=100, train__seed=3)
        self.trained("chosen-from-cache", cache__dir=self.scratch / "chosen", **options)
        self.trained("chosen-stream", 2, **options)
        self.assert_same_training("chosen-from-cache", "chosen-stream")

    def test_kills_and_changing_rank_counts(self):
        options = dict(checkpoint__every_steps=3)  # 768 tokens: runs resume inside windows
        self.trained("undisturbed-from-cache", **options)
        checkpoints = self.scratch / "killed-stream/checkpoints"
        newest = lambda: max((path.name for path in checkpoints.glob("step-*[0-9]")), default="")
        kills = 0
        for ranks in (2, 1, 4):
            before = newest()
            process = start(self.words("killed-stream", **options), ranks)
            self.assertTrue(wait_until(lambda: newest() > before or process.poll() is not None))
            kills += process.poll() is None
            kill_everything(process)
        self.assertGreater(kills, 0, "the run ended before it could be killed")
        self.assertRegex(self.trained("killed-stream", 4, **options), "resumed from step|already finished")
        self.assert_same_training("undisturbed-from-cache", "killed-stream")

    def test_what_cannot_be_streamed_or_continued_is_said_by_key(self):
        cases = [(self.words("global-stream", train__order="global"), "train.order: global needs every row at hand")]
        self.trained("begun-from-cache", train__steps=2)
        cases.append((self.words("begun-from-cache", train__steps=2, cache__source="stream"),
                      'cache.source (was "disk", now "stream")'))
        for words, expected in cases:
            result = run(words, 2)
            self.assertEqual(result.returncode, 78, result.stdout)
            self.assertEqual(result.stdout.count("tadapt: rank"), 1, result.stdout)
            self.assertIn(expected, result.stdout)

    def test_a_dry_run_counts_models_and_windows(self):
        result = run([*self.words("dry-stream"), "--dry-run"], 2)
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertIn("made in memory, nothing on disk", result.stdout)
        self.assertRegex(result.stdout, r"memory per rank: .*frozen weights .*loader")
        self.assertFalse((self.scratch / "dry-stream").exists())


if __name__ == "__main__":
    unittest.main()
