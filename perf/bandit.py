"""NeuralUCB against random search and a linear UCB on a pool of arms whose rewards are all known, at one query budget.

    python -m perf.bandit --pool pool.npz [--queries 40 --initial 10 --seeds 10] [--nu 0.001,0.01,0.1]
        [--width 50,100] [--training near_start,published] [--out record.json]

The pool holds ``features`` (N, d) and ``rewards`` (N,), and may hold ``instructions`` (N,): arms of one instruction count as
asked together.  Each seed draws the same initial arms for every policy; then each policy picks --queries more, and what it
picked is scored: the mean and the best reward, both of the picks after the initial arms; their mean less random search's
on the same seed; and the rank correlation (Spearman) of its final guesses with the rewards of the arms never asked (random
search guesses nothing).  Intervals are 95 % bootstraps over seeds, on this one pool: they say nothing of another pool.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from expunge.errors import InputError
from expunge.reveal import linear
from expunge.reveal.bandit import DEFAULTS, Observed, predict
from expunge.reveal.surrogate import TRAININGS, Settings
from expunge.stats import bootstrap_mean

Guess = Callable[[Tensor, Observed, Settings], tuple[Tensor, Tensor]]  # reward and spread of each arm
MEASURES = ("mean", "best", "over_random", "rank_correlation")


class Pool(NamedTuple):
    """Arms whose rewards are known."""

    features: Tensor  # (N, d)
    rewards: np.ndarray  # (N,)
    instructions: np.ndarray  # (N,)


def load_pool(path: Path) -> Pool:
    """The pool in an .npz file; InputError where it is none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        features, rewards = np.asarray(found["features"], np.float64), np.asarray(found["rewards"], np.float64)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(f"{path}: no .npz with the arrays features (N, d) and rewards (N,): {error}") from None
    instructions = found.get("instructions", np.arange(len(rewards)))
    if features.ndim != 2 or rewards.shape != features.shape[:1] or instructions.shape != rewards.shape:
        shapes = features.shape, rewards.shape, instructions.shape
        raise InputError(
            f"{path}: features, rewards and instructions do not belong together, their shapes are {shapes}"
        )
    if not np.isfinite(rewards).all():
        raise InputError(f"{path}: reward {int((~np.isfinite(rewards)).argmax())} is not finite; leave that arm out")
    return Pool(torch.from_numpy(features), rewards, instructions)


GUESSES: dict[str, Guess] = {"neural": predict, "linear": linear.predict}


def search(policy: str, pool: Pool, start: list[int], queries: int, settings: Settings) -> dict[str, float]:
    """One search: what ``policy`` picked after the arms ``start``, and how well it ranks those never asked."""
    asked, free = list(start), ~np.isin(pool.instructions, pool.instructions[start])
    random = np.random.default_rng([settings.seed, 1])
    for _ in range(queries):
        if not free.any():
            raise InputError(f"the pool has too few instructions for {len(start)} + {queries} questions")
        if policy == "random":
            pick = int(random.choice(free.nonzero()[0]))
        else:
            mean, spread = guess(policy, pool, asked, settings)
            pick = int(np.where(free, mean + spread, -np.inf).argmax())
        asked.append(pick)
        free &= pool.instructions != pool.instructions[pick]
    picked = pool.rewards[asked[len(start) :]]
    found = {"mean": float(picked.mean()), "best": float(picked.max())}
    if policy == "random":
        return found
    mean, _ = guess(policy, pool, asked, settings)
    if np.ptp(pool.rewards[free]) == 0:  # nothing is left to rank
        return found | {"rank_correlation": math.nan}
    return found | {"rank_correlation": float(spearmanr(mean[free], pool.rewards[free]).statistic)}


