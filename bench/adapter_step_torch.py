#!/usr/bin/env python3
"""The dense adapter step as idiomatic PyTorch, the peer of bench_adapter_step (by hand; needs torch).

    python3 bench/adapter_step_torch.py [bf16|fp32] [THREADS] [TOKENS] [D] [F]

Forward, local loss and gradients by autograd of one transcoder on one leaf; median of 9 runs.
"""

import statistics
import sys
import time

import torch

RUNS = 9


def main():
    words = sys.argv[1:] + ["fp32", "2", "512", "3584", "8192"][len(sys.argv) - 1 :]
    dtype = torch.bfloat16 if words[0] == "bf16" else torch.float32
    threads, tokens, width, features = map(int, words[1:5])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    encoder = torch.nn.Linear(width, features, dtype=dtype)
    decoder = torch.nn.Linear(features, width, dtype=dtype)
    x, delta = torch.randn(tokens, width, dtype=dtype), torch.randn(tokens, width, dtype=dtype)

    def step():
        for parameter in (*encoder.parameters(), *decoder.parameters()):
            parameter.grad = None
        activations = torch.relu(encoder(x))
        error = (delta - decoder(activations)).float().square().sum(-1).mean()
        norms = decoder.weight.float().norm(dim=0)
        loss = error + 1e-3 * (activations.float() * norms).sum(-1).mean()
        loss.backward()

    step()
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    print(f"torch {torch.__version__}: D {width}, F {features}, T {tokens}, {words[0]}, {threads} threads: "
          f"{1e3 * statistics.median(seconds):.1f} ms")


if __name__ == "__main__":
    main()
