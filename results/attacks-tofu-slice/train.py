"""The methods of a comparison under attack, one budget: a run each, one after another; finished ones are left alone.

python train.py TARGET ROWS OUT BUDGET.toml [--level MODEL] [--holdout ROWS] [METHOD…]
"""

import argparse
import gc
import time
import tomllib
from pathlib import Path
from typing import Any

from expunge import method
from expunge.unlearning import run, settings


def main() -> None:
    """Train the methods that are named, all of the budget's without one."""
    parser = argparse.ArgumentParser()
    for name in ("target", "rows", "out", "budget"):
        parser.add_argument(name, type=str if name == "target" else Path)
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--level", help="for methods that end at a level: the model before fine-tuning")
    parser.add_argument("--holdout", help="for methods that end at a level: rows that no model saw")
    asked = parser.parse_args()
    budget = tomllib.loads(asked.budget.read_text(encoding="utf-8"))
    parameters = budget.pop("methods")
    measured: dict[str, dict[str, Any]] = {}  # so that the target is measured once
    for name in asked.methods or parameters:
        folder = asked.out / name
        if (folder / "run.json").exists():
            continue
        began, cpu = time.time(), time.process_time()
        given = {
            **budget,
            "model": asked.target,
            "forget": str(asked.rows / "forget.jsonl"),
            "retain": str(asked.rows / "retain.jsonl"),
            "method": name,
            "parameters": parameters[name],
            "out": str(folder),
            "overwrite": True,
        }
        if method.build(name, parameters[name]).reads_level:
            given |= {"level": asked.level, "holdout": asked.holdout}
        run.run(settings.make(given), measured=measured)
        gc.collect()
        wall, own = time.time() - began, time.process_time() - cpu
        print(f"{name}: {wall:.0f} s, {own:.0f} s of processor time", flush=True)


if __name__ == "__main__":
    main()
