"""Training on GPUs, one rank and several: the CPU's adapters within rounding, its own bit for bit, and again after a kill.

Runs in builds with CUDA; device code on the host counts, where every process has a GPU of its own."""
import json
import math
import pathlib
import struct
import unittest

from harness import FULL, SOURCE, SystemTest, command, execute, kill_everything, settings, start, wait_until

STEPS = 20 if FULL else 4
FIXED_STEPS = 20 if FULL else 2
# (ranks, data-parallel ranks)
GRIDS = [(1, 1), (2, 2), (4, 2)]


def tensors(path):
    """{name: list of floats} of a safetensors file of float32."""
    data = pathlib.Path(path).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    found = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] != "F32":
            continue
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        found[name] = struct.unpack(f"<{(end - begin) // 4}f", data[begin:end])
    return found


def root_mean_square(values):
    return math.sqrt(sum(value * value for value in values) / len(values))


class DeviceTrainingTest(SystemTest):
    ROWS = 2000

    def words(self, name, **options):
        common = dict(train__steps=STEPS, train__batch_tokens=256, train__reduction_leaves=4, train__window_tokens=1024,
                      train__held_out_tokens=128, adapter__features=48, checkpoint__every_steps=STEPS // 2, grid__device="cuda")
        return self.train_words(name, **(common | options))

    def trained(self, name, ranks=1, environment=None, **options):
        result = execute(command(self.words(name, **options), ranks), **(environment or {}))
        self.assertEqual(result.returncode, 0, result.stdout)
        return result.stdout

    def assert_close_run(self, one, other, compute):
        """Weights agree to a small part of what training has changed. A rounding error of the gradient is at most the
        operands' (2^-8 in bf16, of sums of many terms 2^-20 in fp32), and AdamW, which divides by the gradient's own
        size, passes relative errors on; elements whose gradient is next to nothing may go either way."""
        share = {"bf16": 0.05, "fp32": 0.002}[compute]
        for layer in range(4):
            file = f"checkpoints/step-{STEPS:09d}/layer-{layer:03d}.safetensors"
            expected, found = (tensors(self.scratch / name / file) for name in (one, other))
            for name in ("W_dec", "b_dec"):  # begin at zero: all of it was learnt
                errors = [a - b for a, b in zip(expected[name], found[name])]
                self.assertLess(root_mean_square(errors), share * root_mean_square(expected[name]), f"{layer} {name}")

    def test_one_rank_agrees_with_the_cpu(self):
        dense, sparse = 0, 1000
        for compute, below in [("bf16", dense), ("fp32", sparse)] + ([("fp32", dense), ("bf16", sparse)] if FULL else []):
            options = dict(train__compute=compute, adapter__sparse_below=below)
            names = [f"{where}-{compute}-{below}" for where in ("cpu", "gpu")]
            self.trained(names[0], grid__device="cpu", **options)
            self.trained(names[1], **options)
            self.assert_close_run(*names, compute)

    def test_the_fixed_order_gives_the_same_bits_on_any_grid(self):
        steps = dict(train__steps=FIXED_STEPS)
        reference = "fixed-1-1"
        for ranks, data_parallel in GRIDS:
            name = f"fixed-{ranks}-{data_parallel}"
            said = self.trained(name, ranks, grid__data_parallel=data_parallel, grid__sum_order="fixed", **steps)
            if data_parallel > 1:
                self.assertIn("in the fixed order", said)
            self.assert_same_run(reference, name, FIXED_STEPS)
        for ranks, order in ((4, "fixed"), (2, "fast")):  # a sum of two has but one order
            name = f"shared-state-{ranks}"
            self.trained(name, ranks, grid__data_parallel=ranks, grid__sum_order=order, optim__shard_state="on", **steps)
            self.assert_same_run(reference, name, FIXED_STEPS)
        one_gpu = dict(TADAPT_DEVICE_SHARED="1", CUDA_VISIBLE_DEVICES="0")
        said = self.trained("shared", 2, one_gpu, grid__data_parallel=2, **steps)
        self.assertIn("through host memory", said)
        self.assert_same_run(reference, "shared", FIXED_STEPS)

    def test_four_ranks_agree_with_the_cpu_with_themselves_and_after_a_kill(self):
        grid = dict(grid__data_parallel=2)
        self.trained("four-cpu", 4, grid__device="cpu", **grid)
        self.trained("four", 4, **grid)
        self.assert_close_run("four-cpu", "four", "bf16")
        process = start(self.words("killed", **grid), 4)
        halfway = self.scratch / f"killed/checkpoints/step-{STEPS // 2:09d}/MANIFEST"
        self.assertTrue(wait_until(lambda: halfway.exists() or process.poll() is not None))
        kill_everything(process)
        said = self.trained("killed", 4, **grid)
        self.assertIn(f"resumed from step {STEPS // 2}", said)
        self.assert_same_run("four", "killed", STEPS)

    def test_bridging_by_layer_blocks_and_by_branches_agrees_with_one_rank(self):
        config = SOURCE / "configs/toy_bridging.yaml"
        common = dict(train__steps=1, train__batch_sequences=1, train__reduction_leaves=1, train__held_out_tokens=0,
                      corpus__max_sequence_tokens=20,
                      adapter__features=32, loss__fixed_cutoffs=2, log__every_seconds=1, grid__device="cuda")
        steps = {}
        for name, ranks, options in (("one", 1, {}), ("branches", 2, {}), ("blocks", 2, {"grid__layer_blocks": 2})):
            run_dir = self.scratch / f"bridging-{name}"
            result = execute(command(["train", "--config", config,
                                      *settings(run__dir=run_dir, **(common | options))], ranks))
            self.assertEqual(result.returncode, 0, result.stdout)
            steps[name] = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        for name in ("branches", "blocks"):
            for one, other in zip(steps["one"], steps[name]):
                self.assertEqual(other["layer_passes"], one["layer_passes"])
                for term in ("kl_adapter", "kl_a2r", "kl_r2a", "residual_nmse", "gradient_norm"):
                    self.assertLess(abs(other[term] - one[term]), 2e-3 * abs(one[term]), f"{name}: {term}")

    def test_a_device_that_cannot_be_had_is_an_error_that_says_why(self):
        cases = [("cuda:77", {}, "grid.device cuda: GPU 77 was asked for, this process sees"),
                 ("gpu", {}, "expected auto, cpu, cuda or cuda:N")]
        if "on device on host" in self.trained("short", train__steps=1):  # whose memory can be chosen
            cases.append(("cuda", dict(TADAPT_DEVICE_MEMORY="1000"), "GPU memory: 1 rank on one GPU needs about"))
        for device, environment, expected in cases:
            result = execute(command(self.words("elsewhere", grid__device=device)), **environment)
            self.assertEqual(result.returncode, 78, result.stdout)
            self.assertIn(expected, result.stdout)


if __name__ == "__main__":
    unittest.main()
