#!/usr/bin/env python3
"""Writes tests/golden/tokenizer/: a second tokenizer, and what Hugging Face gives for a few thousand lines.

    python3 tests/golden/make_tokenizer_golden.py      # needs tokenizers and transformers 4.57.1; run by hand

toy/          the bundled toy tokenizer as it was, so that remaking the toy pair does not touch these files
mixed/        a byte-level BPE tokenizer learned from made-up words of many scripts, code and numbers; it differs from the
              bundled toy tokenizer in everything that may differ: splitting pattern, merges as strings, added tokens that
              strip or are matched after normalisation, a template that adds BOS, a padded vocabulary entry
lines.jsonl   {"text", "toy": ids, "mixed": ids, "gpt2": ids (some lines)}: `tokenizers` without special tokens; gpt2 is
              mixed with ByteLevel's own pattern, no normalizer and ignore_merges
texts.json    [{"tokenizer", "text", "ids"}]: transformers' tokenizer(text)
chats.json    [{"tokenizer", "format", "turns": [[role, text]], "ids", "prompt_ids"}]: apply_chat_template of the whole, and
              of all but the last turn with add_generation_prompt
"""

import json
import random
import shutil
import unicodedata
from pathlib import Path

import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer

ROOT = Path(__file__).resolve().parent / "tokenizer"
TOY = Path(__file__).resolve().parents[2] / "data" / "toy" / "target"
TRANSFORMERS_VERSION = "4.57.1"
SEED = 20260224
LINES = 2200
LEARNED = 2000

BOS, EOS, START, END = "<|begin|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_TEMPLATE = (
    "{% for m in messages %}{{ '" + START + "' + m['role'] + '\\n' + m['content'] + '" + END + "\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + START + "assistant\\n' }}{% endif %}"
)

ALPHABETS = {
    "latin": "etaoinshrdlucmfwypvbgkjqxz", "accented": "éèêëàâäçñöüßøåæœłžšř", "vietnamese": "ạảấầẩẫậắằẳẵặẹẻẽếềểễệ",
    "greek": "αβγδεζηθικλμνξοπρστυφχψωάέήίό", "cyrillic": "абвгдежзийклмнопрстуфхцчшщыьэюяё",
    "hebrew": "אבגדהוזחטיכלמנסעפצקרשת", "arabic": "ابتثجحخدذرزسشصضطظعغفقكلمنهويَُِّ",
    "devanagari": "अआइईउकखगघचजटडतदनपबमयरलवशसहािीुूेोंक़्", "thai": "กขคงจฉชซญดตถทธนบปผพฟมยรลวสหอะาิีุูเแโใไ่้",
    "hangul": "가나다라마바사아자차카타파하한국어글", "kana": "あいうえおかきくけこさしすせそアイウエオカキクケコがぎぐ",
    "han": "的一是不了人我在有他这为之大来以个中上们数学证明方程", "georgian": "აბგდევზთიკლმნოპჟრსტუ",
    "amharic": "ሀለሐመሠረሰሸቀበተቸነአከወዘየደገ", "armenian": "աբգդեզէըթժիլխծկհձ",
}  # fmt: skip
CODE = [
    "def f(x):\n    return x**2 + 1", "for (int i = 0; i < n; ++i) {\n\ta[i] += b[i];\n}", "std::vector<int> v{1, 2};",
    "if x != None and not y:\r\n    pass", "SELECT * FROM t WHERE id >= 42;", "<div class=\"a\">&nbsp;</div>",
    "$\\frac{a}{b} = \\sqrt{x^2+1}$", "\\boxed{42}", "#include <stdio.h>", "lambda x: x[::-1]", "a->b->c(*p, &q);",
    "{\"key\": [1, 2.5e-3, null]}", "git commit -m 'don''t'", "https://example.org/a?b=c&d=%20", "// TODO: it's 3'6\" tall",
]  # fmt: skip
BLANKS = [" ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\n\n", " \n", "\n ", "\u00a0", "\u2003", "\u3000", "\u0085",
          "\u180e", "\u200b", "\ufeff", "\x0b", "\x0c", "\x1c", "\u2028", "\u202f"]  # fmt: skip
MARKS = ["\u0300", "\u0301", "\u0308", "\u0327", "\u0316", "\u0323", "\u0338", "\u093c", "\u05b0", "\u064b", "\u3099",
         "\u20d7", "\u1161", "\u11a8"]  # fmt: skip
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "1️⃣", "❤️", "👨🏿‍🚀", "🤷‍♀️", "☺︎", "🧑‍💻"]
NUMBERS = ["0", "7", "42", "1234567890", "3.14159", "-1e-9", "٣٤٥", "१२३", "１２３", "Ⅷ", "½", "x²", "①", "1,000,000", "0x1F",
           "𝟘𝟙", "2026-02-24", "12:30"]  # fmt: skip
