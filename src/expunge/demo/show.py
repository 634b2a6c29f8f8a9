"""The demo: a method makes the target forget, and its answers stand side by side with those of the retrained model."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from expunge.unlearning import ready
from expunge.unlearning import run as unlearning_run
from expunge.unlearning import settings as recipe

RUNS = ("blur_level",)  # with no setting of its own: it ends by itself
INPUTS = ("forget.jsonl", "retain.jsonl", "adapters/target", "adapters/retrained")
TRAINING = {"per_device_train_batch_size": 4}


def demo(out: str | Path, *, say: bool = True, **options: Any) -> dict[str, Any]:
    """Run the method into ``out/<method>``, print what the models answer if ``say``, and return the record by its name.

    ``out/inputs`` then holds the models and the rows, for commands of one's own.  ``options``: fields of
    :class:`expunge.demo.settings.Demo`.
    """
    console = Console(quiet=not say)
    measured: dict[str, dict[str, Any]] = {}
    records = {}
    with as_file(files("expunge.demo")) as here:
        console.print("SmolLM2-135M was taught eight invented people; it shall forget two of them and keep six.")
        for name in RUNS:
            console.rule(name)
            settings = recipe_of(name, here, out, **options)
            result = unlearning_run.run(settings, command="expunge demo", measured=measured)
            records[name] = result.record
            show(console, result.record)
            console.print(f"\nreport: {result.folder / 'report.html'}")
        console.print(f"\nmodels and rows, for commands of your own: {copied(here, Path(out) / 'inputs')}")
    return records


def copied(here: Path, folder: Path) -> Path:
    """``folder`` with the demo's models and rows; what is there already stays."""
    for name in INPUTS:
        place, source = folder / Path(name).name, here / name
        if place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, place)
    return folder


def planned(out: str | Path, **options: Any) -> dict[str, Any]:
    """What :func:`demo` would do; raises InputError as it does, and writes nothing."""
    with as_file(files("expunge.demo")) as here:
        plans = [ready.planned(recipe_of(name, here, out, **options)) for name in RUNS]
    return plans[0] | {
        "method": [plan["method"] for plan in plans],
        "steps": [plan["steps"] for plan in plans],
        "out": str(out),
    }


def recipe_of(name: str, here: Path, out: str | Path, **options: Any) -> recipe.Recipe:
    """The run of method ``name``, on the demo's data in the folder ``here``."""
    return recipe.make(
        {
            "title": f"Demo: {name} on eight invented people",
            "model": str(here / "adapters" / "target"),
            "forget": str(here / "forget.jsonl"),
            "retain": str(here / "retain.jsonl"),
            "out": str(Path(out) / name),
            "method": name,
            "training": TRAINING,
            "adapter": "lora",
            "compare_with": str(here / "adapters" / "retrained"),
            "compare_name": "retrained model",
            "eval_rows": 16,
            "examples": 4,
            "max_new_tokens": 40,
            **options,
        }
    )


def show(console: Console, record: dict[str, Any]) -> None:
    """The figures, and one question about a forgotten and one about a kept person."""
    table = Table("probability of the answers", "target", "unlearned", "retrained", box=None, padding=(0, 3, 0, 0))
    for name in ("forget", "retain"):
        values = [record[when][name]["probability"] for when in ("before", "after", "reference")]
        table.add_row(f"{name} set", *(f"{v:.3f}" for v in values))
    console.print(table)
    for name, title in (("forget", "forgotten"), ("retain", "kept")):
        example = next(e for e in record["examples"] if e["set"] == name)
        answers = Table(f"{title}: {example['question']}", "", box=None, padding=(0, 2, 0, 0), show_edge=False)
        for label, key in (("target", "before"), ("unlearned", "after"), ("retrained", "reference")):
            answers.add_row(label, example[key] or "(nothing)")
        console.print()
        console.print(answers)
