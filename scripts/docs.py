r"""Write the generated parts of the documentation, or check them: tables in README.md and the pages under docs/.

python scripts/docs.py           # write README.md's tables, docs/methods.md, benchmarks.md, metrics.md, options of audit.md
python scripts/docs.py --check   # fail if they are stale
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from expunge import stats
from expunge.audit.settings import Audit
from expunge.benchmarks import BENCHMARKS
from expunge.cli.formulas import for_markdown
from expunge.cli.options import described
from expunge.cli.show import markdown
from expunge.evaluation.benchmark import DataSet
from expunge.evaluation.metrics import fluency, lume, privacy, repetition, rouge, scores
from expunge.evaluation.metrics import likelihood as metrics
from expunge.method import build, entries
from expunge.scorers import entities

try:  # as a program, as a module
    import reference
except ModuleNotFoundError:
    from scripts import reference

ROOT = Path(__file__).parent.parent
BLOB = "https://github.com/expunge/expunge/blob/main"


def method_table() -> str:
    """The method table in Markdown."""
    rows = ["| method | what it does | forget loss | retain loss | combiner | paper |", "|---|---|---|---|---|---|"]
    for row in entries().values():
        made = build(row.name)
        losses = [made.objectives[r].name if r in made.objectives else "none" for r in ("forget", "retain")]
        number = row.paper.removeprefix("arXiv:")
        paper = f"[{number}](https://arxiv.org/abs/{number})" if number else "of this library"
        cells = [f"`{row.name}`", row.summary, *(f"`{v}`" for v in losses), f"`{type(made.combine).__name__}`"]
        rows.append("| " + " | ".join([*cells, paper]) + " |")
    return "\n".join(rows)


def methods_page() -> str:
    """docs/methods.md: what ``expunge show`` says of every method."""
    head = "# Methods\n\nMade by `scripts/docs.py` from the docstrings; `expunge show NAME` prints one of them.\n"
    parts = []
    for name in entries():
        file = Path(inspect.getsourcefile(inspect.unwrap(entries()[name].make)) or "").relative_to(ROOT)
        parts.append(f"## {name}\n\n{markdown(name)}\n\nSource: [`{file}`]({BLOB}/{file})\n")
    return "\n".join([head, *parts])


def benchmark_table() -> str:
    """The benchmarks in Markdown, one row a file."""
    rows = ["| benchmark | what it is | paper |", "|---|---|---|"]
    for module, names in modules().items():
        paper = next(b.paper for b in BENCHMARKS.values() if b.name == names[0]).removeprefix("arXiv:")
        said = (module.__doc__ or "").strip().split("\n")[0].partition(": ")[2]
        what = said.partition(".  ")[0].rstrip(".")
        shown = ", ".join(f"`{n}`" for n in names)
        rows.append(f"| {shown} | {what[:1].upper()}{what[1:]} | [{paper}](https://arxiv.org/abs/{paper}) |")
    return "\n".join(rows)


def modules() -> dict[ModuleType, list[str]]:
    """The file of each benchmark, and the names it makes."""
    out: dict[ModuleType, list[str]] = {}
    for name in BENCHMARKS:
        out.setdefault(importlib.import_module(f"expunge.benchmarks.{name.split('/')[0]}"), []).append(name)
    return out


def benchmarks_page() -> str:
    """docs/benchmarks.md: what the file of each benchmark says, and the data it reads."""
    head = (
        "# Benchmarks\n\nMade by `scripts/docs.py` from the files' docstrings.  `expunge bench NAME --model M` asks a\n"
        "model, `expunge rescore FOLDER` computes the figures again from what it said.\n"
    )
    parts = []
    for module, names in modules().items():
        file = Path(module.__file__ or "").relative_to(ROOT)
        sets: dict[str, list[DataSet]] = {}
        for one in (one for n in names for one in BENCHMARKS[n].sets):
            sets.setdefault(one.name, []).append(one)
        data = "\n".join(
            f"| `{name}` | {', '.join(f'`{h}`' for h in dict.fromkeys(s.hub for s in same) if h) or 'not there'} "
            f"| `{same[0].shown}` | {'yes' if same[0].optional else 'no'} |"
            for name, same in sets.items()
        )
        head_of = "| data set | on the Hub, or its address | in a folder | optional |\n|---|---|---|---|"
        text = inspect.cleandoc(module.__doc__ or "")
        parts.append(
            f"## {', '.join(names)}\n\n```text\n{text}\n```\n\n{head_of}\n{data}\n\nSource: [`{file}`]({BLOB}/{file})\n"
        )
    return "\n".join([head, *parts])


def metrics_page() -> str:
    """docs/metrics.md: every public function of the modules that make numbers."""
    head = "# Metrics and statistics\n\nMade by `scripts/docs.py` from the docstrings; each holds a number worked by hand.\n"
    parts = []
    for module in (metrics, rouge, repetition, fluency, entities, lume, privacy, scores, stats):
        file = Path(module.__file__ or "").relative_to(ROOT)
        text = inspect.cleandoc(module.__doc__ or "")
        parts.append(f"## {module.__name__}\n\n{for_markdown(text)}\n\nSource: [`{file}`]({BLOB}/{file})\n")
        for name, f in vars(module).items():
            if inspect.isfunction(f) and _defined_in(f, module) and not name.startswith("_"):
                text = for_markdown(inspect.cleandoc(f.__doc__ or ""))
                parts.append(f"### {name}\n\n```python\n{name}{inspect.signature(f)}\n```\n\n{text}\n")
    return "\n".join([head, *parts])


def _defined_in(function: Callable[..., object], module: ModuleType) -> bool:
    """Whether ``module``, or one below it if it is a package, defines ``function``."""
    return f"{function.__module__}.".startswith(f"{module.__name__}.")


def between(text: str, name: str, made: str) -> str:
    """``text`` with what stands between the two marks of ``name`` made anew."""
    begin, end = f"<!-- {name}: made by scripts/docs.py -->", f"<!-- end of {name} -->"
    before, rest = text.split(begin)
    return f"{before}{begin}\n{made}\n{end}{rest.split(end)[1]}"


def audit_options() -> str:
    """The options of ``expunge audit`` in Markdown, from the settings that they are made of."""
    rows = ["| option | default | what it is |", "|---|---|---|"]
    for name, field in described(Audit).items():
        default = "" if field.is_required() or field.default in (None, {}, False) else f"`{field.default}`".lower()
        rows.append(f"| `--{name.replace('_', '-')}` | {default} | {field.description} |")
    return "\n".join(rows)


def readme(text: str) -> str:
    """``text`` with its tables made anew."""
    return between(between(text, "methods", method_table()), "benchmarks", benchmark_table())


def main() -> int:
    """Write, or with --check compare; returns the exit code."""
    pages: dict[str, Callable[[], str]] = {
        "methods.md": methods_page,
        "benchmarks.md": benchmarks_page,
        "metrics.md": metrics_page,
        "reference/commands.md": reference.commands_page,
        "reference/recipes.md": reference.recipes_page,
        "reference/records.md": reference.records_page,
    }
    wanted = {ROOT / "README.md": readme((ROOT / "README.md").read_text())}
    wanted |= {ROOT / "docs" / name: make() for name, make in pages.items()}
    audit = ROOT / "docs" / "audit.md"
    wanted[audit] = between(audit.read_text(), "audit options", audit_options())
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
