#!/usr/bin/env python3
"""Writes tests/golden/decoder/: tiny random Qwen2 models and what Hugging Face transformers computes with them.

    python3 tests/golden/make_decoder_golden.py        # needs torch and transformers 4.57.1; run by hand

Per case: a Hugging Face directory (config.json, weights), sequences.json and golden.safetensors, which holds for every
sequence s, in float32 from a float32 forward pass with eager attention:
    logits.{s} [T, V]; residual.{s}.{l} [T, D], l = 0 (embeddings) .. L (the last block's output, before the final norm);
    mlp_in.{s}.{l} [T, D], what the MLP of layer l reads.
"""

import json
import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

ROOT = Path(__file__).resolve().parent / "decoder"
TRANSFORMERS_VERSION = "4.57.1"

# name, weights' type, shards, sequence lengths, keys of config.json (dimension letters: see README)
CASES = [
    ("mha_tied_f32", torch.float32, 1, (19, 1),
     {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
      "num_key_value_heads": 4, "vocab_size": 97, "tie_word_embeddings": True, "rope_theta": 10000.0}),
    ("gqa2_f16", torch.float16, 1, (23, 8),
     {"hidden_size": 40, "intermediate_size": 75, "num_hidden_layers": 3, "num_attention_heads": 4,
      "num_key_value_heads": 2, "vocab_size": 131, "tie_word_embeddings": False, "rope_theta": 10000.0}),
    ("gqa7_sharded_bf16", torch.bfloat16, 2, (37, 5, 2),
     {"hidden_size": 56, "intermediate_size": 75, "num_hidden_layers": 3, "num_attention_heads": 7,
      "num_key_value_heads": 1, "vocab_size": 131, "tie_word_embeddings": False, "rope_theta": 1000000.0}),
    ("head_dim_tied_bf16", torch.bfloat16, 1, (31, 12),
     {"hidden_size": 36, "intermediate_size": 50, "num_hidden_layers": 3, "num_attention_heads": 4,
      "num_key_value_heads": 2, "head_dim": 14, "vocab_size": 89, "tie_word_embeddings": True,
      "rope_theta": 25000.0, "rms_norm_eps": 1e-5}),
]
COMMON = {"hidden_act": "silu", "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "attention_dropout": 0.0,
          "use_sliding_window": False, "sliding_window": 32, "max_window_layers": 2}


def random_model(config: Qwen2Config, dtype: torch.dtype, seed: int) -> Qwen2ForCausalLM:
    """Weights of every kind away from their neutral values (norms from 1, biases from 0), rounded to `dtype`."""
    generator = torch.Generator().manual_seed(seed)
    model = Qwen2ForCausalLM(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("norm.weight"):
                value = 1.0 + 0.3 * noise
            elif name.endswith(".bias"):
                value = 0.5 * noise
            elif "embed" in name:
                value = noise
            else:
                value = 1.4 * noise / parameter.shape[1] ** 0.5
            parameter.copy_(value.to(dtype).float())
    return model


def save_weights(model: Qwen2ForCausalLM, dtype: torch.dtype, shards: int, directory: Path) -> None:
    """model.safetensors, or that many files under an index, as the hub's repositories have them."""
    tied = model.config.tie_word_embeddings
    tensors = {k: v.to(dtype).contiguous() for k, v in model.state_dict().items() if not (tied and k == "lm_head.weight")}
    if shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return
    names, weight_map = sorted(tensors), {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[shard::shards]}
        save_file(part, directory / file, metadata={"format": "pt"})
        weight_map.update({name: file for name in part})
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def forward(model: Qwen2ForCausalLM, ids: list[int], sequence: int) -> dict[str, torch.Tensor]:
    """Everything golden.safetensors holds about one sequence."""
    found = {}

    def keep(name):
        def hook(_module, inputs, output):
            value = inputs[0] if name.startswith("mlp_in") else output
            found[name] = (value[0] if isinstance(value, tuple) else value).detach()[0].clone()
        return hook

    hooks = [model.model.embed_tokens.register_forward_hook(keep(f"residual.{sequence}.0"))]
    for i, layer in enumerate(model.model.layers):
        hooks.append(layer.register_forward_hook(keep(f"residual.{sequence}.{i + 1}")))
        hooks.append(layer.mlp.register_forward_hook(keep(f"mlp_in.{sequence}.{i}")))
    with torch.no_grad():
        found[f"logits.{sequence}"] = model(torch.tensor([ids]), use_cache=False).logits[0].clone()
    for hook in hooks:
        hook.remove()
    for name, value in found.items():
        hidden = name.startswith("logits") or value.shape == (len(ids), model.config.hidden_size)
        assert hidden, f"{name}: {tuple(value.shape)}"
    return found


def make_case(seed: int, name: str, dtype: torch.dtype, shards: int, lengths: tuple[int, ...], keys: dict) -> None:
    directory = ROOT / name
    directory.mkdir(parents=True)
    written = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", **COMMON, **keys,
               "torch_dtype": str(dtype).removeprefix("torch.")}
    config = Qwen2Config(**written, attn_implementation="eager")
    if name.startswith("head_dim"):  # the spelling of transformers 5: the same model under the newer keys
        written["dtype"] = written.pop("torch_dtype")
        written["rope_parameters"] = {"rope_type": "default", "rope_theta": written.pop("rope_theta")}
    (directory / "config.json").write_text(json.dumps(written, indent=2) + "\n")
    model = random_model(config, dtype, seed)
    save_weights(model, dtype, shards, directory)
    generator = torch.Generator().manual_seed(1000 + seed)
    sequences = [torch.randint(config.vocab_size, (n,), generator=generator).tolist() for n in lengths]
    (directory / "sequences.json").write_text(json.dumps(sequences) + "\n")
    golden = {}
    for index, ids in enumerate(sequences):
        golden.update(forward(model, ids, index))
    save_file(golden, directory / "golden.safetensors", metadata={"transformers": TRANSFORMERS_VERSION})


def main() -> None:
    assert transformers.__version__ == TRANSFORMERS_VERSION, transformers.__version__
    torch.set_num_threads(1)
    shutil.rmtree(ROOT, ignore_errors=True)
    for seed, case in enumerate(CASES):
        make_case(seed, *case)
    total = sum(path.stat().st_size for path in ROOT.rglob("*") if path.is_file())
    print(f"{ROOT}: {len(CASES)} cases, {total} bytes")


if __name__ == "__main__":
    main()
