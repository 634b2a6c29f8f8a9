"""Audit the target, the retrained model and every run with all attacks; finished ones are left alone.

python audits.py TARGET RETRAINED ROWS RUNS OUT [--rows 12] [--attacks all] [MODEL…]

In one process, so that target and control are measured and attacked once.  MODEL: the name of a run, of the target or of the
retrained model; all without one.
"""

import argparse
import gc
import os
import time
from pathlib import Path

from expunge.audit import run, settings

NAMES = {"target": "tofu20-target", "control": "tofu20-retrained", "data": "tofu-slice"}  # what the records call them


def main() -> None:
    """Audit the models that are named."""
    parser = argparse.ArgumentParser()
    for name in ("target", "retrained", "measured_rows", "runs", "out"):
        parser.add_argument(name, type=Path if name not in ("target", "retrained") else str)
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--attacks", default="all")
    parser.add_argument("models", nargs="*")
    asked = parser.parse_args()
    names = {key: os.environ.get(f"{key.upper()}_NAME", value) for key, value in NAMES.items()}
    models = {names["control"]: asked.retrained, names["target"]: asked.target}
    runs = sorted(one.parent.name for one in asked.runs.glob("*/run.json"))
    measured: run.Measured = {}
    for name in asked.models or [*models, *runs]:
        out = asked.out / name
        if (out / "audit.json").exists():
            continue
        began, cpu = time.time(), time.process_time()
        given = {
            "model": models.get(name, str(asked.runs / name / "model")),
            "target": asked.target,
            "retrained": asked.retrained,
            **{part: str(asked.measured_rows / f"{file}.jsonl")
               for part, file in (("forget", "forget"), ("retain", "kept"), ("holdout", "holdout"))},
            "rows": asked.rows,
            "attacks": asked.attacks,
            "rewrite": False,
            "wrong": 3,
            "max_new_tokens": 32,
            "model_name": name,
            "title": f"{name} under attack",
            "out": str(out),
            "overwrite": True,
            **{f"{key}_name": value for key, value in names.items()},
        }  # fmt: skip
        done = run.run(settings.make(given), command="python audits.py", measured=measured)
        gc.collect()
        wall, own = time.time() - began, time.process_time() - cpu
        print(f"{name}: {done.word}, {wall:.0f} s, {own:.0f} s of processor time", flush=True)


if __name__ == "__main__":
    main()
