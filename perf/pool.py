"""A pool of instructions, each with its features and its reward, for ``python -m perf.bandit``.

    python -m perf.pool --model MODEL --topic "…" --scorer entity:… [KEY=VALUE …] --out pool.npz

Every instruction that the arms wrote is asked once, as a search would ask it first (nothing collected), so that any order of
asking can be compared afterwards on the same real rewards.  Interrupted, it goes on where it stopped: it is a search of one
round in which nothing is left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from expunge import models
from expunge.reveal import arms, run, search
from expunge.reveal.settings import make


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--topic")
    parser.add_argument("--scorer")
    parser.add_argument("--seed-instruction", action="append", default=[], metavar="TEXT")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings of expunge.reveal.settings.Reveal")
    args = parser.parse_args()

    folder = args.out.with_suffix("")
    values = {"model": args.model, "topic": args.topic, "scorer": args.scorer, "out": str(folder)}
    values |= {"seeds": args.seed_instruction}
    values |= dict(pair.split("=", 1) for pair in args.settings)
    n = int(values.get("arms", 256))
    settings = make(values | {"rounds": 1, "queries": n, "initial": n, "harvest": 0})
    run.run(settings)

    queries = search.read_log(folder / run.QUERIES)
    loaded = models.load(args.model)
    features = arms.features(loaded.model, loaded.tokenizer, [e.questions[0] for e in queries])
    parts = {name: np.array([e.scores[name] for e in queries]) for name in queries[0].scores}
    np.savez(args.out, features=features.numpy(), rewards=parts.pop("score"), **parts)
    print(f"{len(queries)} instructions -> {args.out}")


if __name__ == "__main__":
    main()
