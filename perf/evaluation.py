"""The TOFU suite in one pass against a pass for every metric: seconds, ratio and largest difference, in one run.

    python -m perf.evaluation --model MODEL --retrained RETRAINED --data FOLDER [--limit N] [--out record.json]

Both sides start from the loaded model and end with every figure of ``tofu/forget01``; what is known of the retrained model
is collected before and timed for neither.  Figures must agree to 1e-4, or the run fails.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from expunge.benchmarks import BENCHMARKS
from expunge.benchmarks.tofu import SETS, ratios
from expunge.evaluation.benchmark import data_of
from expunge.evaluation.collect.cached import collected
from expunge.evaluation.collect.one_pass import collect
from expunge.evaluation.metrics import membership, privacy
from expunge.evaluation.probe import EvaluationOptions
from expunge.evaluation.table import Collected
from expunge.models import load
from perf.naive_evaluation import BATCH, Naive, tofu

BENCHMARK = BENCHMARKS["tofu/forget01"]
CLOSE = 1e-4
ONLY_OURS = ("_similarity", "truth_ratio_difference")  # figures that no published evaluation has


def known(retrained: Collected) -> dict:
    """What the naive evaluation reads from a retrained model's log."""
    seen, unseen = (membership.scores(retrained, part)["min_k"] for part in ("forget", "holdout"))
    return {
        "truth_ratio": ratios(retrained, "forget"),
        "min_k_auc": privacy.attack(seen, unseen).auc,
        **{f"nll_{part}": -retrained.mean_logp(part) for part in ("forget", "holdout")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--retrained", required=True)
    parser.add_argument("--data", required=True, help="a folder with TOFU's files")
    parser.add_argument("--limit", type=int, help="only the first rows of each set")
    parser.add_argument("--batch", type=int, default=BATCH, help="batch size of the naive evaluation")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    data = data_of(BENCHMARK, args.data)
    names = {"forget": "forget01_perturbed", "holdout": "holdout01", **SETS}
    sets = {part: data.rows(name)[: args.limit] for part, name in names.items()}
    probes = [p for p in BENCHMARK.probes(data) if args.limit is None or p.index < args.limit]
    how = EvaluationOptions(max_length=BENCHMARK.max_length, chat_template=BENCHMARK.chat_template)
    retrained, _ = collected(args.retrained, probes, how)

    loaded = load(args.model)
    began = time.perf_counter()
    found = collect(loaded.model, loaded.tokenizer, probes)
    asked = time.perf_counter() - began
    figures = {(f.part, f.name): f.value for f in BENCHMARK.score(found, retrained)}
    ours = time.perf_counter() - began
    print(f"one pass: {ours:.1f} s, of which the model {asked:.1f} s", flush=True)

    naive = Naive(loaded.model, loaded.tokenizer, args.batch)
    began = time.perf_counter()
    expected = tofu(naive, sets, known(retrained))
    theirs = time.perf_counter() - began
    for name, seconds in naive.seconds.items():
        print(f"  {name:20} {seconds:7.1f} s")
    print(f"a pass for every metric: {theirs:.1f} s; ratio {theirs / ours:.2f}")

    compared = {k: v for k, v in figures.items() if not k[1].endswith(ONLY_OURS)}
    assert compared.keys() == expected.keys(), compared.keys() ^ expected.keys()
    worst = max(compared, key=lambda k: abs(compared[k] - expected[k]))
    difference = abs(compared[worst] - expected[worst])
    print(f"{len(compared)} figures; largest difference {difference:.2g} ({' '.join(worst)})")
    if args.out:
        record = {
            "rows": {part: len(rows) for part, rows in sets.items()},
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "seconds": {"one_pass": ours, "a_pass_each": theirs, "ratio": theirs / ours, **naive.seconds},
            "largest_difference": difference,
            "figures": [[*k, compared[k], expected[k]] for k in compared],
        }
        args.out.write_text(json.dumps(record, indent=1) + "\n")
    if difference > CLOSE:
        raise SystemExit("the figures differ")


if __name__ == "__main__":
    main()
