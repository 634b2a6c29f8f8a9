"""The slice's rows from TOFU's files, a set a file.

forget.jsonl; retain.jsonl, trained on; kept.jsonl and holdout.jsonl, measured only; level.jsonl, of other authors again, by
which methods that end by themselves find their level.

python rows.py TOFU OUT
"""

import json
import sys
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]


def read(file: Path) -> Rows:
    """The rows of a file of TOFU, JSON or a line each."""
    text = file.read_text(encoding="utf-8")
    rows: Rows = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    return rows


def main(tofu: Path, out: Path) -> None:
    """Write the five sets: the last two of 20 authors, the others without every ninth row, those rows, two more authors,
    and every ninth row of 18 more.
    """
    rows = read(tofu / "forget10_perturbed.json")
    known, forget = rows[:360], rows[360:]
    sets = {
        "forget": forget,
        "kept": known[::9],
        "retain": [row for i, row in enumerate(known) if i % 9],
        "holdout": read(tofu / "holdout01.json"),
        "level": read(tofu / "holdout10.json")[40::9],
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, some in sets.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some)
        (out / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
