#!/usr/bin/env python3
"""Writes tests/golden/generation.json: what Hugging Face transformers answers with the bundled toy models, greedily.

    python3 tests/golden/make_generation_golden.py     # needs torch and transformers 4.57.1; run by hand

{model: [{"question": …, "prompt": [ids], "response": [ids, without EOS]}, …]}, from float32 forward passes with
eager attention.
"""

import json
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
TOY = ROOT / "data/toy"
TRANSFORMERS_VERSION = "4.57.1"
QUESTIONS, MOST_TOKENS = 16, 120


def continuation(model, prompt: list[int], end: int) -> list[int]:
    output = model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
        temperature=None, top_p=None, top_k=None, max_new_tokens=MOST_TOKENS, pad_token_id=end)[0, len(prompt):].tolist()
    return output[: output.index(end)] if end in output else output


def main() -> None:
    assert transformers.__version__ == TRANSFORMERS_VERSION, transformers.__version__
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(TOY / "target")
    questions = [json.loads(line)["question"] for line in (TOY / "questions.jsonl").open(encoding="utf-8")][:QUESTIONS]
    golden = {}
    for name in ("base", "target"):
        model = AutoModelForCausalLM.from_pretrained(TOY / name, dtype=torch.float32, attn_implementation="eager").eval()
        golden[name] = []
        for question in questions:
            turns = [{"role": "user", "content": question}]
            prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True)
            response = continuation(model, prompt, tokenizer.eos_token_id)
            golden[name].append({"question": question, "prompt": prompt, "response": response})
    lines = ",\n".join(
        f' "{name}": [\n' + ",\n".join("  " + json.dumps(one) for one in ones) + "]" for name, ones in golden.items())
    (ROOT / "tests/golden/generation.json").write_text("{\n" + lines + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
