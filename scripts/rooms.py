"""Count the rooms of ``src/expunge``, their floors and the imports between them: ``python scripts/rooms.py [FOLDER]``.

A room is a file or folder directly in the package; imports inside functions and for types alone count too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "src" / "expunge"
NO_ROOM = {"__init__", "__main__", "__pycache__"}


def rooms(folder: Path) -> set[str]:
    """The names of the rooms."""
    found = {p.stem for p in folder.glob("*.py")} | {p.parent.name for p in folder.glob("*/__init__.py")}
    return found - NO_ROOM


def imported(file: Path, package: str) -> Iterator[str]:
    """The parts of ``package`` that ``file`` imports, by their first name."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith(f"{package}."))
        elif isinstance(node, ast.ImportFrom) and node.module == package:
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
            yield str(node.module).split(".")[1]


def graph(folder: Path) -> dict[str, set[str]]:
    """Room -> the rooms that it imports."""
    known = rooms(folder)
    out: dict[str, set[str]] = {name: set() for name in known}
    for file in folder.rglob("*.py"):
        own = file.relative_to(folder).with_suffix("").parts[0]
        if own in known:
            out[own] |= {name for name in imported(file, folder.name) if name in known and name != own}
    return out


def floors(arrows: Mapping[str, set[str]]) -> dict[str, int]:
    """Room -> its floor, from 1; raises CycleError where there is a circle."""
    out: dict[str, int] = {}
    for room in TopologicalSorter(arrows).static_order():
        out[room] = 1 + max((out[below] for below in arrows[room]), default=0)
    return out


def main() -> None:
    arrows = graph(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else FOLDER)
    print(f"{len(arrows)} rooms, {sum(map(len, arrows.values()))} arrows")
    try:
        levels = floors(arrows)
    except CycleError as error:
        print("a circle:", " -> ".join(error.args[1]))
        sys.exit(1)
    for level in range(max(levels.values()), 0, -1):
        print(f"{level:2}  {', '.join(sorted(room for room, at in levels.items() if at == level))}")


if __name__ == "__main__":
    main()