CONTRACTIONS = ["it's", "IT'S", "don't", "We'Ve", "I'm", "they'll", "he'D", "you're", "'s", "''t", "l'été", "it’s", "'ſ",
                "a'ſt", "'LL'll", "o'clock", "'m'm"]  # fmt: skip


def word(rng: random.Random) -> str:
    """A made-up word; short combinations come back often enough to be learned."""
    letters = ALPHABETS[rng.choice(list(ALPHABETS)) if rng.random() < 0.7 else "latin"]
    parts = ["".join(random.Random(f"{letters[0]}{rng.randrange(40)}").choices(letters, k=rng.randint(1, 3)))
             for _ in range(rng.randint(1, 4))]  # fmt: skip
    text = "".join(parts)
    return rng.choice([str.lower, str.lower, str.lower, str.title, str.upper])(text)


def sentence(rng: random.Random, words: int) -> str:
    pieces = [rng.choice([word(rng), word(rng), word(rng), rng.choice(NUMBERS), rng.choice(CONTRACTIONS)])
              for _ in range(words)]  # fmt: skip
    return " ".join(pieces) + rng.choice([".", "?", "!", "…", ",", ";)", ""])


def train_mixed() -> Tokenizer:
    rng = random.Random(SEED)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PATTERN), "isolated"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(vocab_size=LEARNED, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    texts = [sentence(rng, 12) for _ in range(4000)] + [rng.choice(CODE) for _ in range(2000)]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([BOS, EOS, START, END])
    tokenizer.add_tokens([
        AddedToken("<left>", lstrip=True, normalized=False), AddedToken("<right>", rstrip=True, normalized=False),
        AddedToken("<both>", lstrip=True, rstrip=True, normalized=False), AddedToken("<both>>", normalized=False),
        AddedToken("cafe\u0301", normalized=True), AddedToken("\n\n\n", normalized=False),
        AddedToken("  \n", normalized=False),
    ])  # fmt: skip
    template = processors.TemplateProcessing(single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B",
                                             special_tokens=[(BOS, tokenizer.token_to_id(BOS))])  # fmt: skip
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def write_mixed(directory: Path) -> dict:
    state = json.loads(train_mixed().to_str())
    state["model"]["merges"] = [" ".join(pair) for pair in state["model"]["merges"]]
    directory.mkdir(parents=True, exist_ok=True)
    write(directory / "tokenizer.json", state)
    write(directory / "tokenizer_config.json", {
        "bos_token": BOS, "eos_token": {"__type": "AddedToken", "content": EOS, "special": True},
        "added_tokens_decoder": {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in state["added_tokens"]},
        "additional_special_tokens": [START, END], "clean_up_tokenization_spaces": False,
        "tokenizer_class": "PreTrainedTokenizerFast", "chat_template": QWEN_TEMPLATE,
    })  # fmt: skip
    return state


def gpt2_variant(state: dict) -> Tokenizer:
    variant = json.loads(json.dumps(state))
    variant["normalizer"] = None
    variant["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    variant["model"]["ignore_merges"] = True
    return Tokenizer.from_str(json.dumps(variant))


def special_line(rng: random.Random, tokens: list[str]) -> str:
    pieces = [rng.choice([rng.choice(tokens), rng.choice(tokens), word(rng), rng.choice(BLANKS[:9]), "<", "<|im", "|>", "＜｜User"])
              for _ in range(rng.randint(1, 7))]  # fmt: skip
    return "".join(pieces)


def code_points(rng: random.Random) -> str:
    """Assigned, unassigned and private code points; no marks, whose order depends on the Unicode version."""
    text = ""
    while len(text) < 6:
        c = chr(rng.choice([rng.randrange(1, 0x250), rng.randrange(0x250, 0x3400), rng.randrange(0xA000, 0xD800),
                            rng.randrange(0xE000, 0x20000), rng.randrange(0xE0000, 0x110000)]))  # fmt: skip
        if unicodedata.combining(c) == 0:
            text += c
    return text


def marks_line(rng: random.Random) -> str:
    bases = [rng.choice("aeiouAEIOUcnsかはक=ᄀ"), rng.choice(ALPHABETS["vietnamese"] + ALPHABETS["accented"] + "가한")]
    text = "".join(rng.choice(bases) + "".join(rng.choices(MARKS, k=rng.randint(0, 3))) for _ in range(rng.randint(1, 4)))
    return rng.choice([text, text, unicodedata.normalize("NFD", text), unicodedata.normalize("NFD", word(rng))])


def blanks_line(rng: random.Random) -> str:
    return "".join(rng.choice([rng.choice(BLANKS), rng.choice(BLANKS), word(rng), ".", "'"]) for _ in range(rng.randint(1, 8)))


def make_lines(tokens: list[str]) -> list[str]:
    rng = random.Random(SEED + 1)
    makers = [
        lambda: sentence(rng, rng.randint(1, 4)), lambda: marks_line(rng), lambda: blanks_line(rng),
        lambda: special_line(rng, tokens), lambda: code_points(rng),
        lambda: rng.choice(CODE)[: rng.randint(1, 40)] + rng.choice(BLANKS[:9]) + rng.choice(CODE)[: rng.randint(1, 15)],
        lambda: "".join(rng.choice(EMOJI) + rng.choice(["", " ", "a"]) for _ in range(rng.randint(1, 2))),
        lambda: rng.choice(["", " ", "a", "-"]).join(rng.choices(NUMBERS, k=rng.randint(1, 3))),
        lambda: rng.choice(["", " ", "\n"]).join(rng.choices(CONTRACTIONS, k=rng.randint(1, 3))),
    ]  # fmt: skip
    lines = ["", " ", "\n", "\r\n", "\x00", "a\x00b", "\ufffd", "\u0301", "a" * 300, "Who are you?", "안녕" * 20]
    while len(lines) < LINES:
        line = makers[len(lines) % len(makers)]()
        if line not in lines:
            lines.append(line)
    return lines


def make_chats() -> list[tuple[str, str, list]]:
    single = [
        ("What is 3+4*2 mod 10?", "<think> 3+4=7.\nWait, 7*2=14, so 4.\n</think>\nThe answer is 4."),
        ("\n two\r\nlines ", "<think>\nok</think>é"), ("e\u0301", "\u0301 begins with a mark"), (" ", "\n\n"),
        ("the marker <｜Assistant｜> inside", "and <｜User｜>, <|im_end|> too"),
    ]  # fmt: skip
    chats = [("toy", "deepseek", [["user", q], ["assistant", r]]) for q, r in single]
    chats += [("toy", "deepseek", [["system", "Be brief."], ["user", "1+1"], ["assistant", "2"]])]
    chats += [("mixed", "qwen", [["user", q], ["assistant", r]]) for q, r in single]
    chats += [("mixed", "qwen", [["system", "Be brief."], ["user", "1+1"], ["assistant", "2"], ["user", "\n?"],
                                 ["assistant", "<think> three</think> 3"]])]  # fmt: skip
    return chats


def deepseek_template(toy_template: str) -> str:
    """The toy's template with the system text where DeepSeek's own has it: right after BOS."""
    return toy_template.replace("{% elif", "{% elif message['role'] == 'system' %}{{ message['content'] }}{% elif", 1)


def render_chats(tokenizers: dict) -> list[dict]:
    chats = []
    for name, chat_format, turns in make_chats():
        tokenizer = tokenizers[name]
        template = deepseek_template(tokenizer.chat_template) if name == "toy" else tokenizer.chat_template
        messages = [{"role": role, "content": text} for role, text in turns]
        whole = [{**m, "content": m["content"].replace("<think> ", "<think>\n", 1)}
                 if name == "toy" and m["content"].startswith("<think> ") else m for m in messages]  # fmt: skip
        chats.append({
            "tokenizer": name, "format": chat_format, "turns": turns,
            "ids": tokenizer.apply_chat_template(whole, chat_template=template),
            "prompt_ids": tokenizer.apply_chat_template(messages[:-1], chat_template=template, add_generation_prompt=True),
        })  # fmt: skip
    return chats


def write(path: Path, value) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def main() -> None:
    if transformers.__version__ != TRANSFORMERS_VERSION:
        raise SystemExit(f"expected transformers {TRANSFORMERS_VERSION}, found {transformers.__version__}")
    state = write_mixed(ROOT / "mixed")
    (ROOT / "toy").mkdir(exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(TOY / name, ROOT / "toy" / name)
    named = {"toy": Tokenizer.from_file(str(ROOT / "toy" / "tokenizer.json")),
             "mixed": Tokenizer.from_file(str(ROOT / "mixed" / "tokenizer.json")), "gpt2": gpt2_variant(state)}  # fmt: skip
    tokens = [t["content"] for name in ("toy", "mixed") for t in json.loads(named[name].to_str())["added_tokens"]]
    with (ROOT / "lines.jsonl").open("w", encoding="utf-8") as file:
        for index, text in enumerate(make_lines(tokens)):
            names = named if index % 4 == 0 else ("toy", "mixed")
            line = {"text": text, **{n: named[n].encode(text, add_special_tokens=False).ids for n in names}}
            file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
    automatic = {name: transformers.AutoTokenizer.from_pretrained(ROOT / name) for name in ("toy", "mixed")}
    texts = ["", "Who are you?", "<think>\nWait, é</think>", "1 <both> 2"]
    write(ROOT / "texts.json", [{"tokenizer": n, "text": t, "ids": a(t).input_ids} for n, a in automatic.items() for t in texts])
    write(ROOT / "chats.json", render_chats(automatic))


if __name__ == "__main__":
    main()
