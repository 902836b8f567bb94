#!/usr/bin/env python3
"""The bridging step as published, in idiomatic PyTorch, against ours in one run (needs torch and safetensors).

    python3 bench/bridging_step_torch.py build/release/bench/bench_bridging_step toy|wide [--schedule published|shared]

Both make whole optimiser steps from the same numbers, one after the other, each cutoff once a round. Ends with 1 where
losses or gradient norms differ by more than 1e-4. The published schedule runs every term by passes of its own: six
full-depth forwards (target, adapter model, both again for the residual states, a2r, r2a). `shared` takes the residual
states from the first two: four forwards. Times are the shortest of all rounds, by cutoff.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

TERMS = ("kl_adapter", "kl_a2r", "kl_r2a", "nmse", "sparsity")
TOLERANCE = 1e-4
KL_BRIDGE = 2.0


class Mlp(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, hidden = config["hidden_size"], config["intermediate_size"]
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config["hidden_size"]
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        size = width // self.heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, self.kv_heads * size)
        self.v_proj = nn.Linear(width, self.kv_heads * size)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x, rotation):
        batch, length, width = x.shape

        def by_head(projected, heads):
            return projected.view(batch, length, heads, -1).transpose(1, 2)

        def rotate(t):
            first, second = t.chunk(2, -1)
            return t * rotation[0] + torch.cat((-second, first), -1) * rotation[1]

        query = rotate(by_head(self.q_proj(x), self.heads))
        key = rotate(by_head(self.k_proj(x), self.kv_heads))
        value = by_head(self.v_proj(x), self.kv_heads)
        shared = self.heads // self.kv_heads
        key, value = (t.repeat_interleave(shared, 1) for t in (key, value))
        # Padding stands on the right: causality alone keeps real tokens from it.
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.o_proj(attended.transpose(1, 2).reshape(batch, length, width))


class Transcoder(nn.Module):
    def __init__(self, width, features):
        super().__init__()
        self.encoder = nn.Linear(width, features)
        self.decoder = nn.Linear(features, width)

    def forward(self, x):
        activations = F.relu(self.encoder(x))
        return self.decoder(activations), activations


class Layer(nn.Module):
    """A block of the target with the base's MLP and an adapter beside its own."""

    def __init__(self, config, features):
        super().__init__()
        width, epsilon = config["hidden_size"], config["rms_norm_eps"]
        self.input_layernorm = nn.RMSNorm(width, epsilon)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(width, epsilon)
        self.mlp = Mlp(config)
        self.base_mlp = Mlp(config)
        self.adapter = Transcoder(width, features)

    def forward(self, x, rotation, adapted):
        x = x + self.self_attn(self.input_layernorm(x), rotation)
        read = self.post_attention_layernorm(x)
        if not adapted:
            return x + self.mlp(read), None
        written, activations = self.adapter(read)
        return x + self.base_mlp(read) + written, activations


class Pair(nn.Module):
    def __init__(self, config, features):
        super().__init__()
        self.config = config
        width, vocabulary = config["hidden_size"], config["vocab_size"]
        self.embed_tokens = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(Layer(config, features) for _ in range(config["num_hidden_layers"]))
        self.norm = nn.RMSNorm(width, config["rms_norm_eps"])
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        size = width // config["num_attention_heads"]
        frequencies = config["rope_theta"] ** (-torch.arange(0, size, 2).double() / size)
        angles = torch.outer(torch.arange(config["max_position_embeddings"]).double(), frequencies).repeat(1, 2)
        self.register_buffer("cos", angles.cos().float())
        self.register_buffer("sin", angles.sin().float())

    def forward(self, ids, adapted):
        """Residual states, and activations of the adapted layers; `adapted` by layer."""
        rotation = (self.cos[:ids.shape[1]], self.sin[:ids.shape[1]])
        states, activations = [self.embed_tokens(ids)], []
        for layer, with_adapter in zip(self.layers, adapted):
            x, active = layer(states[-1], rotation, with_adapter)
            states.append(x)
            if with_adapter:
                activations.append(active)
        return states, activations

    def log_probabilities(self, states, labelled):
        rows = states[-1].flatten(0, 1).index_select(0, labelled)
        return F.log_softmax(self.lm_head(self.norm(rows)), -1)


