#!/usr/bin/env python3
"""The dense adapter step as idiomatic PyTorch, the peer of bench_adapter_step and bench_gpu_measure (needs torch).

Forward, local loss and gradients by autograd of one transcoder on one leaf; median of 9 runs.
"""

import argparse
import json
import statistics
import time

import torch

RUNS = 9


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="fp32", choices=["bf16", "fp32"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--width", type=int, default=3584)
    parser.add_argument("--features", type=int, default=8192)
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of words")
    return parser.parse_args()


def median_ms(wanted):
    dtype = torch.bfloat16 if wanted.dtype == "bf16" else torch.float32
    torch.set_num_threads(wanted.threads)
    torch.manual_seed(0)
    torch.set_default_device(wanted.device)
    encoder = torch.nn.Linear(wanted.width, wanted.features, dtype=dtype)
    decoder = torch.nn.Linear(wanted.features, wanted.width, dtype=dtype)
    x, delta = (torch.randn(wanted.tokens, wanted.width).to(dtype) for _ in range(2))

    def step():
        for parameter in (*encoder.parameters(), *decoder.parameters()):
            parameter.grad = None
        activations = torch.relu(encoder(x))
        error = (delta - decoder(activations)).float().square().sum(-1).mean()
        norms = decoder.weight.float().norm(dim=0)
        loss = error + 1e-3 * (activations.float() * norms).sum(-1).mean()
        loss.backward()
        if wanted.device == "cuda":
            torch.cuda.synchronize()

    for _ in range(3):
        step()
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds)


def main():
    wanted = arguments()
    ms = median_ms(wanted)
    if wanted.json:
        print(json.dumps({"tokens": wanted.tokens, "dtype": wanted.dtype, "ms": ms, "torch": torch.__version__}))
        return
    where = f"{wanted.threads} threads" if wanted.device == "cpu" else torch.cuda.get_device_name()
    print(f"torch {torch.__version__}: D {wanted.width}, F {wanted.features}, T {wanted.tokens}, {wanted.dtype}, "
          f"{where}: {ms:.1f} ms")


if __name__ == "__main__":
    main()
