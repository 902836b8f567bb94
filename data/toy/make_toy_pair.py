"""Makes the toy pair: tokenizer, corpora, questions, a base model and a target fine-tuned from it.

    python make_toy_pair.py                  remake everything beside this script (seed 0)
    python make_toy_pair.py --measure-only   print the README's tables for the files that are there

Needs torch 2.6, transformers 4.57.1, tokenizers and safetensors. The exit status is 1 when the pair misses
one of the REQUIREMENTS below.
"""

import argparse
import copy
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

import toy_models as models
from toy_tasks import (
    BOS,
    DOMAINS,
    Segment,
    conversation_record,
    conversation_segments,
    direct_response,
    draw_distinct_problems,
    draw_new_problem,
    draw_one_step_problem,
    drill_segments,
    format_prompt,
    question_record,
    question_text,
    record_text,
    thinking_response,
)
from toy_tokenizer import encode_with_bos, require_single_tokens, train_tokenizer, write_tokenizer

TRAIN_COUNT, VALIDATION_COUNT, QUESTION_COUNT = 4000, 400, 1200
DRILL_SHARE = 0.5  # of the base's training sequences
ONE_STEP_SHARE = 0.3  # of the rest, which are direct answers

BATCH_SIZE = 24
BASE_TRAINING = {"learning_rate": 2e-3, "weight_decay": 0.01}
TARGET_TRAINING = {"learning_rate": 4e-4, "weight_decay": 0.01}

# The hesitation words as the responses write them.
SINGLE_TOKENS = ("Wait", " wait", "Hmm", " hmm", "But", " but", "Alternatively")

REQUIREMENTS = (
    ("target accuracy >= 85 %", lambda m: m["target"]["accuracy"] >= 0.85),
    ("base accuracy <= 40 %", lambda m: m["base"]["accuracy"] <= 0.40),
    (
        "hybrid >= 40 points under the target",
        lambda m: m["target"]["accuracy"] - m["hybrid"]["accuracy"] >= 0.40,
    ),
    (">= 15 hesitation words per 1,000 response tokens", lambda m: m["target"]["hesitations"] >= 15),
    ("mean response >= 30 tokens", lambda m: m["target"]["tokens"] >= 30),
)


def stream(seed: int, purpose: str) -> random.Random:
    """Independent random streams, so that changing one part leaves the others as they are."""
    return random.Random(f"{seed}/{purpose}")


# ------------------------------------------------------------------------------------------------- texts


def write_jsonl(path: Path, records: list[dict]) -> None:
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8")


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def make_texts(directory: Path, seed: int) -> set[str]:
    """Writes the corpora and the questions; returns the problems that no training may see."""
    rng = stream(seed, "texts")
    taken: set[str] = set()
    questions = draw_distinct_problems(rng, QUESTION_COUNT, taken)
    validation = draw_distinct_problems(rng, VALIDATION_COUNT, taken)
    held_out = set(taken)
    training = draw_distinct_problems(rng, TRAIN_COUNT, taken)
    write_jsonl(directory / "questions.jsonl", [question_record(rng, problem) for problem in questions])
    write_jsonl(directory / "validation.jsonl", [conversation_record(rng, problem) for problem in validation])
    write_jsonl(directory / "train.jsonl", [conversation_record(rng, problem) for problem in training])
    return held_out


def make_tokenizer(directory: Path) -> Tokenizer:
    """Learns the tokenizer from the questions and responses of train.jsonl, without the markers."""
    records = read_jsonl(directory / "train.jsonl")
    turns = [turn["value"] for record in records for turn in record["conversations"]]
    pieces = [piece for text in turns for piece in text.replace("<think> ", "\n").split("</think>")]
    tokenizer = train_tokenizer(pieces)
    require_single_tokens(tokenizer, SINGLE_TOKENS)
    for name in ("base", "target"):
        (directory / name).mkdir(exist_ok=True)
        write_tokenizer(tokenizer, directory / name, models.MAX_POSITIONS)
    return tokenizer


def base_sequences(seed: int, held_out: set[str]) -> Callable[[], list[Segment]]:
    """Draws a drill sheet or a direct answer (partly to a one-step problem) per call."""
    rng = stream(seed, "base training")

    def draw() -> list[Segment]:
        if rng.random() < DRILL_SHARE:
            return drill_segments(rng, held_out)
        domain = rng.choice(DOMAINS)
        if rng.random() < ONE_STEP_SHARE:
            problem = draw_one_step_problem(rng, domain)
        else:
            problem = draw_new_problem(rng, domain, held_out)
        return conversation_segments(question_text(rng, problem), direct_response(rng, problem))

    return draw


def target_sequences(seed: int, held_out: set[str]) -> Callable[[], list[Segment]]:
    """Draws one worked response per call: the distribution that train.jsonl is a sample of."""
    rng = stream(seed, "target training")

    def draw() -> list[Segment]:
        problem = draw_new_problem(rng, rng.choice(DOMAINS), held_out)
        return conversation_segments(question_text(rng, problem), thinking_response(rng, problem))

    return draw


# ----------------------------------------------------------------------------------------------- measure


def print_sampling_table(rows: dict[str, dict[str, dict[str, float]]]) -> None:
    print("| model | domain | accuracy | response tokens | hesitation words per 1,000 | finished |")
    print("|---|---|---:|---:|---:|---:|")
    for model, domains in rows.items():
        for domain, row in domains.items():
            print(
                f"| {model} | {domain} | {row['accuracy']:.1%} | {row['tokens']:.1f}"
                f" | {row['hesitations']:.1f} | {row['finished']:.1%} |"
            )