def load_pair(directory, features):
    config = json.loads((directory / "config.json").read_text())
    pair = Pair(config, features)
    tensors = {name.removeprefix("model."): tensor.float()
               for name, tensor in load_file(directory / "target.safetensors").items()}
    for name, tensor in load_file(directory / "base.safetensors").items():
        if ".mlp." in name:
            tensors[name.removeprefix("model.").replace(".mlp.", ".base_mlp.")] = tensor.float()
    for name, tensor in load_file(directory / "adapters.safetensors").items():
        layer, what = name.split(".")
        part = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "decoder.weight", "b_dec": "decoder.bias"}
        tensors[f"layers.{layer}.adapter.{part[what]}"] = tensor.T.contiguous() if what == "W_dec" else tensor
    missing, unexpected = pair.load_state_dict(tensors, strict=False)
    assert not unexpected and set(missing) <= {"cos", "sin"}, (missing, unexpected)
    for name, parameter in pair.named_parameters():
        parameter.requires_grad_(".adapter." in name)
    return pair


class Training:
    def __init__(self, directory, features, schedule):
        self.case = json.loads((directory / "case.json").read_text())
        self.pair = load_pair(directory, features)
        self.shared = schedule == "shared"
        sequences = [torch.tensor(self.case["ids"][begin:end])
                     for begin, end in zip(self.case["offsets"], self.case["offsets"][1:])]
        self.ids = nn.utils.rnn.pad_sequence(sequences, batch_first=True)
        lengths = torch.tensor([len(ids) for ids in sequences])[:, None]
        places = torch.arange(self.ids.shape[1])
        self.real = places < lengths
        self.labelled = (places < lengths - 1).flatten().nonzero()[:, 0]
        self.trained = [parameter for parameter in self.pair.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(self.trained, lr=self.case["learning_rate"], weight_decay=0.0, fused=True)

    def residual_error(self, predicted, target):
        counts = self.real.sum(1) * predicted[0].shape[-1]
        mask = self.real[..., None]

        def mean(x):
            return (x.square() * mask).sum((1, 2)) / counts

        errors = [mean(p - t) / (mean(t) + 1e-8) for p, t in zip(predicted, target)]
        return torch.stack(errors).mean()

    def terms(self, k):
        pair, layers = self.pair, len(self.pair.layers)
        target, adapted = [False] * layers, [True] * layers
        with torch.no_grad():
            target_states, _ = pair(self.ids, target)
            y = pair.log_probabilities(target_states, self.labelled)

        def divergence(states):
            return F.kl_div(pair.log_probabilities(states, self.labelled), y, reduction="batchmean", log_target=True)

        states, activations = pair(self.ids, adapted)
        terms = {"kl_adapter": divergence(states), "kl_a2r": torch.zeros(()), "kl_r2a": torch.zeros(())}
        terms["sparsity"] = sum(
            ((active @ layer.adapter.decoder.weight.norm(dim=0)) * self.real).sum() / self.real.sum()
            for active, layer in zip(activations, pair.layers))
        if not self.shared:
            with torch.no_grad():
                target_states, _ = pair(self.ids, target)
            states, _ = pair(self.ids, adapted)
        terms["nmse"] = self.residual_error(states, target_states)
        if k > 0:
            terms["kl_a2r"] = divergence(pair(self.ids, adapted[:k] + target[k:])[0])
        if k < layers:
            terms["kl_r2a"] = divergence(pair(self.ids, target[:k] + adapted[k:])[0])
        return terms

    def step(self, k):
        start, cpu_start = time.perf_counter(), time.process_time()
        self.optimiser.zero_grad(set_to_none=True)
        terms = self.terms(k)
        loss = (terms["kl_adapter"] + KL_BRIDGE * (terms["kl_a2r"] + terms["kl_r2a"]) + terms["nmse"]
                + self.case["sparsity"] * terms["sparsity"])
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.trained, self.case["clip_norm"])
        self.optimiser.step()
        times = {"ms": 1e3 * (time.perf_counter() - start), "cpu_ms": 1e3 * (time.process_time() - cpu_start)}
        return {name: term.item() for name, term in terms.items()} | times | {"gradient_norm": norm.item()}


