"""Feature files of tadapt-dist, loaded by circuit-tracer's own readers. Run by tests/interop/run."""

import gzip
import json
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import circuit_tracer.frontend
import h5py
import numpy as np
from circuit_tracer.frontend.feature_models import Model

from interop_test import TOY, tadapt

HERE = Path(__file__).resolve().parent
ASSETS = Path(circuit_tracer.frontend.__file__).parent / "assets"
FEATURES = 64


def cantor(layer, feature):
    return (layer + feature) * (layer + feature + 1) // 2 + feature


class CircuitTracer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        out = cls.out = Path(cls.folder.name)
        lines = (TOY / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:64]
        (out / "corpus.jsonl").write_text("".join(lines), encoding="utf-8")
        (out / "run.yaml").write_text(f"""
model: {{base: {TOY}/base, target: {TOY}/target}}
corpus: {{train: corpus.jsonl}}
cache: {{sequences_per_shard: 16}}
adapter: {{features: {FEATURES}}}
train: {{batch_tokens: 256, steps: 8}}
""")
        tadapt("train", "--config", out / "run.yaml", "--run", out / "run")
        for form in ("circuit-tracer", "circuit-tracer-json"):
            tadapt("features", "--run", out / "run", "--corpus", out / "corpus.jsonl", "--out", out / form, "--export", form)
        cls.packed = out / "circuit-tracer/circuit-tracer"
        cls.files = out / "circuit-tracer-json/circuit-tracer"
        cls.active = []
        for layer in range(4):
            with h5py.File(out / f"circuit-tracer/layer-{layer:03d}.h5", "r") as file:
                cls.active.append(file["active"][:])

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def alive(self):
        return [(layer, int(feature)) for layer in range(4) for feature in np.flatnonzero(self.active[layer])]

    def test_its_front_end_loads_packed_features(self):
        if not shutil.which("node"):
            self.skipTest("node is not installed")
        chosen = self.alive()[::7] + self.alive()[-1:]
        numbers = [str(cantor(*one)) for one in chosen]
        done = subprocess.run(["node", HERE / "circuit_tracer_loader.js", ASSETS, self.packed, *numbers],
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        for (layer, feature), loaded in zip(chosen, json.loads(done.stdout), strict=True):
            self.assertEqual((loaded["layer"], loaded["feature"]), (layer, feature))
            expected = json.loads((self.files / f"features/{cantor(layer, feature)}.json").read_text(encoding="utf-8"))
            for key, value in expected.items():
                self.assertEqual(loaded[key], value, key)

    def test_its_model_of_a_feature_takes_every_file(self):
        files = sorted((self.files / "features").glob("*.json"))
        self.assertEqual(len(files), len(self.alive()))
        for layer, feature in self.alive():
            model = Model.model_validate_json((self.files / f"features/{cantor(layer, feature)}.json").read_bytes())
            top, drawn = model.examples_quantiles
            count = int(self.active[layer][feature])
            self.assertEqual((len(top.examples), len(drawn.examples)), (min(20, count), min(10, count)))
            self.assertEqual((len(model.top_logits), len(model.bottom_logits)), (10, 10))
            self.assertEqual(len(model.quantile_values), 99)
            self.assertEqual(model.quantile_values, sorted(model.quantile_values))
            self.assertAlmostEqual(sum(model.histogram), count, delta=1 + 0.5 * count)
            for example in top.examples + drawn.examples:
                self.assertEqual(len(example.tokens), len(example.tokens_acts_list))
                self.assertGreater(example.tokens_acts_list[example.train_token_ind], 0)
            peaks = [example.tokens_acts_list[example.train_token_ind] for example in top.examples]
            self.assertEqual(peaks, sorted(peaks, reverse=True))
            self.assertEqual(peaks[0], model.act_max)

    def test_dead_features_have_no_bytes(self):
        index = json.loads(gzip.decompress((self.packed / "features/index.json.gz").read_bytes()))
        self.assertEqual((index["version"], index["format"]), ("1.0", "variable_chunks"))
        for layer in range(4):
            offsets = index[str(layer)]["offsets"]
            self.assertEqual(len(offsets), FEATURES + 1)
            self.assertEqual(offsets[-1], (self.packed / "features" / index[str(layer)]["filename"]).stat().st_size)
            np.testing.assert_array_equal(np.diff(offsets) > 0, self.active[layer] > 0)

    def test_metadata_sums_to_one(self):
        metadata = json.loads((self.packed / "feature_metadata.json").read_text(encoding="utf-8"))
        for layer, entry in enumerate(metadata["layers"]):
            np.testing.assert_array_equal(entry["active"], self.active[layer])
            np.testing.assert_allclose(entry["density"], self.active[layer] / metadata["totals"]["tokens"])
            for key in ("by_domain", "by_region"):
                np.testing.assert_allclose(np.sum(entry[key], axis=1), self.active[layer] > 0, atol=1e-9)

    def test_h5py_reads_the_store(self):
        description = json.loads((self.out / "circuit-tracer/features.json").read_text(encoding="utf-8"))
        with h5py.File(self.out / "circuit-tracer/tokens.h5", "r") as tokens:
            begin, ids = tokens["sequences/begin"][:], tokens["tokens/id"][:]
            self.assertEqual(len(ids), description["totals"]["tokens"])
            with h5py.File(self.out / "circuit-tracer/layer-002.h5", "r") as file:
                rows = slice(*file["examples/begin"][[0, FEATURES]])
                sequence, position = file["examples/sequence"][rows], file["examples/position"][rows]
                # every conversation of the toy corpus thinks, so a number is an index
                self.assertTrue((position < np.diff(begin)[sequence]).all())
                self.assertTrue((file["examples/activation"][rows] > 0).all())
                self.assertEqual(file["lens/top_logit"].shape, (FEATURES, 10))
                self.assertTrue((np.diff(file["lens/top_logit"][:], axis=1) <= 0).all())


if __name__ == "__main__":
    unittest.main()
