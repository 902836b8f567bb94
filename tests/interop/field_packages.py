#!/usr/bin/env python3
"""tests/interop/field_packages.py PROGRAM RUN: circuit-tracer, SAELens and sparsify read the exports of a run.

Needs torch, circuit-tracer, sae-lens and eai-sparsify from PyPI (hundreds of MB: not part of CI). Each package loads
what `PROGRAM export` wrote for it and computes T(x) of random x; all must agree with the weights of the plain export to
1e-5. What came of it stands in docs/formats.md.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file


def main():
    program, run = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for form in ("adapters", "circuit-tracer", "sae-lens", "sparsify"):
            subprocess.run([program, "export", run, "--format", form, "--out", out / form], check=True)
        plain = load_file(out / "adapters/adapters.safetensors")
        layers = sorted({int(name.split(".")[1]) for name in plain})
        check(out, plain, layers)


def check(out, plain, layers):
    from circuit_tracer.transcoder.single_layer_transcoder import load_transcoder_set
    from sae_lens import SAE

    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # its kernels need a GPU
    from sparsify import SparseCoder

    last = max(layers)
    tracer = load_transcoder_set({i: str(out / f"circuit-tracer/layer_{i}.safetensors") for i in range(last + 1)}, "toy",
                                 "mlp.hook_in", "mlp.hook_out", dtype=torch.float32, device=torch.device("cpu"))
    for layer in layers:
        encoder, bias, decoder, shift = (plain[f"layers.{layer}.{name}"] for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
        x = torch.randn(64, encoder.shape[1], generator=torch.Generator().manual_seed(layer))
        expected = torch.relu(x @ encoder.T + bias) @ decoder + shift
        coder = SparseCoder.load_from_disk(out / f"sparsify/layers.{layer}.mlp")
        found = {
            "circuit-tracer": tracer[layer](x),
            "sae-lens": SAE.load_from_disk(out / f"sae-lens/layer_{layer}")(x),
            "sparsify": coder.decode(*coder.encode(x)[:2]),
        }
        for name, values in found.items():
            difference = (values - expected).abs().max().item() / expected.abs().max().item()
            print(f"layer {layer}, {name}: largest difference {difference:.1e} of the largest value")
            assert difference < 1e-5


if __name__ == "__main__":
    main()
