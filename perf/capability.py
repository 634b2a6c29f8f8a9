"""A capability released in four ways: in one shot, step by step, with a retain module, and with it orthogonal.

    python -m perf.capability --benchmark toxicity --data FOLDER --model MODEL --forget revealed.jsonl \
        --retain neutral.jsonl --forget-figure instructions/toxicity --utility wikitext/perplexity --out FOLDER \
        [--limit 12] [--steps 5] [--total 1.5] [--only iterative …] [KEY=VALUE …]

All variants subtract ``--total`` in sum, one of them at once.  After each step the benchmark is asked; nothing stops a run,
so its whole trajectory can be read.  Every variant is an ordinary ``expunge release`` with its record and report; a run that
was interrupted goes on.  ``figures.json`` holds all of it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from expunge import files
from expunge.benchmarks import named
from expunge.evaluation.benchmark import data_of
from expunge.evaluation.collect.one_pass import collect
from expunge.models.tokenizer import load_tokenizer
from expunge.release import Measurement, override, release


def variants(steps: int, total: float, retain: float, orthogonality: float) -> dict[str, dict[str, Any]]:
    """Name -> the settings of a release."""
    small = {"steps": steps, "forget_coefficient": total / steps}
    return {
        "one_shot": {"steps": 1, "forget_coefficient": total, "retain_coefficient": 0, "orthogonality": 0},
        "iterative": {**small, "retain_coefficient": 0, "orthogonality": 0},
        "with_retain": {**small, "retain_coefficient": retain, "orthogonality": 0},
        "orthogonal": {**small, "retain_coefficient": retain, "orthogonality": orthogonality},
    }


def looking(args: argparse.Namespace) -> Measurement:
    """The benchmark as what is looked at after each step."""
    benchmark = named(args.benchmark)
    probes = [p for p in benchmark.probes(data_of(benchmark, args.data)) if p.index < args.limit]
    tokenizer = load_tokenizer(args.model)

    def measure(model: Any) -> dict[str, dict[str, float]]:
        found = collect(
            model, tokenizer, probes, max_length=benchmark.max_length, chat_template=benchmark.chat_template
        )
        out: dict[str, dict[str, float]] = {}
        for f in benchmark.score(found, None):
            out.setdefault(f.part, {})[f.name] = f.value
        return out

    forget, utility = (tuple(name.rsplit("/", 1)) for name in (args.forget_figure, args.utility))
    asked = f"{args.benchmark}, {args.data}, {args.limit} of each part"
    return Measurement(measure, forget=forget, utility=utility, better=args.better, name=asked)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("benchmark", "data", "model", "forget", "retain", "forget-figure", "utility"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--better", choices=("lower", "higher"), default="lower", help="which way utility is better")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=12, help="rows of each part of the benchmark")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--total", type=float, default=1.5, help="sum of the forget coefficients")
    parser.add_argument("--retain-coefficient", type=float, default=0.1)
    parser.add_argument("--orthogonality", type=float, default=0.5)
    parser.add_argument("--only", nargs="*", help="of the variants, these")
    parser.add_argument(
        "settings", nargs="*", metavar="KEY=VALUE", help="settings of a release, training arguments too"
    )
    args = parser.parse_args()

    look = looking(args)
    given = override({}, args.settings)
    found = {}
    chosen = variants(args.steps, args.total, args.retain_coefficient, args.orthogonality)
    for name in args.only or chosen:
        retain = args.retain if chosen[name]["retain_coefficient"] else None
        result = release(
            args.model, forget=args.forget, retain=retain, out=args.out / name, look=look, utility_budget=None,
            overwrite=True, merge=True, **chosen[name], **given,
        )  # fmt: skip
        log = result.record
        found[name] = {
            "settings": chosen[name],
            "trajectory": log["release"]["trajectory"],
            "before": log["before"],
            "after": log["after"],
            "seconds": log["seconds"],
        }
        files.replace_text(args.out / f"{name}.json", json.dumps(found[name], indent=1) + "\n")
        for part, figure in (look.forget, look.utility):  # type: ignore[misc]
            print(f"{name:12} {part}/{figure}: {log['before'][part][figure]:.4f} -> {log['after'][part][figure]:.4f}")


if __name__ == "__main__":
    main()
