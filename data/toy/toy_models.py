"""The toy Qwen2 models: their shape, how they are trained, written, read back and measured."""

import copy
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM

from toy_tasks import BOS, DOMAINS, EOS, Segment, count_hesitations, format_prompt, is_correct, record_text
from toy_tokenizer import encode_with_bos

VOCABULARY_ROWS = 512  # like Qwen2's, larger than the tokenizer: the last rows belong to no token
MAX_POSITIONS = 1024
TEMPERATURE = 0.7
MAX_NEW_TOKENS = 256
IGNORED = -100
GIVEN_TEXT_WEIGHT = 0.1  # questions are mostly random digits: noise that would drown the rest
BATCHES_PER_POOL = 16
REPORT_INTERVAL = 250


# --------------------------------------------------------------------------------------- shape and files


def model_config(tokenizer: Tokenizer) -> dict:
    """config.json, written by hand: the keys of Qwen2 checkpoints and no others."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.token_to_id(BOS),
        "eos_token_id": tokenizer.token_to_id(EOS),
        "hidden_act": "silu",
        "hidden_size": 128,
        "initializer_range": 0.04,
        "intermediate_size": 384,
        "max_position_embeddings": MAX_POSITIONS,
        "max_window_layers": 4,
        "model_type": "qwen2",
        "num_attention_heads": 4,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": VOCABULARY_ROWS,
    }


def new_model(config: dict) -> Qwen2ForCausalLM:
    """A float32 model with random weights: training and measuring are done in float32."""
    model = Qwen2ForCausalLM(Qwen2Config(**{**config, "torch_dtype": "float32"}))
    return model.float().eval()


def round_to_bfloat16(model: Qwen2ForCausalLM) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16().float())


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_model(model: Qwen2ForCausalLM, config: dict, directory: Path) -> None:
    weights = {name: value.bfloat16().contiguous() for name, value in model.state_dict().items()}
    path = directory / "model.safetensors"
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)  # save_file leaves it readable by its owner only
    write_json(directory / "config.json", config)
    generation = {
        "bos_token_id": config["bos_token_id"],
        "do_sample": True,
        "eos_token_id": config["eos_token_id"],
        "pad_token_id": config["eos_token_id"],
        "temperature": TEMPERATURE,
        "top_k": 0,
        "top_p": 1.0,
    }
    write_json(directory / "generation_config.json", generation)


def read_model(directory: Path) -> Qwen2ForCausalLM:
    model = new_model(json.loads((directory / "config.json").read_text(encoding="utf-8")))
    weights = load_file(directory / "model.safetensors")
    model.load_state_dict({name: value.float() for name, value in weights.items()})
    return model


def make_hybrid(base: Qwen2ForCausalLM, target: Qwen2ForCausalLM) -> Qwen2ForCausalLM:
    """The target with the base's MLPs (gate, up and down projections)."""
    hybrid = copy.deepcopy(target)
    for hybrid_layer, base_layer in zip(hybrid.model.layers, base.model.layers):
        hybrid_layer.mlp.load_state_dict(base_layer.mlp.state_dict())
    return hybrid


# ---------------------------------------------------------------------------------------------- training


Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def pad_batch(tokenizer: Tokenizer, sequences: list[tuple[list[int], list[float]]]) -> Batch:
    """Token ids padded on the right, next-token labels, and the weight of each label in the loss."""
    length = max(len(ids) for ids, _ in sequences)
    batch_ids = torch.full((len(sequences), length), tokenizer.token_to_id(EOS))
    labels = torch.full((len(sequences), length), IGNORED)
    label_weights = torch.zeros(len(sequences), length)
    for row, (ids, weights) in enumerate(sequences):
        batch_ids[row, : len(ids)] = torch.tensor(ids)
        labels[row, : len(ids) - 1] = torch.tensor(ids[1:])
        label_weights[row, : len(ids) - 1] = torch.tensor(weights[1:])
    return batch_ids, labels, label_weights


def encode_segments(tokenizer: Tokenizer, segments: list[Segment]) -> tuple[list[int], list[float]]:
    """Token ids and loss weights. Segments meet where the pre-tokenizer splits: they encode as one text."""
    ids, weights = encode_with_bos(tokenizer, ""), [0.0]
    for segment in segments:
        piece = tokenizer.encode(segment.text).ids
        ids += piece
        weights += [1.0 if segment.is_learned else GIVEN_TEXT_WEIGHT] * len(piece)
    return ids, weights


def corpus_batch(tokenizer: Tokenizer, records: list[dict]) -> Batch:
    sequences = [encode_with_bos(tokenizer, record_text(record)) for record in records]
    return pad_batch(tokenizer, [(ids, [1.0] * len(ids)) for ids in sequences])


def endless_batches(
    tokenizer: Tokenizer, draw_segments: Callable[[], list[Segment]], batch_size: int, rng: random.Random
) -> Iterator[Batch]:
    """Batches of freshly drawn sequences, each of sequences of like length, so that little is padding."""
    while True:
        drawn = [draw_segments() for _ in range(BATCHES_PER_POOL * batch_size)]
        pool = [encode_segments(tokenizer, segments) for segments in drawn]
        pool.sort(key=lambda sequence: len(sequence[0]))
        starts = list(range(0, len(pool), batch_size))
        rng.shuffle(starts)
        for start in starts:
            yield pad_batch(tokenizer, pool[start : start + batch_size])


