#!/usr/bin/env python3
"""bench/cost_model.py [--out FOLDER] [--document FILE] [--only NAME]: what --dry-run expects, beside what runs then do.

Each row is a short real run on this machine and the forecast that `--dry-run` makes of it right after, measuring the
machine's rates as it always does. Of the run's own figures the forecast is told one that nobody knows beforehand: how
many features were active (plan.active_features); the column `blind` is what it says without. Sparse rows continue from
adapters that were trained before, so that their density is steady. "wide" is the 7B model's shape divided by 8, 7 layers,
random weights. Machines differ and other programs disturb: take the ratios, and run it on a quiet one.
"""

import argparse
import json
import os
import random
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARY = Path(os.environ.get("TADAPT_BINARY", ROOT / "build/release/tadapt-dist"))
TOY = ROOT / "data/toy"
ENVIRONMENT = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                   OMPI_MCA_rmaps_base_oversubscribe="1")
WIDE = {"layers": 7, "width": 448, "mlp": 2368, "heads": 7, "kv": 1, "vocabulary": 4752}


def tadapt(ranks, *words):
    """Runs the program on so many ranks; what it printed."""
    command = ["mpirun", "-n", str(ranks), str(BINARY), *map(str, words)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def write_wide_model(folder, seed):
    """A directory of random bf16 weights: exponents of 2^-7 to 2^-6, norms of 1."""
    folder.mkdir(parents=True)
    draws = random.Random(seed)
    signs = bytes(0x3C if value % 2 else 0xBC for value in range(256))
    width, key = WIDE["width"], WIDE["width"] // WIDE["heads"] * WIDE["kv"]
    shapes = {"model.embed_tokens.weight": (WIDE["vocabulary"], width), "lm_head.weight": (WIDE["vocabulary"], width),
              "model.norm.weight": (width,)}
    for layer in range(WIDE["layers"]):
        name = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{name}{norm}.weight"] = (width,)
        for projection, rows in (("q", width), ("k", key), ("v", key)):
            shapes[f"{name}self_attn.{projection}_proj.weight"] = (rows, width)
            shapes[f"{name}self_attn.{projection}_proj.bias"] = (rows,)
        shapes[f"{name}self_attn.o_proj.weight"] = (width, width)
        for projection, shape in (("gate", (WIDE["mlp"], width)), ("up", (WIDE["mlp"], width)),
                                  ("down", (width, WIDE["mlp"]))):
            shapes[f"{name}mlp.{projection}_proj.weight"] = shape
    header, data = {}, bytearray()
    for name, shape in shapes.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        numbers = bytearray(2 * count)
        if "norm" in name:
            numbers[:] = struct.pack("<H", 0x3F80) * count
        else:
            numbers[0::2] = draws.randbytes(count)
            numbers[1::2] = draws.randbytes(count).translate(signs)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(data), len(data) + len(numbers)]}
        data += numbers
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    config = json.loads((TOY / "target/config.json").read_text())
    config.update(hidden_size=width, intermediate_size=WIDE["mlp"], num_hidden_layers=WIDE["layers"],
                  num_attention_heads=WIDE["heads"], num_key_value_heads=WIDE["kv"], vocab_size=WIDE["vocabulary"],
                  tie_word_embeddings=False)
    config.pop("head_dim", None)
    config.pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((TOY / "target" / name).read_bytes())


