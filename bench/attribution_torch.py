#!/usr/bin/env python3
"""An attribution graph in straightforward dense PyTorch against ours, from the same numbers (needs torch, safetensors).

    python3 bench/attribution_torch.py build/release/bench/bench_attribution toy|wide|quarter [--nodes N] [--tokens T] [--density P]

Straightforward: one forward whose non-linear parts are detached; for each target one backward through it, which gives a
dense gradient for all features of all layers and positions; a dense matrix of all targets and active features, on which
influence is found by repeated multiplication. Both make the graph --rounds times, in turn; the shortest times count. Ends
with 1 where the graphs differ by more than 1e-4.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

EPSILON, THETA, LOGITS, MASS, TOLERANCE = 1e-6, 10000.0, 10, 0.95, 1e-4


class Model:
    def __init__(self, directory, case):
        self.layers, self.heads, self.kv_heads = case["layers"], case["heads"], case["kv_heads"]
        self.target = {name: tensor.float() for name, tensor in load_file(directory / "target.safetensors").items()}
        self.target |= {name: tensor.float() for name, tensor in load_file(directory / "base.safetensors").items() if ".mlp." in name}
        adapters = load_file(directory / "adapters.safetensors")
        self.adapters = [{name: adapters[f"{layer}.{name}"] for name in ("W_enc", "b_enc", "W_dec", "b_dec")} for layer in range(self.layers)]

    def norm(self, x, name):
        return x * (1 / torch.sqrt((x * x).mean(-1, keepdim=True) + EPSILON)).detach() * self.target[name]

    def mlp(self, x, layer):
        at = f"model.layers.{layer}.mlp."
        gate, up = x @ self.target[f"{at}gate_proj.weight"].T, x @ self.target[f"{at}up_proj.weight"].T
        product = gate * torch.sigmoid(gate).detach() * up
        return (product / 2 + product.detach() / 2) @ self.target[f"{at}down_proj.weight"].T

    def attention(self, x, layer):
        at, length = f"model.layers.{layer}.self_attn.", x.shape[0]
        h = self.norm(x, f"model.layers.{layer}.input_layernorm.weight")
        q, k, v = (h @ self.target[f"{at}{n}_proj.weight"].T + self.target[f"{at}{n}_proj.bias"] for n in "qkv")
        q, k, v = q.view(length, self.heads, -1), k.view(length, self.kv_heads, -1), v.view(length, self.kv_heads, -1)
        size = q.shape[-1]
        angle = (torch.arange(length).double()[:, None] * THETA ** (-torch.arange(0, size, 2).double() / size)).float()
        cos, sin = (torch.cat([f, f], -1)[:, None] for f in (angle.cos(), angle.sin()))
        q, k = (t * cos + torch.cat([-t[..., size // 2:], t[..., :size // 2]], -1) * sin for t in (q.detach(), k.detach()))
        k, v = (t.repeat_interleave(self.heads // self.kv_heads, 1) for t in (k, v))
        scores = torch.einsum("thd,shd->hts", q, k) / math.sqrt(size)
        weights = scores.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf")).softmax(-1)
        return x + torch.einsum("hts,shd->thd", weights, v).reshape(length, -1) @ self.target[f"{at}o_proj.weight"].T

    def forward(self, ids):
        self.embeddings = self.target["model.embed_tokens.weight"][ids].requires_grad_()
        self.writes, self.active, self.pre = [], [], []
        x = self.embeddings
        for layer in range(self.layers):
            x = self.attention(x, layer)
            read, one = self.norm(x, f"model.layers.{layer}.post_attention_layernorm.weight"), self.adapters[layer]
            self.pre.append(read @ one["W_enc"].T + one["b_enc"])
            self.active.append(self.pre[-1].detach().relu())
            self.writes.append((self.active[-1] @ one["W_dec"] + one["b_dec"]).requires_grad_())
            x = x + self.mlp(read, layer) + self.writes[-1]
        head = self.target["lm_head.weight"]
        final = self.norm(x, "model.norm.weight")[-1]
        self.logits, self.centred = (final @ head.T).detach(), final @ (head - head.mean(0)).T

    def row(self, value, features):
        """Contributions of active features and of tokens."""
        leaves = [*self.writes, self.embeddings]
        gradients = [torch.zeros_like(leaf) if g is None else g for g, leaf in
                     zip(torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True), leaves)]
        dense = torch.stack([(g @ one["W_dec"].T) * active for g, one, active in zip(gradients, self.adapters, self.active)])
        tokens = (gradients[-1] * self.embeddings.detach()).sum(-1)
        return torch.cat([dense[features], tokens[1:]])


def graph(model, case):
    ids = torch.tensor(case["ids"])
    model.forward(ids)
    active = torch.stack(model.active).clone()
    active[:, 0] = 0
    features = active.nonzero(as_tuple=True)  # layer, position, feature
    count, tokens = len(features[0]), len(ids) - 1
    probabilities, best = model.logits.softmax(-1).sort(descending=True, stable=True)
    logits = min(LOGITS, int((probabilities.cumsum(0) < MASS).sum()) + 1)
    rows = [model.row(model.centred[token], features) for token in best[:logits]]
    taken, owners = [], []  # owners[i]: the feature that row `logits + i` is of
    chosen = torch.zeros(count, dtype=torch.bool)
    while len(taken) < case["most_features"]:
        matrix = torch.stack(rows).abs()
        matrix /= matrix.sum(1, keepdim=True).clamp(min=1e-30)
        step = probabilities[:logits] @ matrix[:logits]
        influence = step.clone()
        while owners and step[owners].any():
            step = step[owners] @ matrix[logits:]
            influence += step
        order = influence[:count].masked_fill(chosen, -1).sort(descending=True, stable=True)
        wanted = min(case["batch"] * case["batches_a_ranking"], case["most_features"] - len(taken))
        waiting = order.indices[:wanted][order.values[:wanted] > 0].tolist()
        if not waiting:
            break
        for i in waiting:
            layer, position, feature = (int(part[i]) for part in features)
            rows.append(model.row(model.pre[layer][position, feature], features))
            chosen[i] = True
        taken += waiting
        owners += waiting
    names = [tuple(int(part[i]) for part in features) for i in taken]
    sources = torch.tensor(sorted(taken) + list(range(count, count + tokens)))
    by_feature = {name: rows[logits + i][sources] for i, name in enumerate(names)}
    return [tuple(int(part[i]) for part in features) for i in sorted(taken)], by_feature, [row[sources] for row in rows[:logits]], best[:logits].tolist()


def peak_mb():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def compare(case, found):
    """The largest difference of an edge beside the largest into its target; None where the nodes are others."""
    names, by_feature, logit_rows, tokens = found
    ours, count = case["graph"], case["graph"]["features"]
    if [tuple(node[:3]) for node in ours["nodes"][:count]] != names or [n[2] for n in ours["nodes"][-len(tokens):]] != tokens:
        return None
    worst = 0.0
    for i in range(len(ours["nodes"])):
        begin, end = ours["offsets"][i], ours["offsets"][i + 1]
        if begin == end:
            continue
        row = by_feature[names[i]] if i < count else logit_rows[i - (len(ours["nodes"]) - len(tokens))]
        mine = torch.zeros_like(row)
        mine[torch.tensor(ours["sources"][begin:end])] = torch.tensor(ours["weights"][begin:end])
        worst = max(worst, ((row - mine).abs().max() / row.abs().max()).item())
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("shape", choices=("toy", "wide", "quarter"))
    parser.add_argument("--nodes", type=int, default=300)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--density", type=float, default=0.01)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ours, theirs, difference = [], [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        words = [options.program, options.shape, folder, options.nodes, options.tokens, options.density]
        for _ in range(options.rounds):
            said = subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True).stdout
            ours.append(json.loads(said))
            case = json.loads((Path(folder) / "case.json").read_text())
            torch.set_num_threads(ours[0]["threads"])
            model, before = Model(Path(folder), case), peak_mb()
            start, cpu_start = time.perf_counter(), time.process_time()
            found = graph(model, case)
            theirs.append({"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu_start,
                           "peak_mb": peak_mb(), "resident_before_mb": before})
            differs = compare(case, found)
            difference = None if differs is None or difference is None else max(differs, difference)
    shortest = {name: [min(run[name] for run in runs) for runs in (ours, theirs)] for name in ("seconds", "cpu_seconds")}
    print(json.dumps({"ours": ours[0], "pytorch": theirs[0], "difference": difference, "shortest": shortest,
                      "times": {name: pair[1] / pair[0] for name, pair in shortest.items()}}, indent=1))
    return 0 if difference is not None and difference <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
