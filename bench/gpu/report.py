#!/usr/bin/env python3
"""bench/gpu/report.py WORK OUT: what bench/gpu/run left in WORK as one JSON file and one readable table in OUT."""

import json
import pathlib
import re
import sys


def lines_of(path):
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]


def number(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(rows, columns):
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def figures(lines):
    """Every measured figure but the adapter step's, with its ceiling."""
    for line in lines:
        if "value" not in line or line["section"] == "adapter_step":
            continue
        ceiling = line.get("ceiling")
        yield (line["section"], line["what"], f"{number(line['value'])} {line['unit']}",
               f"{number(ceiling)} ({line['ceiling_is']})" if ceiling else "",
               f"{100 * line['value'] / ceiling:.0f} %" if ceiling else "")


def adapter_steps(lines, peers):
    """Dense, sparse and PyTorch's step side by side."""
    peer = {line["tokens"]: line["ms"] for line in peers}
    steps = {}
    for line in lines:
        if line["section"] == "adapter_step":
            steps.setdefault((line["tokens"], round(line["l0"], 1)), {})[line["what"]] = line
    for (tokens, l0), routes in steps.items():
        dense, sparse = (routes.get(route, {}).get("value") for route in ("dense", "sparse"))
        best = min(value for value in (dense, sparse) if value is not None)
        product = next(iter(routes.values()))["ceiling"]
        torch = peer.get(tokens)
        yield (str(tokens), f"{l0:g}", *(number(ms) if ms is not None else "" for ms in (dense, sparse, torch)),
               number(product), f"{best / product:.2f}", f"{torch / best:.1f}" if torch else "")


def bridging_steps(lines):
    """Our step and PyTorch's of each shape, length and cutoff."""
    steps = {}
    for line in lines:
        steps.setdefault(line["what"], {})[line["section"]] = line
    for what, sides in steps.items():
        ours, peer = sides.get("bridging", {}), sides.get("bridging_torch", {})
        ratio = f"{peer['ms'] / ours['ms']:.2f}" if ours and peer else ""
        yield (what, *(number(side[key]) if key in side else "" for side, key in (
            (ours, "value"), (peer, "value"), (ours, "ms"), (peer, "ms"), (ours, "tflops"), (ours, "used_gb"),
            (peer, "peak_gb"))), ratio)


def main():
    work, out = map(pathlib.Path, sys.argv[1:3])
    about = json.loads((work / "about.json").read_text())
    gpu = (work / "gpu.txt").read_text().strip()
    checks, measured, training, peers, bridging = (
        lines_of(work / f"{name}.jsonl") for name in ("checks", "measure", "train", "torch", "bridging"))
    name = re.sub(r"[^A-Za-z0-9]+", "-", gpu.split(",")[0]).strip("-").lower()
    stem = f"{about['date'][:10]}-{name}"
    everything = {**about, "gpu": gpu, "checks": checks, "measured": measured, "training": training, "torch": peers,
                  "bridging": bridging}
    (out / f"{stem}.json").write_text(json.dumps(everything, indent=1) + "\n")

    text = [f"# {gpu}", "", f"`{about['command']}` of {about['version']}, {about['date']}"]
    for line in measured:
        if line["section"] == "device":
            text += ["", f"{line['what']}; {line['products']}"]
    if checks:
        text += ["", "## Checks", ""]
        text += table([(c["check"], "passed" if c["exit"] == 0 else f"exit {c['exit']}", f"{c['seconds']} s")
                       for c in checks], ("check", "result", "time"))
    if training:
        text += ["", "## The toy pair, end to end", ""]
        text += table([(t["device"], number(t["tokens_per_second"])) for t in training], ("device", "tokens/s"))
    if measured:
        text += ["", "## Parts and their ceilings", ""]
        text += table(figures(measured), ("part", "what", "figure", "ceiling", "of it"))
        text += ["", "## The adapter step: forward, loss and gradients of one layer, ms", ""]
        text += table(adapter_steps(measured, peers), ("tokens", "L0", "dense", "sparse", "PyTorch, dense",
                                                       "encoder product alone", "best / product", "PyTorch / best"))
    if bridging:
        text += ["", "## A bridging step: one sequence, optimiser included", ""]
        text += table(bridging_steps(bridging), ("shape", "tokens/s", "PyTorch", "ms", "PyTorch, ms", "TFLOP/s of the models",
                                                 "GB in use", "PyTorch, peak GB", "PyTorch / ours"))
    (out / f"{stem}.md").write_text("\n".join(text) + "\n")
    print(out / f"{stem}.md")


if __name__ == "__main__":
    main()
