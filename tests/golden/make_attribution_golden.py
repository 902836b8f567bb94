#!/usr/bin/env python3
"""Writes tests/golden/attribution/golden.json: attribution graphs of the models and adapters of tests/golden/bridging by
PyTorch's autograd in float64, through a forward whose non-linear parts are detached, one target at a time, with dense
matrices for influence, growth and pruning.

    python3 tests/golden/make_attribution_golden.py        # needs torch and safetensors; run by hand
"""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file

MODELS = Path(__file__).resolve().parent / "bridging"
OUT = Path(__file__).resolve().parent / "attribution"
PROMPTS = [[1, 5, 9, 2, 8, 30, 36, 4, 21], [7, 3], [11, 12, 13, 14, 15]]
LOGITS, MASS = 10, 0.95
GROWTHS = [{"max_features": 1000, "batch": 4, "batches_a_ranking": 4}, {"max_features": 7, "batch": 2, "batches_a_ranking": 1}]
NODE_SHARE, EDGE_SHARE = 0.8, 0.98


class Linearised:
    """The adapter model on one prompt; gradients see normalisers, sigmoids and attention weights as constants."""

    def __init__(self, ids):
        config = json.loads((MODELS / "target/config.json").read_text())
        self.layers, self.epsilon, self.theta = config["num_hidden_layers"], config["rms_norm_eps"], config["rope_theta"]
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.target, self.base = ({name: tensor.double() for name, tensor in load_file(MODELS / name / "model.safetensors").items()}
                                  for name in ("target", "base"))
        adapters = {name: tensor.double() for name, tensor in load_file(MODELS / "adapters.safetensors").items()}
        self.adapters = [{name: adapters[f"{layer}.{name}"] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
                         for layer in range(self.layers)]
        self.ids = torch.tensor(ids)
        self.embeddings = self.target["model.embed_tokens.weight"][self.ids].requires_grad_()
        self.value_biases = [self.target[f"model.layers.{layer}.self_attn.v_proj.bias"].requires_grad_() for layer in range(self.layers)]
        self.writes, self.active, self.pre = [], [], []  # what adapters add, activations, pre-activations
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
        self.logits = final @ head.T
        self.centred = final @ (head - head.mean(0)).T

    def norm(self, x, name):
        return x * (1 / torch.sqrt((x * x).mean(-1, keepdim=True) + self.epsilon)).detach() * self.target[name]

    def mlp(self, x, layer):
        at = f"model.layers.{layer}.mlp."
        gate, up = x @ self.base[f"{at}gate_proj.weight"].T, x @ self.base[f"{at}up_proj.weight"].T
        product = gate * torch.sigmoid(gate).detach() * up
        return (product / 2 + product.detach() / 2) @ self.base[f"{at}down_proj.weight"].T

    def attention(self, x, layer):
        at, length = f"model.layers.{layer}.self_attn.", x.shape[0]
        h = self.norm(x, f"model.layers.{layer}.input_layernorm.weight")
        q, k = ((h @ self.target[f"{at}{n}_proj.weight"].T + self.target[f"{at}{n}_proj.bias"]).detach() for n in "qk")
        v = h @ self.target[f"{at}v_proj.weight"].T + self.value_biases[layer]
        q, k, v = q.view(length, self.heads, -1), k.view(length, self.kv_heads, -1), v.view(length, self.kv_heads, -1)
        size = q.shape[-1]
        angle = torch.arange(length).double()[:, None] * self.theta ** (-torch.arange(0, size, 2).double() / size)
        cos, sin = (torch.cat([f, f], -1)[:, None] for f in (angle.cos(), angle.sin()))
        q, k = (t * cos + torch.cat([-t[..., size // 2:], t[..., :size // 2]], -1) * sin for t in (q, k))
        k, v = (t.repeat_interleave(self.heads // self.kv_heads, 1) for t in (k, v))
        scores = torch.einsum("thd,shd->hts", q, k) / math.sqrt(size)
        weights = scores.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf")).softmax(-1)
        return x + torch.einsum("hts,shd->thd", weights, v).reshape(length, -1) @ self.target[f"{at}o_proj.weight"].T


def attribute(model):
    """Every active feature and chosen logit as a target: contributions of all sources, biases, first position."""
    features = [(layer, position, feature) for layer in range(model.layers)
                for position, feature in model.active[layer].nonzero().tolist() if position > 0]
    probabilities, tokens = model.logits.detach().softmax(-1).sort(descending=True, stable=True)
    count = min(LOGITS, int((probabilities.cumsum(0) < MASS).sum()) + 1)
    logits = list(zip(tokens[:count].tolist(), probabilities[:count].tolist()))
    targets = ([(model.pre[layer][position, feature], model.adapters[layer]["b_enc"][feature].item()) for layer, position, feature in features]
               + [(model.centred[token], 0.0) for token, _ in logits])
    leaves = [*model.writes, *model.value_biases, model.embeddings]
    rows = []
    for value, bias in targets:
        gradients = [torch.zeros_like(leaf) if g is None else g for g, leaf in
                     zip(torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True), leaves)]
        writes, values, embeddings = gradients[:model.layers], gradients[model.layers:-1], gradients[-1]
        per_feature = [(writes[layer] @ model.adapters[layer]["W_dec"].T) * model.active[layer] for layer in range(model.layers)]
        token = (embeddings * model.embeddings.detach()).sum(-1)
        biases = bias + sum((g * b).sum() for g, b in zip(values, model.value_biases)).item()
        biases += sum((g @ one["b_dec"]).sum() for g, one in zip(writes, model.adapters)).item()
        first = sum(p[0].sum() for p in per_feature).item() + token[0].item()
        edges = [per_feature[layer][position, feature].item() for layer, position, feature in features] + token[1:].tolist()
        assert abs(sum(edges) + biases + first - value.item()) < 1e-9 * (1 + abs(value.item()))
        rows.append({"value": value.item(), "biases": biases, "first_position": first, "edges": edges})
    return features, logits, rows


def influence_of(matrix, start):
    share = matrix.abs() / matrix.abs().sum(1, keepdim=True).clamp(min=1e-300)
    step, total = start @ share, torch.zeros_like(start)
    while step.any():
        total += step
        step = step @ share
    return total


def grown(features, logits, rows, tokens, growth):
    """Indices of the features taken in, by influence, a few at a time."""
    size = len(features) + tokens + len(logits)
    start = torch.zeros(size, dtype=torch.float64)
    start[len(features) + tokens:] = torch.tensor([p for _, p in logits], dtype=torch.float64)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for i in range(len(logits)):
        matrix[len(features) + tokens + i, :len(features) + tokens] = torch.tensor(rows[len(features) + i]["edges"]).double()
    taken = []
    while len(taken) < growth["max_features"]:
        influence = influence_of(matrix, start)[:len(features)]
        waiting = [i for i in sorted(range(len(features)), key=lambda i: -influence[i].item()) if i not in taken and influence[i] > 0]
        waiting = waiting[:min(growth["batch"] * growth["batches_a_ranking"], growth["max_features"] - len(taken))]
        if not waiting:
            break
        for i in waiting:
            matrix[i, :len(features) + tokens] = torch.tensor(rows[i]["edges"]).double()
        taken += waiting
    return sorted(taken)


def lowest_taken(scores, share):
    ordered = scores.flatten().sort(descending=True).values
    place = int(torch.searchsorted(ordered.cumsum(0) / ordered.sum(), share))
    return ordered[min(place, len(ordered) - 1)]


def pruned(matrix, start, feature_count, logit_count):
    influence = influence_of(matrix, start)
    nodes = influence >= lowest_taken(influence, NODE_SHARE)
    nodes[feature_count:] = True
    inside = matrix.clone()
    inside[~nodes] = 0
    inside[:, ~nodes] = 0
    share = inside.abs() / inside.abs().sum(1, keepdim=True).clamp(min=1e-300)
    scores = share * (influence_of(inside, start) + start)[:, None]
    edges = (scores >= lowest_taken(scores, EDGE_SHARE)) & (scores > 0)
    before = None
    while before is None or not torch.equal(before, nodes):
        before = nodes.clone()
        edges[~nodes] = False
        edges[:, ~nodes] = False
        nodes[:feature_count] &= edges[:, :feature_count].any(0) & edges[:feature_count].any(1)
    ordered, order = influence.sort(descending=True, stable=True)
    cumulative = torch.zeros_like(influence)
    cumulative[order] = ordered.cumsum(0) / ordered.sum()
    return influence, cumulative, nodes, edges


def graph_of(features, logits, rows, tokens, growth):
    taken = grown(features, logits, rows, tokens, growth)
    count, size = len(taken), len(taken) + tokens + len(logits)
    matrix, start = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    start[count + tokens:] = torch.tensor([p for _, p in logits], dtype=torch.float64)
    sources = taken + list(range(len(features), len(features) + tokens))
    for target, row in enumerate(taken + list(range(len(features), len(features) + len(logits)))):
        at = target if target < count else target + tokens
        matrix[at, :count + tokens] = torch.tensor([rows[row]["edges"][source] for source in sources]).double()
    influence, cumulative, nodes, edges = pruned(matrix, start, count, len(logits))
    return {**growth, "features": taken, "influence": influence.tolist(), "cumulative": cumulative.tolist(),
            "kept_nodes": nodes.nonzero().flatten().tolist(), "kept_edges": edges.nonzero().tolist()}


def short(value):
    """The same with numbers of 9 digits."""
    if isinstance(value, dict):
        return {key: short(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [short(part) for part in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


def main():
    cases = []
    for ids in PROMPTS:
        features, logits, rows = attribute(Linearised(ids))
        cases.append({"ids": ids, "features": features, "logits": [{"token": token, "probability": p} for token, p in logits],
                      "rows": rows, "graphs": [graph_of(features, logits, rows, len(ids) - 1, growth) for growth in GROWTHS]})
    OUT.mkdir(exist_ok=True)
    (OUT / "golden.json").write_text(json.dumps({"cases": short(cases)}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
