"""The record of ``perf.gpu.step`` as a table of Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- step:begin -->", "<!-- step:end -->"
TITLES = {
    "8b": "Llama-3.1-8B shape, LoRA r 16 on bf16 weights",
    "1b": "Llama-3.2-1B shape, all weights",
    "tiny_lora": "tiny shape, LoRA",
    "tiny": "tiny shape, all weights",
}
HEAD = (
    "| rows a step | method | s | tokens/s | of the matrix rate | over the floor | GiB | naive s | tokens/s | GiB "
    "| times its speed | of its memory |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
)
Rows = Mapping[str, Mapping[str, Any]]


def write_table(log: Mapping[str, Any], page: Path) -> None:
    """Put the table of ``log`` between the marks of ``page``; ValueError where those are missing."""
    text = page.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"{page} has no lines {BEGIN} and {END} to write the table between")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{table(log)}\n{END}{after}", encoding="utf-8")


def table(log: Mapping[str, Any]) -> str:
    """One table a shape, one line a method and batch, the naive trainer beside the library."""
    every: Rows = log["rows"]
    about = log["about"]
    rates = [r["figures"]["rate"] for n, r in every.items() if n.endswith("/end") and "figures" in r]
    measured = f", {max(rates) / 1e12:.3g} TFLOP/s in bf16 products" if rates else ""
    versions = ", ".join(f"{n} {v}" for n, v in about["versions"].items() if n in ("torch", "transformers", "peft"))
    out = [f"On {about['card']}{measured}; {versions}."]
    for shape in dict.fromkeys(name.split("/")[0] for name in every):
        lines = [_line(every, name) for name in every if name.startswith(f"{shape}/") and "/library" in name]
        if lines:
            out.append(f"**{TITLES.get(shape, shape)}**\n\n{HEAD}\n" + "\n".join(lines))
    return "\n\n".join(out)


def _line(every: Rows, name: str) -> str:
    shape, batch, method, *_ = name.split("/")
    ours, theirs = every[name], every.get(name.replace("/library", "/naive"), {})
    floor = every.get(f"{shape}/{batch}/{'rmu' if method == 'rmu' else 'pdu'}/floor", {})
    label = method + (", checkpointing" if name.endswith("/checkpointing") else "")
    own = _cells(ours, ("seconds", "tokens", "share"), ours.get("status", ""))
    cells = [batch, label, *own, _ratio(ours, floor, "seconds"), *_cells(ours, ("gib",), "")]
    cells += _cells(theirs, ("seconds", "tokens", "gib"), theirs.get("status", "not measured"))
    return "| " + " | ".join([*cells, _ratio(ours, theirs, "tokens"), _ratio(ours, theirs, "gib")]) + " |"


FORMS = {"seconds": "{:.3f}", "tokens": "{:,.0f}", "gib": "{:.1f}"}


def _cells(row: Mapping[str, Any], names: tuple[str, ...], otherwise: str) -> list[str]:
    """A row's figures; where it has none the first cell says why."""
    if "figures" not in row:
        return [otherwise, *["–"] * (len(names) - 1)]
    found = row["figures"]
    return [f"{100 * found[n]:.0f} %" if n == "share" else FORMS[n].format(found[n]) for n in names]


def _ratio(a: Mapping[str, Any], b: Mapping[str, Any], name: str) -> str:
    return f"{a['figures'][name] / b['figures'][name]:.2f} ×" if "figures" in a and "figures" in b else "–"
