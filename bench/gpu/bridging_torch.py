#!/usr/bin/env python3
"""bench/gpu/bridging_torch.py SHAPE TOKENS: the published bridging schedule in PyTorch on a GPU, bf16 throughout, random
weights, one sequence; a JSON line for each cutoff. The shapes are those of bench_gpu_bridging."""

import json
import sys
import time
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from bridging_step_torch import KL_BRIDGE, Pair, Training  # noqa: E402  the path comes first

SHAPES = {"1.5B": (1536, 8960, 12, 2, 151936, 8192, 28), "7B": (3584, 18944, 28, 4, 152064, 8192, 28),
          "small": (64, 96, 4, 2, 300, 128, 3)}
RUNS = 3


class DeviceTraining(Training):
    """One sequence, models and adapters made here."""

    def __init__(self, shape, tokens, device):
        width, mlp_width, heads, kv_heads, vocabulary, features, layers = SHAPES[shape]
        config = dict(hidden_size=width, intermediate_size=mlp_width, num_attention_heads=heads,
                      num_key_value_heads=kv_heads, vocab_size=vocabulary, num_hidden_layers=layers, rms_norm_eps=1e-6,
                      rope_theta=1e4, max_position_embeddings=tokens)
        self.case = dict(sparsity=1e-3, clip_norm=1.0)
        self.shared = False
        torch.set_default_dtype(torch.bfloat16)
        with torch.device(device):
            self.pair = Pair(config, features)
            self.ids = (torch.arange(tokens) * 7919 % vocabulary)[None]
            self.real = torch.ones(1, tokens, dtype=torch.bool)
            self.labelled = torch.arange(tokens - 1)
        for name, parameter in self.pair.named_parameters():
            parameter.requires_grad_(".adapter." in name)
        self.trained = [parameter for parameter in self.pair.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(self.trained, lr=1e-6, weight_decay=0.0, fused=device == "cuda")

    def one_step(self, k):
        self.optimiser.zero_grad(set_to_none=True)
        terms = self.terms(k)
        loss = (terms["kl_adapter"] + KL_BRIDGE * (terms["kl_a2r"] + terms["kl_r2a"]) + terms["nmse"]
                + self.case["sparsity"] * terms["sparsity"])
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, self.case["clip_norm"])
        self.optimiser.step()


def main():
    shape, tokens = sys.argv[1], int(sys.argv[2])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    training = DeviceTraining(shape, tokens, device)
    layers = SHAPES[shape][-1]
    for k in (layers // 4, layers // 2, 3 * layers // 4):
        best = float("inf")
        for run in range(RUNS + 1):
            wait()
            start = time.perf_counter()
            training.one_step(k)
            wait()
            if run > 0:
                best = min(best, time.perf_counter() - start)
        peak = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0.0
        print(json.dumps(dict(section="bridging_torch", what=f"{shape}, {tokens} tokens, cutoff {k}", value=tokens / best,
                              unit="tokens/s", ms=1e3 * best, peak_gb=peak, torch=torch.__version__)), flush=True)


if __name__ == "__main__":
    main()