def print_corpus_table(directory: Path, tokenizer: Tokenizer) -> None:
    print("| corpus | sequences | tokens | mean | longest |")
    print("|---|---:|---:|---:|---:|")
    for name in ("train", "validation"):
        records = read_jsonl(directory / f"{name}.jsonl")
        lengths = [len(encode_with_bos(tokenizer, record_text(record))) for record in records]
        total = sum(lengths)
        print(f"| {name}.jsonl | {len(lengths)} | {total} | {total / len(lengths):.1f} | {max(lengths)} |")


def measure(directory: Path, seed: int) -> bool:
    """Prints the tables of README.md for the files in `directory`; true if they meet the REQUIREMENTS."""
    tokenizer = Tokenizer.from_file(str(directory / "target" / "tokenizer.json"))
    questions, validation = (read_jsonl(directory / f"{name}.jsonl") for name in ("questions", "validation"))
    base, target = (models.read_model(directory / name) for name in ("base", "target"))
    pair = {"base": base, "hybrid": models.make_hybrid(base, target), "target": target}

    print_corpus_table(directory, tokenizer)
    print()
    sampled = {
        name: models.measure_sampling(model, tokenizer, questions, seed) for name, model in pair.items()
    }
    print_sampling_table(sampled)
    print("\n| model | KL(target ‖ model) | top-1 disagreement |\n|---|---:|---:|")
    for name in ("base", "hybrid"):
        row = models.measure_divergence(pair[name], target, tokenizer, validation)
        print(f"| {name} | {row['kl']:.3f} | {row['top1_disagreement']:.1%} |")
    print("\n| layer | mean ‖MLP_target‖² | mean ‖Δ‖² | share of ‖Δ‖² at position 0 |")
    print("|---:|---:|---:|---:|")
    for layer, row in enumerate(models.measure_mlp_differences(base, target, tokenizer, validation)):
        share = row["delta_share_at_position_0"]
        print(f"| {layer} | {row['target']:.2f} | {row['delta']:.2f} | {share:.2%} |")

    print()
    overall = {name: domains["all"] for name, domains in sampled.items()}
    met = [(text, holds(overall)) for text, holds in REQUIREMENTS]
    for text, holds in met:
        print(f"{'holds ' if holds else 'MISSED'}  {text}")
    return all(holds for _, holds in met)


def check_against_transformers(directory: Path) -> None:
    """The Auto classes must read both directories and agree with this script's own reading, to the bit."""
    records = read_jsonl(directory / "validation.jsonl")
    for name in ("base", "target"):
        path = directory / name
        tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        auto_tokenizer = AutoTokenizer.from_pretrained(path)
        texts = [record_text(record) for record in records]
        texts += ["", " naïve  café\n\n 12345 — 😀 they'll"]
        for text in texts:
            expected = encode_with_bos(tokenizer, text)
            assert auto_tokenizer(text).input_ids == expected, text
            assert expected.count(tokenizer.token_to_id(BOS)) == 1
        turns = [{"role": "user", "content": "Compute 3+4*2 mod 10."}]
        templated = auto_tokenizer.apply_chat_template(turns, add_generation_prompt=True)
        assert templated == encode_with_bos(tokenizer, format_prompt("Compute 3+4*2 mod 10."))
        model = models.read_model(path)
        auto_model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        ids, _, _ = models.corpus_batch(tokenizer, records[:16])
        with torch.no_grad():
            assert torch.equal(model(input_ids=ids).logits, auto_model(input_ids=ids).logits)
    print("transformers reads both models and both tokenizers, with equal logits and ids")


# -------------------------------------------------------------------------------------------------- main


def train_on_sequences(
    model: models.Qwen2ForCausalLM,
    tokenizer: Tokenizer,
    draw_segments: Callable[[], list[Segment]],
    seed: int,
    recipe: dict,
) -> None:
    batches = models.endless_batches(tokenizer, draw_segments, BATCH_SIZE, stream(seed, "batch order"))
    models.train(model, batches, **recipe)


def make_pair(directory: Path, seed: int, base_steps: int, target_steps: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    held_out = make_texts(directory, seed)
    tokenizer = make_tokenizer(directory)
    config = models.model_config(tokenizer)
    torch.manual_seed(seed)
    base = models.new_model(config)
    recipe = {"label": "base", "steps": base_steps, **BASE_TRAINING}
    train_on_sequences(base, tokenizer, base_sequences(seed, held_out), seed, recipe)
    models.write_model(base, config, directory / "base")
    target = copy.deepcopy(base)
    recipe = {"label": "target", "steps": target_steps, **TARGET_TRAINING}
    train_on_sequences(target, tokenizer, target_sequences(seed, held_out), seed, recipe)
    models.write_model(target, config, directory / "target")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--directory", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base-steps", type=int, default=2400)
    parser.add_argument("--target-steps", type=int, default=4500)
    parser.add_argument("--measure-only", action="store_true", help="measure the files there, make none")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    if not arguments.measure_only:
        make_pair(arguments.directory, arguments.seed, arguments.base_steps, arguments.target_steps)
    check_against_transformers(arguments.directory)
    requirements_met = measure(arguments.directory, arguments.seed)
    print(f"{(time.process_time() - started) / 60:.1f} CPU minutes")
    return 0 if requirements_met else 1


if __name__ == "__main__":
    sys.exit(main())
