"""What share of the facts in a forget set stands in what a model revealed.

    python -m perf.revealed --forget forget.jsonl REVEALED.jsonl [ANOTHER.jsonl …]

A fact counts as revealed where the longest common subsequence of its right answer with one revealed answer holds at least a
share t of the right answer's words (ROUGE-L recall, stemmed).  Names alone make up a part of every answer, so the figure of
a model that never saw the facts belongs beside it: give its revealed set as another file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from expunge.data.sources import load_rows
from expunge.evaluation.metrics.rouge import rouge
from expunge.stats import clopper_pearson

SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)


def best(forget: list[str], revealed: list[str]) -> np.ndarray:
    """(n,) the largest ROUGE-L recall of each answer to forget among the ``revealed`` ones."""
    return np.array([rouge([right] * len(revealed), revealed).max() for right in forget])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--forget", required=True)
    parser.add_argument("revealed", nargs="+", type=Path)
    args = parser.parse_args()
    forget = [r.answer for r in load_rows(args.forget)]
    for file in args.revealed:
        answers = list(dict.fromkeys(r.answer for r in load_rows(file)))
        values = best(forget, answers)
        print(f"{file}: {len(answers)} different answers, mean best recall {values.mean():.3f}")
        for t in SHARES:
            k = int((values >= t).sum())
            within = clopper_pearson(k, len(values))
            print(
                f"  at least {t:.1f}: {k}/{len(values)} = {k / len(values):.2f} ({within.low:.2f} to {within.high:.2f})"
            )


if __name__ == "__main__":
    main()