def peak_mb():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def forget_peak():
    Path("/proc/self/clear_refs").write_text("5")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path, help="bench_bridging_step")
    parser.add_argument("shape", choices=["toy", "wide"])
    parser.add_argument("--schedule", choices=["published", "shared"], default="published")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--density", type=float, default=0.5, help="share of the features active at first")
    parser.add_argument("--leaves", type=int, default=1, help="parts of the batch whose gradients ours adds up")
    parser.add_argument("--profile", type=Path, help="writes torch.profiler's table of one step to this file")
    return parser.parse_args()


class Ours:
    """The other program, which makes a step when told its cutoff."""

    def __init__(self, wanted, directory):
        words = [wanted.program, wanted.shape, directory, str(wanted.density), str(wanted.leaves)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = json.loads(self.process.stdout.readline())

    def step(self, k):
        print(k, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def disagreement(ours, theirs):
    """The largest relative difference of the terms and of the gradient's norm."""
    return max(abs(ours[name] - theirs[name]) / max(abs(theirs[name]), 1e-30)
               for name in (*TERMS, "gradient_norm") if theirs[name] != ours[name])


def compare(ours, training, rounds):
    """Steps of both in turn, the first round only to warm up: (ours, PyTorch's) steps by cutoff."""
    steps = {k: ([], []) for k in range(len(training.pair.layers) + 1)}
    for turn in range(rounds + 1):
        for k, (own, peer) in steps.items():
            theirs = training.step(k)
            mine = ours.step(k)
            if disagreement(mine, theirs) > TOLERANCE:
                sys.exit(f"losses differ at cutoff {k}: {mine} and {theirs}")
            if turn > 0:
                own.append(mine)
                peer.append(theirs)
    return steps


def shortest(steps, what):
    return min(step[what] for step in steps)


def means(steps, what):
    """Over the cutoffs, of ours and of PyTorch's."""
    return [sum(shortest(pair[side], what) for pair in steps.values()) / len(steps) for side in (0, 1)]


def profile(training, file):
    k = len(training.pair.layers) // 2
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as measured:
        training.step(k)
    table = measured.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=48)
    lines = "\n".join(line.rstrip() for line in table.splitlines())
    file.write_text(f"One step at cutoff {k}, torch {torch.__version__}\n{lines}\n")


def report(wanted, about, steps, memory):
    print(f"{wanted.shape}: {about['tokens']} tokens in {about['sequences']} sequences, float32, {about['threads']} "
          f"threads; torch {torch.__version__}, {wanted.schedule} schedule; density {wanted.density}, "
          f"leaves {wanted.leaves}\n")
    print("| cutoff | L0 | layer passes | ours, ms | PyTorch, ms | ratio |\n|---:|---:|---:|---:|---:|---:|")
    for k, (own, peer) in steps.items():
        ms, peer_ms = shortest(own, "ms"), shortest(peer, "ms")
        print(f"| {k} | {own[-1]['l0']:.1f} | {own[-1]['layer_passes']} | {ms:.1f} | {peer_ms:.1f} | "
              f"{peer_ms / ms:.2f} |")
    (ms, peer_ms), (cpu, peer_cpu) = means(steps, "ms"), means(steps, "cpu_ms")
    print(f"| mean | | | {ms:.1f} | {peer_ms:.1f} | **{peer_ms / ms:.2f}** |\n")
    print(f"Tokens per second: {1e3 * about['tokens'] / ms:.0f} and {1e3 * about['tokens'] / peer_ms:.0f}. Processor time "
          f"a step: {cpu:.0f} and {peer_cpu:.0f} ms, {peer_cpu / cpu:.2f}.")
    peak = max(step["peak_mb"] for own, _ in steps.values() for step in own)
    worst = max(disagreement(a, b) for own, peer in steps.values() for a, b in zip(own, peer))
    print(f"Peak memory: {peak:.0f} MB ({about['resident_mb']:.0f} before the first step) and {memory[1]:.0f} MB "
          f"({memory[0]:.0f}). Losses and gradient norms agree to {worst:.1e}.")


def main():
    wanted = arguments()
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Ours(wanted, Path(folder))) as ours:
        torch.set_num_threads(ours.about["threads"])
        features = load_file(Path(folder) / "adapters.safetensors")["0.W_enc"].shape[0]
        training = Training(Path(folder), features, wanted.schedule)
        forget_peak()
        before = peak_mb()
        steps = compare(ours, training, wanted.rounds)
        report(wanted, ours.about, steps, (before, peak_mb()))
        if wanted.profile:
            profile(training, wanted.profile)


if __name__ == "__main__":
    main()
