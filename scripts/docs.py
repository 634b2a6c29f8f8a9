r"""Write the generated parts of the documentation, or check them: the method table and the page of methods.

python scripts/docs.py           # write README.md's table and docs/methods.md
python scripts/docs.py --check   # fail if they are stale
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from expunge import methods  # noqa: F401  fills the table
from expunge.cli.show import describe
from expunge.method import METHODS, build

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- methods: made by scripts/docs.py -->", "<!-- end of methods -->"


def table() -> str:
    """The method table in Markdown."""
    rows = ["| method | what it does | forget loss | retain loss | combiner | paper |", "|---|---|---|---|---|---|"]
    for row in METHODS.values():
        made = build(row.name)
        losses = [
            getattr(made.objectives[r].loss, "func", made.objectives[r].loss).__name__
            if r in made.objectives
            else "none"
            for r in ("forget", "retain")
        ]
        number = row.paper.removeprefix("arXiv:")
        cells = [f"`{row.name}`", row.summary, *(f"`{v}`" for v in losses), f"`{type(made.combine).__name__}`"]
        rows.append("| " + " | ".join([*cells, f"[{number}](https://arxiv.org/abs/{number})"]) + " |")
    return "\n".join(rows)


def page() -> str:
    """docs/methods.md: what ``expunge show`` says of every method."""
    head = "# Methods\n\nMade by `scripts/docs.py` from the docstrings; `expunge show NAME` prints one of them.\n"
    parts = []
    for name in METHODS:
        text = describe(name).rsplit("\n\nsource:", 1)[0].split("\n\n", 1)[1]
        file = Path(inspect.getsourcefile(inspect.unwrap(METHODS[name].make)) or "").relative_to(ROOT)
        parts.append(f"## {name}\n\n```text\n{text}\n```\n\nSource: [`{file}`](../{file})\n")
    return "\n".join([head, *parts])


def readme(text: str) -> str:
    """``text`` with its table made anew."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


def main() -> int:
    """Write, or with --check compare; returns the exit code."""
    wanted = {ROOT / "README.md": readme((ROOT / "README.md").read_text()), ROOT / "docs" / "methods.md": page()}
    stale = [f for f, text in wanted.items() if not f.exists() or f.read_text() != text]
    if "--check" in sys.argv:
        for file in stale:
            print(f"{file.relative_to(ROOT)} is stale; run `make docs`")
        return 1 if stale else 0
    for file in stale:
        file.write_text(wanted[file])
        print(f"wrote {file.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
