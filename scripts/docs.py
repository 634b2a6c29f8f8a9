r"""Write the generated parts of the documentation, or check them.

python scripts/docs.py           # methods, metrics, benchmarks, reference/; tables of audit, choosing, papers; the figure
python scripts/docs.py --check   # fail if they are stale
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from expunge import record, stats
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
    import notebooks
    import papers
    import reference
except ModuleNotFoundError:
    from scripts import notebooks, papers, reference

ROOT = Path(__file__).parent.parent
COMPARISON = ROOT / "results" / "tofu-slice-14-methods"
METHODS_NOTE = """Most take `retain=kl` (stay close to the target model instead of to the retain answers), and all
full weights or LoRA (`--adapter lora`), any weights by name (`--trainable REGEX`), and any optimizer:
those of `TrainingArguments`, or `--optimizer sophia`, SOUL's second order.  The rows from `constrained` on take any
forget loss, `expunge run --method pcgrad -p forget=simnpo`; a method of your own is
[a file or a package](tutorials/own-loss.md).  Where each default comes from is in [Papers](papers.md)."""
BLOB = "https://github.com/expunge/expunge/blob/main"


def method_table() -> str:
    """The method table in Markdown."""
    rows = ["| method | what it does | forget loss | retain loss | combiner | paper |", "|---|---|---|---|---|---|"]
    for row in entries().values():
        made = build(row.name)
        losses = [made.objectives[r].name if r in made.objectives else "none" for r in ("forget", "retain")]
        number = row.paper.removeprefix("arXiv:")
        paper = f"[{number}](https://arxiv.org/abs/{number})" if number else "of this library"
        cells = [
            f"[`{row.name}`](#{row.name})",
            row.summary.replace("``", "`"),
            *(f"`{v}`" for v in losses),
            f"`{type(made.combine).__name__}`",
        ]
        rows.append("| " + " | ".join([*cells, paper]) + " |")
    return "\n".join(rows)


def methods_page() -> str:
    """docs/methods.md: what ``expunge show`` says of every method."""
    head = (
        "# Methods\n\nMade by `scripts/docs.py` from the docstrings; `expunge methods` lists them, "
        "`expunge show NAME` prints one.\n"
        "A method is a forget loss, a retain loss and how the two meet ([the one idea](concepts/one-idea.md)).\n\n"
        f"{method_table()}\n\n{METHODS_NOTE}\n"
    )
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
        f"model, `expunge rescore FOLDER` computes the figures again from what it said.\n\n{benchmark_table()}\n"
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


def comparison() -> str:
    """The committed comparison as a table, most forgotten first, beside target and retrained model."""
    said = record.read(COMPARISON / "compare.json")
    columns = ("forget/probability", "retain/probability", "forget/extraction_strength", "forget/mia_loss_auc")
    rows = [
        "| | forget probability | retain probability | extraction strength | loss AUC | seconds of its steps |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    target, retrained = said["target"] or {}, said["retrained"] or {}
    runs = [("*target*", target["figures"], None), ("*retrained*", retrained["figures"], None)]
    runs += [(f"`{r['shown']}`", r["figures"], (r["seconds"] or {})["steps"]) for r in said["runs"]]

    def value(figures: Any, name: str) -> float | None:
        return next((f["value"] for f in figures if f"{f['part']}/{f['name']}" == name), None)

    for shown, figures, seconds in sorted(runs, key=lambda run: -(value(run[1], columns[0]) or 0)):
        cells = ["" if (v := value(figures, c)) is None else f"{v:.3f}" for c in columns]
        rows.append(f"| {shown} | {' | '.join(cells)} | {'' if seconds is None else round(seconds)} |")
    return "\n".join(rows)


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
    wanted = {ROOT / "docs" / name: make() for name, make in pages.items()}
    for name, text in notebooks.pages(ROOT / "examples" / "notebooks", f"{BLOB}/examples").items():
        wanted[ROOT / "docs" / "notebooks" / f"{name}.md"] = text
    wanted[ROOT / "docs" / "assets" / "tradeoff.svg"] = (COMPARISON / "tradeoff.svg").read_text()
    parts: dict[str, tuple[str, Callable[[], str]]] = {
        "audit.md": ("audit options", audit_options),
        "choosing.md": ("comparison", comparison),
        "papers.md": ("papers", papers.table),
    }
    for name, (mark, make) in parts.items():
        wanted[ROOT / "docs" / name] = between((ROOT / "docs" / name).read_text(), mark, make())
    stale = [f for f, text in wanted.items() if not f.exists() or f.read_text() != text]
    if "--check" in sys.argv:
        for file in stale:
            print(f"{file.relative_to(ROOT)} is stale; run `make docs`")
        return 1 if stale else 0
    for file in stale:
        file.parent.mkdir(exist_ok=True)
        file.write_text(wanted[file])
        print(f"wrote {file.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