def learning_rate_factor(step: int, steps: int, warmup: int = 100) -> float:
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))


def train(
    model: Qwen2ForCausalLM,
    batches: Iterator[Batch],
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float,
    label: str,
) -> None:
    """AdamW, warm-up then cosine to zero; the weights end rounded to bfloat16."""
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, steps))
    started = time.process_time()
    history = []
    for step, (ids, labels, weights) in zip(range(1, steps + 1), batches):
        logits = model(input_ids=ids, use_cache=False).logits
        losses = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
        loss = (losses * weights).sum() / weights.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        history.append(loss.item())
        if step % REPORT_INTERVAL == 0 or step == steps:
            recent = sum(history[-REPORT_INTERVAL:]) / len(history[-REPORT_INTERVAL:])
            elapsed = time.process_time() - started
            print(f"{label} step {step} mean loss {recent:.4f} ({elapsed:.0f} CPU s)", flush=True)
    round_to_bfloat16(model)
    model.eval()


# --------------------------------------------------------------------------------------------- measuring


@torch.no_grad()
def sample_responses(
    model: Qwen2ForCausalLM, tokenizer: Tokenizer, questions: list[str], seed: int, batch_size: int = 200
) -> list[list[int]]:
    """One response per question at TEMPERATURE, as token ids without the EOS."""
    end = tokenizer.token_to_id(EOS)
    torch.manual_seed(seed)
    responses = []
    for start in range(0, len(questions), batch_size):
        batch = questions[start : start + batch_size]
        prompts = [encode_with_bos(tokenizer, format_prompt(question)) for question in batch]
        width = max(map(len, prompts))
        ids = torch.tensor([[end] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=TEMPERATURE,
            top_k=0,
            top_p=1.0,
            max_new_tokens=MAX_NEW_TOKENS,
            eos_token_id=end,
            pad_token_id=end,
        )
        responses += [row[: row.index(end)] if end in row else row for row in output[:, width:].tolist()]
    return responses


def measure_sampling(
    model: Qwen2ForCausalLM, tokenizer: Tokenizer, questions: list[dict], seed: int
) -> dict[str, dict[str, float]]:
    """Accuracy, length and hesitation of sampled responses, per domain and over all of them."""
    responses = sample_responses(model, tokenizer, [record["question"] for record in questions], seed)
    texts = [tokenizer.decode(ids, skip_special_tokens=False) for ids in responses]
    summary = {}
    for domain in (*DOMAINS, "all"):
        rows = [index for index, record in enumerate(questions) if domain in (record["domain"], "all")]
        tokens = sum(len(responses[row]) for row in rows)
        summary[domain] = {
            "accuracy": sum(is_correct(texts[row], questions[row]["answer"]) for row in rows) / len(rows),
            "tokens": tokens / len(rows),
            "hesitations": 1000 * sum(count_hesitations(texts[row]) for row in rows) / max(tokens, 1),
            "finished": sum(len(responses[row]) < MAX_NEW_TOKENS for row in rows) / len(rows),
        }
    return summary


@torch.no_grad()
def measure_divergence(
    model: Qwen2ForCausalLM, target: Qwen2ForCausalLM, tokenizer: Tokenizer, records: list[dict]
) -> dict[str, float]:
    """KL(target || model) and top-1 disagreement over every labelled position of a corpus."""
    ids, labels, _ = corpus_batch(tokenizer, records)
    kept = labels != IGNORED
    expected, found = (m(input_ids=ids).logits[kept].log_softmax(-1) for m in (target, model))
    return {
        "kl": F.kl_div(found, expected, reduction="batchmean", log_target=True).item(),
        "top1_disagreement": (found.argmax(-1) != expected.argmax(-1)).float().mean().item(),
    }


@torch.no_grad()
def measure_mlp_differences(
    base: Qwen2ForCausalLM, target: Qwen2ForCausalLM, tokenizer: Tokenizer, records: list[dict]
) -> list[dict[str, float]]:
    """Per layer, on the target's own MLP inputs: mean squared norms of MLP_target and of Delta."""
    ids, labels, _ = corpus_batch(tokenizer, records)
    kept = labels != IGNORED
    captured: list[tuple[torch.Tensor, torch.Tensor]] = []
    hooks = [
        layer.mlp.register_forward_hook(lambda _, inputs, output: captured.append((inputs[0], output)))
        for layer in target.model.layers
    ]
    target(input_ids=ids)
    for hook in hooks:
        hook.remove()
    rows = []
    for layer, (mlp_input, target_output) in zip(base.model.layers, captured):
        squared_norm = (target_output - layer.mlp(mlp_input)).pow(2).sum(-1) * kept
        rows.append(
            {
                "target": (target_output.pow(2).sum(-1) * kept).sum().item() / kept.sum().item(),
                "delta": squared_norm.sum().item() / kept.sum().item(),
                "delta_share_at_position_0": squared_norm[:, 0].sum().item() / squared_norm.sum().item(),
            }
        )
    return rows
