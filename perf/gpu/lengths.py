"""TOFU's rows as numbers of tokens: ``lengths.json``, a table of (prompt, answer) pairs without any text.

    python -m perf.gpu.lengths --forget forget10.json --retain retain90.json [--rows 400]

The committed table is of TOFU (locuslab/tofu, MIT): all 400 rows of ``forget10`` and 400 evenly spaced rows of
``retain90``, in SmolLM2's tokens and chat template, its system message included; the end of turn belongs to the
answer.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from expunge.data.example import Example
from expunge.forward.view import IGNORE

TABLE = Path(__file__).with_name("lengths.json")
Pairs = Sequence[Sequence[int]]  # (prompt tokens, answer tokens) of each row


def table() -> Mapping[str, Pairs]:
    """The committed lengths of both streams."""
    found: Mapping[str, Pairs] = json.loads(TABLE.read_text())["rows"]
    return found


def examples(pairs: Pairs, vocabulary: int, seed: int) -> list[Example]:
    """Rows of random tokens with these lengths, labels on the answers."""
    draw = random.Random(seed)
    made = []
    for prompt, answer in pairs:
        ids = [draw.randrange(1, vocabulary) for _ in range(prompt + answer)]
        made.append(Example(tuple(ids), (*[IGNORE] * prompt, *ids[prompt:])))
    return made


def measured(source: str, rows: int, tokenizer: object) -> list[list[int]]:
    """The lengths of ``rows`` evenly spaced rows of a file."""
    from expunge.data.chat import encode
    from expunge.data.sources import load_rows

    given = load_rows(source)
    chosen = [given[i * len(given) // rows] for i in range(min(rows, len(given)))]
    made = [encode(row, tokenizer) for row in chosen]
    return [[n := sum(y == IGNORE for y in e.labels), len(e.labels) - n] for e in made]


def main() -> None:
    """Measure and write the table."""
    from expunge.models.tokenizer import load_tokenizer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forget", required=True)
    parser.add_argument("--retain", required=True)
    parser.add_argument("--model", default="smollm2-135m", help="whose tokenizer")
    parser.add_argument("--rows", type=int, default=400, help="of each file, evenly spaced")
    args = parser.parse_args()
    tokenizer = load_tokenizer(args.model)
    rows = {name: measured(getattr(args, name), args.rows, tokenizer) for name in ("forget", "retain")}
    sources = {name: Path(getattr(args, name)).name for name in rows}
    TABLE.write_text(
        json.dumps({"tokenizer": args.model, "files": sources, "rows": rows}, separators=(",", ":")) + "\n"
    )
    for name, pairs in rows.items():
        mean = sum(map(sum, pairs)) / len(pairs)
        print(
            f"{name}: {len(pairs)} rows, {mean:.1f} tokens each, {sum(a for _, a in pairs) / len(pairs):.1f} of the answer"
        )


if __name__ == "__main__":
    main()
