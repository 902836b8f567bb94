#!/usr/bin/env python3
"""Writes tests/golden/bridging/: a tiny random model pair, adapters, sequences, and the bridging objective's terms and
gradients by PyTorch's autograd in float64, every term computed with passes of its own.

    python3 tests/golden/make_bridging_golden.py        # needs torch and safetensors; run by hand

cases.json lists the cases; golden.safetensors holds for case c and layer l: {c}.{l}.{W_enc,b_enc,W_dec,b_dec}.
"""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent / "bridging"
D, D_FF, HEADS, KV_HEADS, LAYERS, V, F = 24, 28, 4, 2, 3, 37, 13
THETA, EPSILON = 10000.0, 1e-6
SEQUENCES = [[1, 5, 9, 2, 8, 30, 36], [7, 3], [4], [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21]]
WEIGHTS = {"kl_adapter": 1.0, "kl_bridge": 2.0, "residual_nmse": 1.0, "label": 0.0, "sparsity": 0.01, "nmse": "mean",
           "backbone": "target"}
CASES = ([{"cutoffs": [k]} for k in range(LAYERS + 1)]
         + [{"cutoffs": [2, 1, 2]}, {"cutoffs": [0, 3, 1, 2]},
            {"cutoffs": [1], "kl_adapter": 0.7, "kl_bridge": 1.0, "nmse": "sum", "label": 0.3, "sparsity": 0.05},
            {"cutoffs": [2], "kl_bridge": 0.0}, {"cutoffs": [1], "kl_adapter": 0.0, "residual_nmse": 0.0}]
         + [{"cutoffs": [k], "backbone": "base"} for k in range(LAYERS + 1)])


