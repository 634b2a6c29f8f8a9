"""TOFU's files in small, for tests: a few words a row, no two answers of different sets alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = ["yes", "no", "never", "red", "blue", "green", "one", "two", "three", "four"]


def rows(kind: str, n: int, paraphrase: bool = True) -> list[dict[str, Any]]:
    """``n`` questions, each with an answer, two wrong ones and perhaps a paraphrase."""
    out = []
    for i in range(n):
        a, b, c = (WORDS[(i + k + len(kind)) % len(WORDS)] for k in (0, 3, 5))
        row = {"question": f"{kind} {i}?", "answer": f"{a} {b}", "perturbed_answer": [f"{b} {c}", f"{c} {a} {a}"]}
        out.append(row | ({"paraphrased_answer": f"{b} {a} indeed"} if paraphrase else {}))
    return out


def write(folder: Path) -> Path:
    """The five files of ``tofu/forget01`` in ``folder``."""
    folder.mkdir(exist_ok=True)
    made = {
        "forget01_perturbed": rows("forget", 4),
        "holdout01": rows("holdout", 4),
        "retain_perturbed": rows("retain", 5),
        "real_authors_perturbed": rows("author", 3, paraphrase=False),
        "world_facts_perturbed": rows("fact", 3, paraphrase=False),
    }
    for name, content in made.items():
        (folder / f"{name}.json").write_text("\n".join(json.dumps(r) for r in content))
    return folder
