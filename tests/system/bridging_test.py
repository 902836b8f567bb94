"""Training end to end through the models: the same run on any grid, after kills and signals; what it refuses."""
import json
import os
import pathlib
import random
import shutil
import signal
import struct
import tempfile
import unittest

from harness import (FULL, SEED, SOURCE, SystemTest, kill_everything, rank_pids, run, settings, start, tell, wait_until)

CONFIG = SOURCE / "configs/toy_bridging.yaml"
STEPS = 30 if FULL else 12
KILLS = 8 if FULL else 3


class BridgingTest(SystemTest):
    @classmethod
    def setUpClass(cls):
        cls.scratch = pathlib.Path(tempfile.mkdtemp(prefix="tadapt-system-"))
        test = cls()
        test.train("undisturbed")

    def train_words(self, run_dir, **options):
        common = dict(run__dir=self.scratch / run_dir, train__steps=STEPS, train__evaluate_every_steps=5,
                      train__held_out_tokens=1500, train__batch_sequences=8, train__reduction_leaves=4,
                      loss__cutoffs=2, checkpoint__every_steps=3, log__every_seconds=1, grid__device="cpu")
        return ["train", "--config", CONFIG, *settings(**(common | options))]

    def refused(self, code, *parts, ranks=1, **options):
        result = run(self.train_words("refused", **options), ranks)
        self.assertEqual(result.returncode, code, result.stdout)
        errors = [line for line in result.stdout.splitlines() if line.startswith("tadapt: ") and "exit=" not in line]
        self.assertEqual(len(errors), 1, result.stdout)
        for part in parts:
            self.assertIn(part, errors[0])

    def test_every_grid_and_way_of_using_memory_gives_the_same_run(self):
        for name, ranks, options in (("two", 2, {}), ("four", 4, {"optim__shard_state": "on"}),
                                     ("blocks", 3, {"grid__layer_blocks": 3}), ("single", 4, {"grid__layer_blocks": 4}),
                                     ("both", 4, {"grid__layer_blocks": 2, "train__recompute": "hidden"}),
                                     ("frugal", 1, {"train__recompute": "hidden", "train__logits_bytes": 100000})):
            with self.subTest(name):
                self.train(name, ranks, **options)
                self.assert_same_run("undisturbed", name, STEPS)

    def test_two_ranks_share_the_branches_of_a_sequence(self):
        one_leaf = dict(train__reduction_leaves=1, train__steps=6)
        self.train("leaf", 1, **one_leaf)
        for name, ranks, options in (("pair", 2, {"optim__shard_state": "on"}),
                                     ("pairs", 4, {"grid__layer_blocks": 2}),
                                     ("lopsided", 6, {"grid__branch_parallel": 2, "train__recompute": "hidden"})):
            with self.subTest(name):
                said = self.train(name, ranks, **(one_leaf | options)).stdout
                self.assertIn("x 2 branches", said)
                self.assert_same_run("leaf", name, 6)

    def test_the_loss_falls_and_is_told_term_by_term(self):
        lines = [json.loads(line) for line in (self.scratch / "undisturbed/metrics.jsonl").read_text().splitlines()]
        steps = [line for line in lines if "trainees" in line]
        self.assertEqual(len(steps), STEPS)
        self.assertLess(steps[-1]["kl_adapter"], 0.5 * steps[0]["kl_adapter"])
        for line in steps:
            self.assertEqual(len(line["cutoffs"]), 2)
            passes = 3 * 4
            for k in set(line["cutoffs"]):
                passes += 2 * (4 - k) * ((0 < k) + (0 < k < 4))
            self.assertEqual(line["layer_passes"], passes)
            terms = (line["kl_adapter"] + 2 * (line["kl_a2r"] + line["kl_r2a"]) + line["residual_nmse"]
                     + line["sparsity_weight"] * line["sparsity"])
            self.assertAlmostEqual(line["loss"] / terms, 1, places=9)
        held_out = [line["held_out"]["kl_adapter"] for line in lines if "held_out" in line]
        self.assertLess(held_out[-1], held_out[0])

    def test_kills_and_changing_rank_counts(self):
        draw = random.Random(SEED)
        kills = 0
        for _ in range(KILLS):
            before = set((self.scratch / "killed/checkpoints").glob("step-*[0-9]"))
            process = start(self.train_words("killed"), draw.choice([1, 2, 3, 4]))
            checkpoints = self.scratch / "killed/checkpoints"
            self.assertTrue(wait_until(lambda: set(checkpoints.glob("step-*[0-9]")) - before
                                       or process.poll() is not None))
            kills += process.poll() is None
            kill_everything(process)
        result = run(self.train_words("killed"), 2)
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assert_same_run("undisturbed", "killed", STEPS)
        tell("R1", "kills of a bridging run, byte for byte the undisturbed one", kills, kills)

    def test_a_signal_saves_and_ends_with_75(self):
        for name, ranks in (("alone", 1), ("couple", 2)):
            process = start(self.train_words(name), ranks)
            self.assertTrue(wait_until(lambda: any((self.scratch / name / "checkpoints").glob("step-*[0-9]"))))
            os.kill(process.pid, signal.SIGUSR1)
            output, _ = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 75, output)
            self.assertEqual(run(self.train_words(name), 4).returncode, 0)
            self.assert_same_run("undisturbed", name, STEPS)

    def test_a_signal_in_an_evaluation_is_heard_and_the_evaluation_made_up_for(self):
        often = dict(train__evaluate_every_steps=1, train__held_out_tokens=200000, train__steps=3, log__every_seconds=0)
        self.train("often", **often)
        process = start(self.train_words("interrupted", **often), 2)
        metrics = self.scratch / "interrupted/metrics.jsonl"
        self.assertTrue(wait_until(lambda: metrics.exists() and '"trainees"' in metrics.read_text()))
        os.kill(process.pid, signal.SIGUSR1)
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, output)
        self.assertEqual(run(self.train_words("interrupted", **often), 3).returncode, 0)
        self.assert_same_run("often", "interrupted", 3)

    def test_a_rank_that_is_killed_takes_all_along_and_the_run_goes_on_elsewhere(self):
        shared = dict(train__reduction_leaves=1, train__steps=6, checkpoint__every_steps=2)
        self.train("whole", **shared)
        for name, ranks, options in (("blocks", 3, {}), ("branches", 2, {"grid__branch_parallel": 2}),
                                     ("both", 4, {"grid__branch_parallel": 2})):
            with self.subTest(name):
                run_dir = f"killed-{name}"
                process = start(self.train_words(run_dir, grid__timeout_seconds=5, **(shared | options)), ranks)
                self.assertTrue(wait_until(lambda: any((self.scratch / run_dir / "checkpoints").glob("step-*[0-9]"))))
                pids = rank_pids(process)
                self.assertEqual(len(pids), ranks)
                os.kill(pids[-1], signal.SIGKILL)
                output, _ = process.communicate(timeout=15)
                self.assertNotIn(process.returncode, (0, 75), output)
                self.assertEqual(rank_pids(process), [])
                self.assertEqual(run(self.train_words(run_dir, **shared), 1).returncode, 0)
                self.assert_same_run("whole", run_dir, 6)

    def test_terms_without_weight_are_figures_or_not_there(self):
        for name, options in (("no-adapter", {"loss__kl_adapter": 0}), ("no-bridge", {"loss__kl_bridge": 0})):
            self.train(name, train__steps=2, **options)
        lines = {name: json.loads((self.scratch / name / "metrics.jsonl").read_text().splitlines()[0])
                 for name in ("undisturbed", "no-adapter", "no-bridge")}
        self.assertEqual(lines["no-adapter"]["kl_adapter"], lines["undisturbed"]["kl_adapter"])
        self.assertNotIn("kl_a2r", lines["no-bridge"])
        self.assertEqual(lines["no-bridge"]["layer_passes"], 3 * 4)

    def test_a_warm_start_begins_where_the_other_run_ended(self):
        result = self.train("warm", adapter__init_from=self.scratch / "undisturbed")
        self.assertIn("starts from checkpoint", result.stdout)
        first = json.loads((self.scratch / "warm/metrics.jsonl").read_text().splitlines()[0])
        cold = json.loads((self.scratch / "undisturbed/metrics.jsonl").read_text().splitlines()[0])
        self.assertLess(first["kl_adapter"], 0.5 * cold["kl_adapter"])
        self.refused(78, "adapter.init_from", "512 features", "64 (adapter.features)",
                     adapter__init_from=self.scratch / "undisturbed", adapter__features=64)
        self.refused(66, "holds no adapters", adapter__init_from=self.scratch / "nowhere")

    def test_the_sparsity_ramp_and_fixed_cutoffs(self):
        self.train("ramp", train__steps=4, loss__sparsity_initial=0.5, loss__sparsity_ramp_fraction=0.5,
                   loss__fixed_cutoffs="1,3")
        lines = [json.loads(line) for line in (self.scratch / "ramp/metrics.jsonl").read_text().splitlines()]
        steps = [line for line in lines if "trainees" in line]
        weights = [line["sparsity_weight"] / 1e-3 for line in steps]
        for weight, expected in zip(weights, (0.5, 0.75, 1.0, 1.0)):
            self.assertAlmostEqual(weight, expected)
        self.assertTrue(all(line["cutoffs"] == [1, 3] for line in steps))

    def test_what_cannot_be_is_refused_in_one_line(self):
        self.refused(78, "loss.fixed_cutoffs", "5", "4 layers", loss__fixed_cutoffs="1,5")
        self.refused(78, "loss.sparsity_scale", "relative", loss__sparsity_scale="relative")
        self.refused(78, "loss.kl_bridge", "local", train__objective="local", loss__kl_bridge=1, loss__cutoffs=1)
        self.refused(78, "train.recompute", "local", train__objective="local", train__recompute="hidden", loss__cutoffs=1)
        self.refused(78, "loss.fixed_cutoffs", "at most 64", loss__fixed_cutoffs="0-2000000000")
        self.refused(78, "5 ranks", "nearest usable: 4, 6", ranks=5)
        self.refused(78, "grid.branch_parallel 2", "(4)", ranks=2, grid__branch_parallel=2)
        self.refused(78, "grid.branch_parallel", "local", ranks=2, train__objective="local", grid__branch_parallel=2,
                     loss__cutoffs=1)
        self.refused(78, "loss.recipe", loss__recipe="papr")
        lines = (SOURCE / "data/toy/train.jsonl").read_text().splitlines()
        long = json.loads(lines[0])
        long["conversations"][1]["value"] *= 60
        corpus = self.scratch / "long.jsonl"
        corpus.write_text(json.dumps(long) + "\n")
        self.refused(78, "1024", corpus__train=corpus, corpus__max_sequence_tokens=5000)
        corpus.write_text(lines[0] + "\n")
        self.refused(65, "long.jsonl", "no token of step 1", corpus__train=corpus, corpus__max_sequence_tokens=1)

    def target_with_nan(self, name):
        target = self.scratch / f"target-{name}"
        shutil.copytree(SOURCE / "data/toy/target", target)
        weights = bytearray((target / "model.safetensors").read_bytes())
        header_bytes = struct.unpack_from("<Q", weights)[0]
        tensor = json.loads(weights[8:8 + header_bytes])[name]
        size = {"F32": 4, "BF16": 2, "F16": 2}[tensor["dtype"]]
        at = 8 + header_bytes + tensor["data_offsets"][0]
        weights[at:at + size] = b"\xff" * size  # a NaN in each of these types
        (target / "model.safetensors").write_bytes(weights)
        return target

    def test_nan_in_a_pass_is_named_and_never_saved(self):
        target = self.target_with_nan("model.layers.2.post_attention_layernorm.weight")
        for ranks, options in ((2, {}), (3, {"grid__layer_blocks": 3}), (2, {"train__reduction_leaves": 1})):
            with self.subTest(ranks=ranks, **options):
                self.refused(3, "layer 2", "the target's residual state", "step 1", "samples 0 to 7", ranks=ranks,
                             model__target=target, **options)
                self.assertFalse((self.scratch / "refused/checkpoints").exists())
        self.refused(3, "final norm and head", "step 1", ranks=2,
                     model__target=self.target_with_nan("model.norm.weight"))


if __name__ == "__main__":
    unittest.main()
