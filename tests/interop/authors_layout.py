#!/usr/bin/env python3
"""Loads an export in the authors' layout with Hugging Face transformers and compares its logits with tadapt's.

    python3 tests/interop/authors_layout.py [RUN]      # needs torch and transformers 4.57.1; run by hand

RUN is a run directory of the bundled toy pair (default: a short one is trained first). The adapter branch is the class
below: the authors' checkpoint format needs one, since transformers has none. Ends with 1 when a logit differs by more
than 1e-4 of the logits' root mean square.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP

ROOT = Path(__file__).resolve().parents[2]
TOY = ROOT / "data" / "toy"
BUILD = ROOT / "build" / "release"
TOLERANCE = 1e-4
SEQUENCES = 20


class MlpWithTranscoder(Qwen2MLP):
    """mlp(x) + W_dec ReLU(W_enc x + b_enc) + b_dec, under the authors' tensor names."""

    def __init__(self, config):
        super().__init__(config)
        features = config.transcoder_n_features
        self.transcoder_enc = nn.Linear(config.hidden_size, features, bias=True)
        self.transcoder_dec = nn.Linear(features, config.hidden_size, bias=config.transcoder_dec_bias)

    def forward(self, x):
        return super().forward(x) + self.transcoder_dec(torch.relu(self.transcoder_enc(x)))


class Qwen2ForCausalLMWithTranscoder(Qwen2ForCausalLM):
    def __init__(self, config):
        super().__init__(config)
        for layer in self.model.layers:
            layer.mlp = MlpWithTranscoder(config)
        self.post_init()


def tadapt(program, *words):
    subprocess.run([BUILD / program, *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def toy_sequences():
    """Token ids of the first validation conversations, whole."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(TOY / "target" / "tokenizer.json"))
    lines = (TOY / "validation.jsonl").read_text(encoding="utf-8").splitlines()[:SEQUENCES]
    texts = [[turn["value"] for turn in json.loads(line)["conversations"]] for line in lines]
    return [tokenizer.encode(f"<｜begin▁of▁sentence｜><｜User｜>{q}<｜Assistant｜>{r}", add_special_tokens=False).ids
            for q, r in texts]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="a run directory of the bundled toy pair")
    run = parser.parse_args().run
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        if run is None:
            run = out / "run"
            tadapt("tadapt-dist", "train", "--config", ROOT / "configs" / "toy.yaml", "--set", f"run.dir={run}",
                   "--set", "cache.max_tokens=40000", "--set", "train.steps=100")
        tadapt("tadapt-dist", "export", run, "--format", "authors", "--out", out / "authors")
        sequences = toy_sequences()
        (out / "ids").write_text("".join(" ".join(map(str, ids)) + "\n" for ids in sequences))
        tadapt("tests/interop_logits", TOY / "base", TOY / "target", run, out / "ids", out / "ours.safetensors")
        ours = load_file(out / "ours.safetensors")

        config = Qwen2Config.from_pretrained(out / "authors")
        model, loading = Qwen2ForCausalLMWithTranscoder.from_pretrained(
            out / "authors", config=config, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
        missing = loading["missing_keys"] or loading["unexpected_keys"] or loading["mismatched_keys"]
        worst = square = count = 0.0
        with torch.no_grad():
            for index, ids in enumerate(sequences):
                logits = model.eval()(torch.tensor([ids])).logits[0]
                worst = max(worst, (logits - ours[f"logits.{index}"]).abs().max().item())
                square, count = square + logits.square().sum().item(), count + logits.numel()
    scale = (square / count) ** 0.5
    print(f"{len(sequences)} sequences, {sum(map(len, sequences))} tokens, {config.transcoder_n_features} features")
    print(f"keys missing, unexpected or of another shape: {missing or 'none'}")
    print(f"largest difference {worst:.2e}, {worst / scale:.2e} of the logits' root mean square {scale:.3f}")
    return 1 if missing or not worst <= TOLERANCE * scale else 0


if __name__ == "__main__":
    sys.exit(main())