def guess(policy: str, pool: Pool, asked: list[int], settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Guessed reward and spread (N,) of every arm once ``asked`` are known."""
    observed = [(i, float(pool.rewards[i])) for i in asked]
    mean, spread = GUESSES[policy](pool.features, observed, settings)
    return mean.numpy(), spread.numpy()


def initial_arms(pool: Pool, count: int, seed: int) -> list[int]:
    """``count`` arms of different instructions, drawn at random."""
    firsts = np.unique(pool.instructions, return_index=True)[1]
    if not 0 < count < len(firsts):
        raise InputError(f"the pool has {len(firsts)} instructions, which leaves no choice after {count} initial ones")
    return [int(i) for i in np.random.default_rng([seed, 0]).choice(firsts, count, replace=False)]


def compare(pool: Pool, policies: dict[str, tuple[str, Settings]], queries: int, initial: int, seeds: int) -> dict:
    """Every policy (a name, with settings) over the seeds: {row: {measure: values, mean and interval}}."""
    runs: dict[str, list[dict[str, float]]] = {}
    for row, (policy, settings) in policies.items():
        began = time.perf_counter()
        runs[row] = [
            search(policy, pool, initial_arms(pool, initial, seed), queries, replace(settings, seed=seed))
            for seed in range(seeds)
        ]
        for run, control in zip(runs[row], runs["random"], strict=True):
            run["over_random"] = run["mean"] - control["mean"]
        print(f"{row:32} {table_line(summary(runs[row]))}  {time.perf_counter() - began:6.1f} s", flush=True)
    return {row: summary(found) for row, found in runs.items()}


def summary(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Each measure over the seeds: its values, their mean and the interval of that."""
    found = {}
    for name in MEASURES:
        values = [run[name] for run in runs if math.isfinite(run.get(name, math.nan))]  # constant ranks: no correlation
        if values:
            interval = bootstrap_mean(values)
            found[name] = {"mean": float(np.mean(values)), "low": interval.low, "high": interval.high, "values": values}
    return found


def table_line(row: dict[str, Any]) -> str:
    """The measures of a row, each as mean [low, high]."""
    cells = (f"{v['mean']:.3f} [{v['low']:.3f}, {v['high']:.3f}]" if (v := row.get(m)) else "–" for m in MEASURES)
    return "  ".join(f"{cell:22}" for cell in cells)


def grid(nus: list[float], widths: list[int], trainings: list[str]) -> dict[str, tuple[str, Settings]]:
    """Random search, the linear control at every ν, the network at every training, width and ν."""
    rows = {"random": ("random", DEFAULTS)}
    rows |= {f"linear nu={nu:g}": ("linear", replace(DEFAULTS, nu=nu)) for nu in nus}
    for training, width, nu in itertools.product(trainings, widths, nus):
        settings = replace(DEFAULTS, training=training, width=width, nu=nu)
        rows[f"{training} nu={nu:g} width={width}"] = ("neural", settings)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--initial", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--nu", type=_list(float), default=[DEFAULTS.nu], help="one or more, with commas")
    parser.add_argument("--width", type=_list(int), default=[DEFAULTS.width], help="one or more, with commas")
    parser.add_argument("--training", type=_list(str), default=list(TRAININGS), help="one or more, with commas")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    try:
        if args.queries < 1 or args.seeds < 1:
            raise InputError("--queries and --seeds must be at least 1")
        pool = load_pool(args.pool)
        print(f"{len(pool.rewards)} arms, mean reward {pool.rewards.mean():.3f}, best {pool.rewards.max():.3f}")
        print(f"{'':32} " + "  ".join(f"{m.replace('_', ' '):22}" for m in MEASURES))
        rows = grid(args.nu, args.width, args.training)
        found = compare(pool, rows, args.queries, args.initial, args.seeds)
    except InputError as error:
        raise SystemExit(str(error)) from None
    if args.out:
        record = {
            "pool": {
                "arms": len(pool.rewards),
                "instructions": len(np.unique(pool.instructions)),
                "features": pool.features.shape[1],
                "mean": pool.rewards.mean(),
                "best": pool.rewards.max(),
            },
            "queries": args.queries,
            "initial": args.initial,
            "seeds": args.seeds,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "settings": {row: asdict(settings) for row, (_, settings) in rows.items()},
            "rows": found,
        }
        args.out.write_text(json.dumps(record, indent=1) + "\n")


def _list(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    return lambda text: [kind(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
