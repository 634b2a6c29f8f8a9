"""How likely models find the right answers of rows: the mean over rows of exp(mean log-probability a token).

python kept.py ROWS MODEL…

ROWS: the folder that rows.py made; of each of its sets 40 rows, evenly spaced.  In brackets the share of the first model's.
"""

import argparse
from pathlib import Path

from expunge import models
from expunge.data import chat
from expunge.data.example import evenly
from expunge.data.sources import load_rows
from expunge.unlearning.unseen import logp_and_entropy

SETS = {"kept": "known, and not given", "retain": "rows to keep", "forget": "rows to forget", "holdout": "holdout rows"}


def main() -> None:
    """Print a line a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("models", nargs="+")
    asked = parser.parse_args()
    first: dict[str, float] = {}
    for name in asked.models:
        loaded = models.load(name)
        said = []
        for file, what in SETS.items():
            rows = evenly(load_rows(str(asked.rows / f"{file}.jsonl")), 40)
            examples = [chat.encode(row, loaded.tokenizer, max_length=512, chat_template=True) for row in rows]
            values = logp_and_entropy(loaded.model, examples, loaded.tokenizer.pad_token_id)
            mean = sum(float(v[:, 0].mean().exp()) for v in values) / len(rows)
            said.append(f"{what} {mean:.3f} ({mean / first.setdefault(file, mean):.3f})")
        print(f"{name}: {', '.join(said)}", flush=True)


if __name__ == "__main__":
    main()
