"""The same adapters, bit for bit, for any ranks, threads and mix of layer blocks and data-parallel groups."""
import unittest

from harness import FULL, SOURCE, SystemTest, command, execute, run

STEPS = 200 if FULL else 40
# (ranks, threads, data-parallel ranks)
GRIDS = [(1, 2, 1), (2, 1, 1), (2, 2, 2), (3, 1, 1), (4, 1, 1), (4, 1, 2), (4, 2, 4), (8, 1, 2)]


class GridIdentityTest(SystemTest):
    def check(self, compute):
        options = dict(train__steps=STEPS, train__compute=compute, checkpoint__every_steps=0)
        reference = f"{compute}-reference"
        self.train(reference, grid__threads=1, **options)
        for ranks, threads, data_parallel in GRIDS:
            name = f"{compute}-{ranks}-{threads}-{data_parallel}"
            with self.subTest(name):
                self.train(name, ranks, grid__threads=threads, grid__data_parallel=data_parallel, **options)
                self.assert_same_run(reference, name, STEPS)

    def test_bfloat16(self):
        self.check("bf16")

    def test_float32(self):
        self.check("fp32")

    def test_global_order(self):
        options = dict(train__steps=20, train__order="global", checkpoint__every_steps=0)
        self.train("global-1", grid__threads=1, **options)
        self.train("global-4", 4, grid__data_parallel=2, **options)
        self.assert_same_run("global-1", "global-4", 20)

    def test_optimiser_state_shared_or_not(self):
        options = dict(train__steps=20, checkpoint__every_steps=0)
        self.train("whole-state", grid__threads=1, **options)
        for data_parallel in (2, 4):
            name = f"shared-state-{data_parallel}"
            self.train(name, 4, grid__data_parallel=data_parallel, optim__shard_state="on", **options)
            self.assert_same_run("whole-state", name, 20)

    def test_ranks_on_unlike_machines_use_the_lowest_instruction_set(self):
        options = dict(train__steps=10, checkpoint__every_steps=0, grid__threads=1)
        low = dict(ONEDNN_MAX_CPU_ISA="AVX2")
        alone = execute(command(self.train_words("lower-1", **options)), **low)
        self.assertEqual(alone.returncode, 0, alone.stdout)
        words = command(self.train_words("lower-2", **options))
        lower = ["-x", "ONEDNN_MAX_CPU_ISA=AVX2"]
        mixed = execute(["mpirun", "--bind-to", "none", "-n", "1", *words, ":", "-n", "1", *lower, *words])
        self.assertEqual(mixed.returncode, 0, mixed.stdout)
        self.assert_same_run("lower-1", "lower-2", 10)

    def test_evaluation_is_the_same_for_any_rank_count(self):
        self.train("evaluated", train__steps=20)
        corpus = self.scratch / "few.jsonl"
        lines = (SOURCE / "data/toy/validation.jsonl").read_text().splitlines()[:30]
        corpus.write_text("\n".join(lines) + "\n")
        texts = []
        for ranks in (1, 3):
            out = self.scratch / f"eval-{ranks}.json"
            result = run(["eval", self.scratch / "evaluated", "--corpus", corpus, "--out", out], ranks)
            self.assertEqual(result.returncode, 0, result.stdout)
            texts.append(out.read_text())
        self.assertEqual(texts[0], texts[1])


if __name__ == "__main__":
    unittest.main()