class Bench:
    def __init__(self, out):
        self.out = out
        self.out.mkdir(parents=True, exist_ok=True)
        for seed, model in enumerate(("base", "target")):
            if not (out / "wide" / model).exists():
                write_wide_model(out / "wide" / model, seed)

    def words(self, model, name, options):
        wide = self.out / "wide"
        pair = (wide / "base", wide / "target") if model == "wide" else (TOY / "base", TOY / "target")
        all_options = {"run.dir": self.out / name, "model.base": pair[0], "model.target": pair[1],
                       "cache.dir": self.out / f"{model}-cache", "train.evaluate_every_steps": 0,
                       "log.every_seconds": 60, **options}
        config = ROOT / "configs" / ("toy_bridging.yaml" if options.get("train.objective") == "bridging" else "toy.yaml")
        return ["--config", config, *(word for key, value in all_options.items() for word in ("--set", f"{key}={value}"))]

    def forecast(self, ranks, words, command="train"):
        file = self.out / "forecast.json"
        tadapt(ranks, command, *words, "--dry-run", "--json", file)
        return json.loads(file.read_text())[-1]

    def row(self, name, model, ranks, **options):
        """A training run and its forecasts: [name, ranks, L0, expected, measured, blind]."""
        options = {key.replace("__", "."): value for key, value in options.items()}
        folder = f"{name}-{ranks}".replace(" ", "-").replace(",", "")
        words = self.words(model, folder, options)
        tadapt(ranks, "train", *words)
        run = self.out / folder
        timing = json.loads((run / "timing.jsonl").read_text().splitlines()[-1])
        l0 = [figures["l0"] for line in (run / "metrics.jsonl").read_text().splitlines()
              for figures in json.loads(line).get("trainees", {}).values()]
        active = sum(l0) / len(l0)
        told = self.forecast(ranks, [*words, "--set", f"plan.active_features={active}"])
        blind = self.forecast(ranks, words)
        return [name, ranks, f"{active:.1f}", told["tokens_per_second"], timing["tokens_per_second"],
                blind["tokens_per_second"]]

    def capture_row(self, name, model, ranks, rows):
        """Rows per second by the difference of two captures, so that the start does not count."""
        seconds = []
        for part in (1, 3):
            words = self.words(model, "capture", {"cache.max_tokens": part * rows, "cache.sequences_per_shard": 64,
                                                  "cache.dir": self.out / f"capture-{model}-{ranks}-{part}"})
            start = time.monotonic()
            tadapt(ranks, "capture", *words)
            seconds.append(time.monotonic() - start)
        expected = self.forecast(ranks, words, "capture")["rows_per_second"]
        return [name, ranks, "–", expected, 2 * rows / (seconds[1] - seconds[0]), expected]

    def rows(self, only):
        trained = self.out / "trained"
        sparse = {"adapter__init_from": trained, "loss__sparsity": 0.1, "optim__learning_rate": 1e-5}
        wide = {"adapter__features": 1024, "cache__max_tokens": 24000, "train__batch_tokens": 2048}
        wide_start = self.out / "wide-trained"
        bridging = {"train__objective": "bridging"}
        plan = [("toy, cache, dense", self.row, "toy", (1, 2), {"adapter__sparse_below": 0, "train__steps": 300}),
                ("toy, cache, sparse", self.row, "toy", (1, 2), {**sparse, "train__steps": 400}),
                ("toy, stream, sparse", self.row, "toy", (1, 2), {**sparse, "cache__source": "stream", "train__steps": 200}),
                ("toy, bridging", self.row, "toy", (1, 2), {**bridging, "train__steps": 60}),
                ("wide, cache, dense", self.row, "wide", (1, 2), {**wide, "adapter__sparse_below": 0, "train__steps": 12}),
                ("wide, cache, sparse", self.row, "wide", (1, 2),
                 {**wide, "adapter__init_from": wide_start, "optim__learning_rate": 1e-6, "train__steps": 25}),
                ("wide, stream, sparse", self.row, "wide", (1, 2),
                 {**wide, "adapter__init_from": wide_start, "optim__learning_rate": 1e-6, "cache__source": "stream",
                  "train__window_tokens": 8192, "train__steps": 12}),
                ("wide, bridging", self.row, "wide", (1, 2), {**bridging, "adapter__features": 1024, "train__steps": 12})]
        captures = [("toy, capture", "toy", 60000), ("wide, capture", "wide", 6000)]
        chosen = [entry for entry in plan if only in entry[0]]
        if any("init_from" in key for entry in chosen if entry[2] == "toy" for key in entry[4]) and not trained.exists():
            tadapt(2, "train", *self.words("toy", "trained", {"loss.sparsity": 0.1, "train.epochs": 2}))
        if any("init_from" in key for entry in chosen if entry[2] == "wide" for key in entry[4]) and not wide_start.exists():
            tadapt(2, "train", *self.words("wide", "wide-trained", {
                **{key.replace("__", "."): value for key, value in wide.items()}, "loss.sparsity": 1.0,
                "optim.learning_rate": 5e-3, "train.steps": 40}))
        for name, row, model, ranks, options in chosen:
            for count in ranks:
                yield row(name, model, count, **options)
        for name, model, rows in captures:
            if only in name:
                for count in (1, 2):
                    yield self.capture_row(name, model, count, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build/cost-model")
    parser.add_argument("--document", type=Path, help="file whose table is replaced")
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    arguments = parser.parse_args()
    lines = ["| run | ranks | L0 | expected, tokens/s | measured, tokens/s | expected / measured | blind / measured |",
             "|---|---:|---:|---:|---:|---:|---:|"]
    for name, ranks, l0, expected, measured, blind in Bench(arguments.out).rows(arguments.only):
        lines.append(f"| {name} | {ranks} | {l0} | {expected:,.0f} | {measured:,.0f} | {expected / measured:.2f} "
                     f"| {blind / measured:.2f} |")
        print(lines[-1], flush=True)
    if arguments.document:
        text = arguments.document.read_text(encoding="utf-8")
        table = "<!-- cost model -->\n" + "\n".join(lines) + "\n<!-- end of cost model -->"
        arguments.document.write_text(re.sub(r"<!-- cost model -->.*<!-- end of cost model -->", lambda _: table, text,
                                             flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
