#!/usr/bin/env python3
"""Turns OpenThoughts' parquet files into the JSONL that tadapt reads: one conversation a line.

    tools/openthoughts_to_jsonl.py data/train-*.parquet --output openthoughts.jsonl --limit 50000 --domain math

Needs pyarrow. Rows are read in small batches, in the order of the files as given. A row needs a `conversations` column of
{from, value}; a `system` text is put first, and `domain` is kept. Rows that tadapt would refuse (no response, roles out of
turn, an empty text) are left out and counted; --strict makes the first of them an error.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROLES = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt", "system": "system"}
BATCH_ROWS = 256


class BadRow(Exception):
    """Why a row cannot become a line."""


def conversation_of(row: dict) -> dict:
    """One line of the corpus; BadRow when tadapt would refuse it."""
    turns = []
    for turn in row.get("conversations") or []:
        if not isinstance(turn, dict) or turn.get("from") not in ROLES:
            raise BadRow("a turn without a known `from`")
        if not turn.get("value"):
            raise BadRow("an empty text")
        turns.append({"from": ROLES[turn["from"]], "value": turn["value"]})
    system = [{"from": "system", "value": row["system"]}] if row.get("system") else []
    if turns and turns[0]["from"] == "system":
        system = [turns.pop(0)]
    if not turns or [turn["from"] for turn in turns] != ["human", "gpt"] * (len(turns) // 2):
        raise BadRow("roles out of turn")
    line = {"conversations": system + turns}
    if row.get("domain"):
        line["domain"] = str(row["domain"])
    return line


def rows_of(path: Path) -> Iterator[dict]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        sys.exit("openthoughts_to_jsonl: pyarrow is needed: pip install pyarrow")
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if "conversations" not in names:
                sys.exit(f"openthoughts_to_jsonl: {path}: expected a column `conversations`, found {', '.join(names)}")
            columns = [name for name in ("conversations", "system", "domain") if name in names]
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        sys.exit(f"openthoughts_to_jsonl: {path}: {error}")


def lines_of(arguments: argparse.Namespace, left_out: Counter) -> Iterator[str]:
    written = 0
    for path in arguments.parquet:
        for number, row in enumerate(rows_of(path), start=1):
            if written == arguments.limit:
                return
            if arguments.domain and row.get("domain") not in arguments.domain:
                continue
            try:
                line = conversation_of(row)
            except BadRow as reason:
                if arguments.strict:
                    sys.exit(f"openthoughts_to_jsonl: {path}: row {number}: {reason}")
                left_out[str(reason)] += 1
                continue
            written += 1
            yield json.dumps(line, ensure_ascii=False) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parquet", type=Path, nargs="+", help="parquet files")
    parser.add_argument("--output", type=Path, required=True, help="JSONL file to write; replaced when all is read")
    parser.add_argument("--limit", type=int, metavar="N", help="lines to write at most")
    parser.add_argument("--domain", action="append", metavar="NAME", help="keep only this domain; may be given again")
    parser.add_argument("--strict", action="store_true", help="stop at a row that tadapt would refuse")
    arguments = parser.parse_args()
    left_out: Counter = Counter()
    count = 0
    unfinished = arguments.output.with_name(arguments.output.name + ".tmp")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            for line in lines_of(arguments, left_out):
                file.write(line)
                count += 1
        if count == 0:
            sys.exit("openthoughts_to_jsonl: no row is left to write")
        os.replace(unfinished, arguments.output)
    except OSError as error:
        sys.exit(f"openthoughts_to_jsonl: {error}")
    finally:
        unfinished.unlink(missing_ok=True)
    reasons = "".join(f"; left out {number}: {reason}" for reason, number in left_out.items())
    print(f"{arguments.output}: {count} conversations{reasons}")


if __name__ == "__main__":
    main()
