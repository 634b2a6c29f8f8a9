"""One optimizer step of PDU, NPO + KL and BLUR-NPO: the library against the naive trainer, in one run.

    python -m perf.step [--rows FORGET RETAIN] [--repeats 4] [--out results/step.json]

Time: both sides draw from the same rows (8 forget + 8 retain a step), each in its own batches (the naive trainer's are
random and padded to the longest), in turn, A B A B; the ratio is of the sums over the repeats.
What the library caches of the reference is filled before the first step; the second ratio adds to each step its share
of that, over a run of ten epochs.  Memory: a process of its own for each; the peak of resident memory after loading,
over weights, one gradient and AdamW's two moments.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from expunge import methods
from expunge.data.chat import encode
from expunge.data.collate import collate
from expunge.data.sources import load_rows
from expunge.data.streams import PairedDataset
from expunge.models import load
from expunge.training.reference import frozen_copy
from expunge.training.trainer import UnlearningTrainer
from expunge.unlearning.settings import make
from expunge.unlearning.train import training_arguments
from perf import memory, naive

BATCH = 8
EPOCHS = 10  # how long a run the library's caches are filled for
METHODS = {
    "pdu": partial(methods.pdu, budget=1.0),
    "npo_kl": partial(methods.npo, retain="kl"),
    "blur_npo": partial(methods.blur_npo),
}
DEMO = Path(__file__).parent.parent / "src" / "expunge" / "demo"


def examples(args: Any, tokenizer: Any) -> dict[str, list[Any]]:
    """The rows of both streams as tokens."""
    pairs = zip(("forget", "retain"), args.rows, strict=True)
    return {name: [encode(r, tokenizer) for r in load_rows(source)] for name, source in pairs}


class Library:
    """The library's step: forward, backward, combination and AdamW, as the trainer takes it."""

    def __init__(self, name: str, model: Any, tokenizer: Any, streams: dict[str, list[Any]]):
        method = METHODS[name]()
        settings = make({"model": "-", "forget": "-", "training": {"num_train_epochs": EPOCHS, "use_cpu": True}})
        began = time.perf_counter()
        self.trainer = UnlearningTrainer(
            model=model,
            args=training_arguments(settings, method, BATCH, Path(tempfile.mkdtemp())),
            train_dataset=PairedDataset(streams, seed=0, window=BATCH),
            data_collator=partial(collate, pad_id=tokenizer.pad_token_id),
            method=method,
        )
        self.fill_seconds = time.perf_counter() - began
        if name == "pdu":
            self.trainer.combine = self.trainer.combine.settle(1, lambda _: 1.0)
        self.trainer.current_gradient_accumulation_steps = 1
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)

    def step(self, k: int) -> None:
        """Step ``k`` of the run, in whole windows of the data."""
        data = self.trainer.train_dataset
        epoch, at = divmod(k, len(data) // BATCH)
        first = epoch * len(data) + at * BATCH
        batch = self.trainer.data_collator([data[i] for i in range(first, first + BATCH)])
        self.trainer.training_step(self.trainer.model, batch)
        torch.nn.utils.clip_grad_norm_(self.trainer.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


class Naive:
    """The published trainers' step, on random batches of the same rows; ``autocast`` is open in forward and backward."""

    def __init__(
        self,
        name: str,
        model: Any,
        tokenizer: Any,
        streams: Mapping[str, Sequence[Any]],
        *,
        batch: int = BATCH,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        **parameters: Any,
    ):
        self.name, self.model, self.streams, self.pad = name, model, streams, tokenizer.pad_token_id
        self.batch, self.autocast, self.parameters = batch, autocast, parameters
        self.reference = None if name == "pdu" else frozen_copy(model)
        self.optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0)
        self.rng = random.Random(0)
        self.fill_seconds = 0.0

    def draw(self) -> list[list[Any]]:
        """Rows of each stream, at random."""
        return [self.rng.sample(rows, self.batch) for rows in self.streams.values()]

    def step(self, k: int) -> None:
        """One step on rows drawn at random."""
        self.step_on(self.draw())

    def step_on(self, rows: Sequence[Sequence[Any]]) -> None:
        """One step on the ``rows`` of each stream."""
        batches = []
        for some in rows:
            flat = [{"input_ids": e.input_ids, "labels": e.labels, "index": 0} for e in some]
            made = collate(flat, pad_id=self.pad)
            batches.append({k: made[k].to(self.model.device) for k in ("input_ids", "attention_mask", "labels")})
        self.model.train()
        before = [self.reference] if self.reference is not None else []
        with self.autocast():
            naive.STEPS[self.name](self.model, *before, *batches, **self.parameters)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


SIDES = {"library": Library, "naive": Naive}


def timed(name: str, args: Any) -> dict[str, Any]:
    """Seconds a step of both sides, interleaved, after one warm-up step each."""
    loaded = load(args.model)
    streams = examples(args, loaded.tokenizer)
    sides = {s: make_side(name, loaded.model, loaded.tokenizer, streams) for s, make_side in SIDES.items()}
    seconds: dict[str, list[float]] = {s: [] for s in sides}
    for side in sides.values():
        side.step(0)
    for k in range(1, args.repeats + 1):
        for s, side in sides.items():
            began = time.perf_counter()
            side.step(k)
            seconds[s].append(time.perf_counter() - began)
    fill = sides["library"].fill_seconds
    share = fill * args.repeats / (EPOCHS * len(streams["forget"]) // BATCH)
    return {
        "seconds": {s: round(statistics.median(v), 3) for s, v in seconds.items()},
        "all_seconds": {s: [round(x, 3) for x in v] for s, v in seconds.items()},
        "time_ratio": round(sum(seconds["naive"]) / sum(seconds["library"]), 3),
        "reference_fill_seconds": round(fill, 2),
        "time_ratio_with_fill": round(sum(seconds["naive"]) / (sum(seconds["library"]) + share), 3),
    }


def extra_memory(name: str, side: str, args: Any) -> float:
    """Peak GiB over weights, one gradient and AdamW's state, of a fresh process that takes two steps."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "perf.step",
            "--memory-of",
            name,
            side,
            "--rows",
            *args.rows,
            "--model",
            args.model,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def memory_here(name: str, side: str, args: Any) -> float:
    """What :func:`extra_memory` runs in its own process."""
    loaded = load(args.model)
    streams = examples(args, loaded.tokenizer)
    parameters = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    at_start = memory.now()
    memory.reset_peak()  # that of loading is not the step's
    taken = SIDES[side](name, loaded.model, loaded.tokenizer, streams)
    for k in range(2):
        taken.step(k)
    # weights are in at_start; one gradient and AdamW's two moments come on top of it
    return (memory.peak() - at_start - 3 * parameters) / 2**30


def main() -> None:
    """Run everything and print a table; --out writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rows", nargs=2, default=[str(DEMO / "forget.jsonl"), str(DEMO / "retain.jsonl")])
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--memory-of", nargs=2, metavar=("METHOD", "SIDE"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.memory_of:
        print(memory_here(*args.memory_of, args))
        return
    found = {}
    for name in args.methods:
        row = timed(name, args)
        memory = {s: round(extra_memory(name, s, args), 3) for s in SIDES}
        found[name] = row | {"extra_gib": memory, "memory_ratio": round(memory["naive"] / memory["library"], 3)}
        print(
            f"{name:10} time {row['seconds']['naive']:.2f} s -> {row['seconds']['library']:.2f} s, "
            f"{row['time_ratio']:.2f} x ({row['time_ratio_with_fill']:.2f} x with the reference filled in "
            f"{row['reference_fill_seconds']} s);  "
            f"extra memory {memory['naive']:.2f} -> {memory['library']:.2f} GiB, {found[name]['memory_ratio']:.2f} x",
            flush=True,
        )
    if args.out:
        args.out.write_text(
            json.dumps({"threads": torch.get_num_threads(), "torch": torch.__version__, "steps": found}, indent=1)
        )


if __name__ == "__main__":
    main()