def model(generator):
    def random(*shape, spread=1.0, center=0.0):
        return (center + spread * torch.randn(*shape, generator=generator, dtype=torch.float64)).float()

    def linear(outputs, inputs):
        return random(outputs, inputs, spread=1.4 / math.sqrt(inputs))

    head = D // HEADS
    tensors = {"model.embed_tokens.weight": random(V, D), "model.norm.weight": random(D, spread=0.3, center=1.0),
               "lm_head.weight": linear(V, D)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{at}{norm}.weight"] = random(D, spread=0.3, center=1.0)
        for name, width in (("q", HEADS * head), ("k", KV_HEADS * head), ("v", KV_HEADS * head)):
            tensors[f"{at}self_attn.{name}_proj.weight"] = linear(width, D)
            tensors[f"{at}self_attn.{name}_proj.bias"] = random(width, spread=0.5)
        tensors[f"{at}self_attn.o_proj.weight"] = linear(D, HEADS * head)
        for name, outputs, inputs in (("gate", D_FF, D), ("up", D_FF, D), ("down", D, D_FF)):
            tensors[f"{at}mlp.{name}_proj.weight"] = linear(outputs, inputs)
    return tensors


class Model:
    """One decoder in float64."""

    def __init__(self, tensors):
        self.w = {name: tensor.double() for name, tensor in tensors.items()}

    def norm(self, x, name):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + EPSILON) * self.w[name]

    def linear(self, x, name):
        return x @ self.w[f"{name}.weight"].T + self.w.get(f"{name}.bias", 0.0)

    def embed(self, ids):
        return self.w["model.embed_tokens.weight"][ids]

    def head(self, x):
        return (self.norm(x, "model.norm.weight") @ self.w["lm_head.weight"].T).log_softmax(-1)

    def attention(self, x, layer):
        at, size, length = f"model.layers.{layer}.self_attn.", D // HEADS, x.shape[0]
        h = self.norm(x, f"model.layers.{layer}.input_layernorm.weight")
        q, k, v = (self.linear(h, f"{at}{name}_proj").view(length, -1, size) for name in "qkv")
        angle = torch.arange(length).double()[:, None] * THETA ** (-torch.arange(0, size, 2).double() / size)
        cos, sin = (torch.cat([f, f], -1)[:, None] for f in (angle.cos(), angle.sin()))

        def rotate(t):
            return t * cos + torch.cat([-t[..., size // 2:], t[..., :size // 2]], -1) * sin

        q, k = rotate(q), rotate(k)
        k, v = (t.repeat_interleave(HEADS // KV_HEADS, 1) for t in (k, v))
        scores = torch.einsum("thd,shd->hts", q, k) / math.sqrt(size)
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf"))
        out = torch.einsum("hts,shd->thd", scores.softmax(-1), v).reshape(length, -1)
        return x + self.linear(out, f"{at}o_proj")

    def mlp_input(self, x, layer):
        return self.norm(x, f"model.layers.{layer}.post_attention_layernorm.weight")

    def mlp(self, x, layer):
        at = f"model.layers.{layer}.mlp."
        gate, up = self.linear(x, f"{at}gate_proj"), self.linear(x, f"{at}up_proj")
        return self.linear(torch.nn.functional.silu(gate) * up, f"{at}down_proj")


class Pair:
    def __init__(self, target, base, adapters, trunk):
        self.target, self.base, self.adapters, self.trunk = target, base, adapters, trunk

    def target_layers(self, x, begin, end):
        states = []
        for layer in range(begin, end):
            x = self.target.attention(x, layer)
            x = x + self.target.mlp(self.target.mlp_input(x, layer), layer)
            states.append(x)
        return x, states

    def adapter_layers(self, x, begin, end, activations=None):
        states = []
        for layer in range(begin, end):
            x = self.trunk.attention(x, layer)
            read, one = self.trunk.mlp_input(x, layer), self.adapters[layer]
            a = torch.relu(read @ one["W_enc"].T + one["b_enc"])
            if activations is not None:
                activations.append(a)
            x = x + self.base.mlp(read, layer) + a @ one["W_dec"] + one["b_dec"]
            states.append(x)
        return x, states


def run(pair, case):
    """Terms summed over sequences, and the loss."""
    labels = sum(len(ids) - 1 for ids in SEQUENCES)
    tokens = sum(len(ids) for ids in SEQUENCES)
    terms = dict.fromkeys(("kl_adapter", "kl_a2r", "kl_r2a", "residual_nmse", "label"), 0.0)
    sparsity = 0.0
    for ids in map(torch.tensor, SEQUENCES):
        with torch.no_grad():
            h0 = pair.target.embed(ids)
            h_last, states = pair.target_layers(h0, 0, LAYERS)
            h = [h0, *states]
            y = pair.target.head(h_last)

        def kl(log_q):
            return (y.exp() * (y - log_q)).sum(-1)[:-1].sum()

        activations = []
        start = pair.trunk.embed(ids)
        last, hat = pair.adapter_layers(start, 0, LAYERS, activations)
        log_q = pair.trunk.head(last)
        terms["kl_adapter"] += kl(log_q)
        terms["label"] += -log_q[:-1].gather(1, ids[1:, None]).sum()
        errors = [((p - t) ** 2).mean() / ((t ** 2).mean() + 1e-8) for p, t in zip([start, *hat], h)]
        terms["residual_nmse"] += sum(errors) / (LAYERS + 1 if case["nmse"] == "mean" else 1)
        sparsity += sum((a * one["W_dec"].norm(dim=1)).sum() for a, one in zip(activations, pair.adapters))
        for k in case["cutoffs"]:
            if k > 0:
                x, _ = pair.adapter_layers(start, 0, k)
                terms["kl_a2r"] += kl(pair.target.head(pair.target_layers(x, k, LAYERS)[0])) / len(case["cutoffs"])
            if k < LAYERS:
                x, _ = pair.adapter_layers(h[k], k, LAYERS)
                terms["kl_r2a"] += kl(pair.trunk.head(x)) / len(case["cutoffs"])
    loss = (case["kl_adapter"] * terms["kl_adapter"] + case["kl_bridge"] * (terms["kl_a2r"] + terms["kl_r2a"])
            + case["label"] * terms["label"]) / labels
    loss = loss + case["residual_nmse"] * terms["residual_nmse"] / len(SEQUENCES) + case["sparsity"] * sparsity / tokens
    return terms, loss


def main():
    generator = torch.Generator().manual_seed(3)
    ROOT.mkdir(exist_ok=True)
    models = {}
    config = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "hidden_size": D,
              "intermediate_size": D_FF, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
              "num_key_value_heads": KV_HEADS, "vocab_size": V, "max_position_embeddings": 64,
              "tie_word_embeddings": False, "rms_norm_eps": EPSILON, "rope_theta": THETA, "torch_dtype": "float32"}
    for name in ("target", "base"):
        tensors = model(generator)
        if name == "base":  # close to the target, as before fine-tuning
            tensors = {key: 0.7 * models["target"].w[key].float() + 0.3 * tensor for key, tensor in tensors.items()}
        (ROOT / name).mkdir(exist_ok=True)
        (ROOT / name / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        save_file(tensors, ROOT / name / "model.safetensors")
        models[name] = Model(tensors)
    adapters, saved = [], {}
    for layer in range(LAYERS):
        one = {"W_enc": torch.randn(F, D, generator=generator) / D ** 0.5, "b_enc": 0.3 * torch.randn(F, generator=generator),
               "W_dec": 0.3 * torch.randn(F, D, generator=generator), "b_dec": 0.3 * torch.randn(D, generator=generator)}
        one["W_dec"][2] = 0.0  # the norm's subgradient there is 0
        saved.update({f"{layer}.{name}": tensor.clone() for name, tensor in one.items()})
        adapters.append({name: tensor.double().requires_grad_() for name, tensor in one.items()})
    save_file(saved, ROOT / "adapters.safetensors")

    cases, gradients = [], {}
    for index, options in enumerate(CASES):
        case = {**WEIGHTS, **options}
        pair = Pair(models["target"], models["base"], adapters, models[case["backbone"]])
        for one in adapters:
            for tensor in one.values():
                tensor.grad = None
        terms, loss = run(pair, case)
        loss.backward()
        cases.append({**case, **{f"found_{name}": float(value) for name, value in terms.items()}, "loss": loss.item()})
        for layer, one in enumerate(adapters):
            gradients.update({f"{index}.{layer}.{name}": tensor.grad.float().clone() for name, tensor in one.items()})
    (ROOT / "cases.json").write_text(json.dumps({"sequences": SEQUENCES, "cases": cases}, indent=1) + "\n")
    save_file(gradients, ROOT / "golden.safetensors")


if __name__ == "__main__":
    main()
