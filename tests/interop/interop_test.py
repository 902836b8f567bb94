"""What tadapt-dist writes, read with h5py, safetensors, tokenizers, TensorBoard and circuit-tracer. Run by tests/interop/run."""

import json
import os
import subprocess
import tempfile
import unittest
import urllib.request
from pathlib import Path

import h5py
import numpy as np
from circuit_tracer.frontend import serve
from circuit_tracer.frontend.graph_models import Metadata, Model, Node
from safetensors import safe_open
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
TOY = ROOT / "data" / "toy"
LINES = 48
STEPS = 12
FEATURES = 64


def tadapt(*words):
    done = subprocess.run([os.environ["TADAPT_PROGRAM"], *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rows_of(cache, name):
    """A dataset of all shards, one after the other."""
    parts = []
    for shard in json.loads((cache / "manifest.json").read_text())["shards"]:
        with h5py.File(cache / shard["file"], "r") as file:
            parts.append(file[name][:])
    return np.concatenate(parts)


class Interop(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        out = cls.out = Path(cls.folder.name)
        lines = (TOY / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:LINES]
        (out / "corpus.jsonl").write_text("".join(lines), encoding="utf-8")
        cls.conversations = [[turn["value"] for turn in json.loads(line)["conversations"]] for line in lines]
        cls.models = ["--base", TOY / "base", "--target", TOY / "target"]
        for rows in ("bf16", "fp32", "int8"):
            tadapt("capture", *cls.models, "--corpus", out / "corpus.jsonl", "--rows", rows, "--out", out / rows,
                   "--set", "cache.sequences_per_shard=16", "--set", "model.compute=fp32")
        (out / "run.yaml").write_text(f"""
model: {{base: {TOY}/base, target: {TOY}/target, compute: fp32}}
corpus: {{train: corpus.jsonl}}
cache: {{dir: fp32, rows: fp32, sequences_per_shard: 16}}
adapter: {{features: {FEATURES}}}
train: {{compute: fp32, batch_tokens: 256, steps: {STEPS}}}
""")
        tadapt("train", "--config", out / "run.yaml", "--run", out / "run")
        tadapt("export", out / "run", "--out", out / "adapters")
        tadapt("export", out / "run", "--format", "authors", "--out", out / "authors")

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_h5py_reads_rows_as_floats(self):
        layers = json.loads((TOY / "target" / "config.json").read_text())["num_hidden_layers"]
        for layer in range(layers):
            for name in (f"layers/{layer}/mlp_in", f"layers/{layer}/mlp_delta"):
                exact = rows_of(self.out / "fp32", name)
                self.assertEqual(exact.dtype, np.float32)
                self.assertTrue(np.isfinite(exact).all())
                rounded = rows_of(self.out / "bf16", name)
                self.assertTrue(np.issubdtype(rounded.dtype, np.floating), rounded.dtype)
                self.assertEqual(rounded.shape, exact.shape)
                # bfloat16 keeps 8 bits: half a unit in the last place is 2^-9 of the number
                np.testing.assert_allclose(rounded.astype(np.float32), exact, rtol=2.0**-8, atol=1e-37)
                whole = rows_of(self.out / "int8", name) * rows_of(self.out / "int8", name + "_scale")[:, None]
                largest = np.abs(exact).max(axis=1, keepdims=True)
                self.assertTrue((np.abs(whole - exact) <= largest / 127 * 0.51 + 1e-37).all())

    def test_scale_is_the_mean_square_of_delta(self):
        manifest = json.loads((self.out / "fp32" / "manifest.json").read_text())
        for layer, statistics in enumerate(manifest["layers"]):
            delta = rows_of(self.out / "fp32", f"layers/{layer}/mlp_delta").astype(np.float64)
            self.assertAlmostEqual(statistics["scale_square"] / (delta**2).sum(axis=1).mean(), 1, places=9)

    def test_tokens_are_those_of_the_tokenizers_package(self):
        tokenizer = Tokenizer.from_file(str(TOY / "target" / "tokenizer.json"))
        begin = json.loads((TOY / "target" / "tokenizer_config.json").read_text())["bos_token"]
        begin = begin if isinstance(begin, str) else begin["content"]
        expected = []
        for question, response in self.conversations:
            if response.startswith("<think> "):
                response = "<think>\n" + response[len("<think> "):]
            text = f"{begin}<｜User｜>{question}<｜Assistant｜>{response}"
            expected += tokenizer.encode(text, add_special_tokens=False).ids
        np.testing.assert_array_equal(rows_of(self.out / "fp32", "tokens/id"), expected)

    def test_safetensors_opens_both_exports(self):
        adapters = load_file(self.out / "adapters" / "adapters.safetensors")
        config = json.loads((self.out / "authors" / "config.json").read_text())
        self.assertEqual(config["transcoder_n_features"], FEATURES)
        self.assertEqual(config["architectures"], ["Qwen2ForCausalLMWithTranscoder"])
        width = config["hidden_size"]
        for layer in range(config["num_hidden_layers"]):
            ours = {name: adapters[f"layers.{layer}.{name}"] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
            self.assertEqual([(values.shape, values.dtype) for values in ours.values()],
                             [(shape, np.float32) for shape in
                              ((FEATURES, width), (FEATURES,), (FEATURES, width), (width,))])
            with safe_open(self.out / "authors" / "model.safetensors", "numpy") as theirs:
                for name, values in (("enc.weight", ours["W_enc"]), ("enc.bias", ours["b_enc"]),
                                     ("dec.weight", ours["W_dec"].T), ("dec.bias", ours["b_dec"])):
                    found = theirs.get_tensor(f"model.layers.{layer}.mlp.transcoder_{name}")
                    np.testing.assert_array_equal(found, values)

    def test_exported_adapters_have_the_held_out_error_we_report(self):
        adapters = load_file(self.out / "adapters" / "adapters.safetensors")
        reported = [json.loads(line) for line in (self.out / "run" / "metrics.jsonl").read_text().splitlines()]
        reported = [line for line in reported if "held_out" in line][-1]["held_out"]
        held_out = rows_of(self.out / "fp32", "tokens/sequence") >= LINES - 16  # the last shard
        for layer, metrics in enumerate(reported.values()):
            x = rows_of(self.out / "fp32", f"layers/{layer}/mlp_in")[held_out].astype(np.float64)
            delta = rows_of(self.out / "fp32", f"layers/{layer}/mlp_delta")[held_out].astype(np.float64)
            weights = {name: adapters[f"layers.{layer}.{name}"].astype(np.float64)
                       for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
            active = np.maximum(x @ weights["W_enc"].T + weights["b_enc"], 0)
            error = delta - active @ weights["W_dec"] - weights["b_dec"]
            self.assertAlmostEqual(metrics["nmse"] / ((error**2).sum() / (delta**2).sum()), 1, places=3)

    def test_tensorboard_shows_the_metrics(self):
        tadapt("report", self.out / "run", "--out", self.out / "report.html", "--tensorboard", self.out / "events")
        events = EventAccumulator(str(self.out / "events" / "run"), size_guidance={"scalars": 0}).Reload()
        expected = {}
        for line in map(json.loads, (self.out / "run" / "metrics.jsonl").read_text().splitlines()):
            expected.setdefault("learning_rate/all", []).append((line["step"], line.get("learning_rate")))
            for prefix, trainees in (("", line.get("trainees", {})), ("held_out_", line.get("held_out", {}))):
                for trainee, figures in trainees.items():
                    for name, value in figures.items():
                        expected.setdefault(f"{prefix}{name}/{trainee}", []).append((line["step"], value))
        found = events.Tags()["scalars"]
        self.assertIn("held_out_nmse/layer-003", found)
        self.assertIn("loss/mean", found)
        for tag, points in expected.items():
            points = [point for point in points if point[1] is not None]
            scalars = events.Scalars(tag)
            self.assertEqual([scalar.step for scalar in scalars], [step for step, _ in points], tag)
            np.testing.assert_array_equal([scalar.value for scalar in scalars],
                                          np.array([value for _, value in points], np.float32), tag)

    def test_circuit_tracer_opens_the_graphs(self):
        prompt = "<｜User｜>12 + 30<｜Assistant｜><think>\n12 + 30 = 42. wait"
        (self.out / "sum.txt").write_text(prompt, encoding="utf-8")
        graphs = self.out / "graphs"
        tadapt("attribute", "--run", self.out / "run", "--prompts", self.out / "sum.txt", "--out", graphs, "--max-nodes", 60,
               "--node-share", 1, "--edge-share", 1)
        server = serve(str(graphs), port=0)
        self.addCleanup(server.stop)
        at = f"http://localhost:{server.httpd.server_address[1]}"

        def fetch(name):
            with urllib.request.urlopen(f"{at}/{name}", timeout=20) as answer:
                return answer.read()

        self.assertIn(b"attribution graph", fetch("index.html").lower())
        listed = [Metadata.model_validate(entry) for entry in json.loads(fetch("data/graph-metadata.json"))["graphs"]]
        self.assertEqual([entry.slug for entry in listed], ["sum"])
        model = Model.model_validate_json(fetch("graph_data/sum.json"))
        self.assertEqual(model.metadata, listed[0])
        config = json.loads((TOY / "target" / "config.json").read_text())
        kinds = {node.feature_type for node in model.nodes}
        self.assertEqual(kinds, {"cross layer transcoder", "embedding", "logit"})
        for node in model.nodes:
            if node.feature_type == "cross layer transcoder":
                layer, feature, position = map(int, node.node_id.split("_"))
                same = Node.feature_node(layer, position, feature, node.influence, node.activation)
            elif node.feature_type == "embedding":
                same = Node.token_node(node.ctx_idx, int(node.node_id.split("_")[1]), node.influence)
                same.clerp = node.clerp
            else:
                token = model.metadata.prompt_tokens[0]  # any: its text is compared for its form only
                same = Node.logit_node(node.ctx_idx, node.feature, token, config["num_hidden_layers"], node.is_target_logit,
                                       node.token_prob)
                self.assertEqual(node.clerp.rsplit("(", 1)[1], same.clerp.rsplit("(", 1)[1])
                same.clerp = node.clerp
            self.assertEqual(node, same)
        ids = {node.node_id for node in model.nodes}
        self.assertTrue(model.links)
        self.assertTrue(all({link["source"], link["target"]} <= ids for link in model.links))


if __name__ == "__main__":
    unittest.main()
