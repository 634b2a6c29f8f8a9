"""What forgetting costs under AdamW and under Sophia: the retain loss at the step where as much is forgotten.

    python -m perf.optimizers [--method grad_diff] [--seeds 3] [--out results/optimizers.json]

A two-layer Llama learns 32 + 96 rows of random tokens by heart; then each optimizer, at each of a few learning rates,
unlearns the 32 until their NLL reaches 3 nats a token.  The retain NLL there (between two steps, by interpolation) is the
price.  A smaller rate is cheaper and takes more steps, so compare lines of like steps.  Random rows share nothing: this
says what a step spoils, not what a real model knows.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import statistics
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from expunge.bench.teach import NLL
from expunge.data.collate import collate
from expunge.data.example import Example
from expunge.data.streams import PairedDataset
from expunge.forward.view import see
from expunge.method import Method, build
from expunge.sophia import OPTIMIZERS, Settings
from expunge.training.trainer import UnlearningTrainer

LEVEL = 3.0  # nats per token of the forget rows
VOCABULARY, LENGTH, ROWS, BATCH, MOST = 64, 12, (32, 96), 8, 250
RATES = (1e-4, 3e-4, 1e-3)
CHOICES: dict[str, Settings | None] = {
    **OPTIMIZERS,
    "sophia rho=4": Settings(rho=4.0),
    "sophia hutchinson": Settings(curvature="hutchinson"),
}


def rows(n: int, g: torch.Generator) -> list[Example]:
    """Rows of random tokens; the first two are the prompt."""
    made = torch.randint(1, VOCABULARY, (n, LENGTH), generator=g).tolist()
    return [Example(tuple(ids), (-100, -100, *ids[2:])) for ids in made]


def nll(model: Any, examples: list[Example]) -> float:
    """Mean NLL per token of all rows."""
    ids, labels = (torch.tensor([getattr(e, k) for e in examples]) for k in ("input_ids", "labels"))
    with torch.no_grad():
        view = see(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
        return -view.token_logp.mean().item()


class Watch(TrainerCallback):
    """Forget and retain NLL after each step; stops at the level, or where nothing is left to know."""

    def __init__(self, model: Any, streams: dict[str, list[Example]]):
        self.model, self.streams = model, streams
        self.path = [self.look()]

    def look(self) -> tuple[float, float]:
        """(forget, retain) now."""
        return nll(self.model, self.streams["forget"]), nll(self.model, self.streams["retain"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the two numbers."""
        self.path.append(self.look())
        control.should_training_stop = self.path[-1][0] >= LEVEL


def train(
    model: Any, method: Method, streams: dict[str, list[Example]], rate: float, steps: int, seed: int, *more: Any
):
    """Train in place, without warm-up or decay."""
    with tempfile.TemporaryDirectory() as out:
        args = TrainingArguments(
            out, per_device_train_batch_size=BATCH, max_steps=steps, learning_rate=rate, lr_scheduler_type="constant",
            optim="adamw_torch", weight_decay=0.0, use_cpu=True, report_to=[], save_strategy="no", seed=seed,
            remove_unused_columns=False, disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        trainer = UnlearningTrainer(
            model=model, args=args, method=method, callbacks=list(more), data_collator=partial(collate, pad_id=0),
            train_dataset=PairedDataset({s: streams[s] for s in method.streams}, seed=seed, window=BATCH),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def price(path: list[tuple[float, float]]) -> float | None:
    """The retain NLL where the forget NLL crosses the level; None where it never does."""
    for (f0, r0), (f1, r1) in itertools.pairwise(path):
        if f1 >= LEVEL:
            return r0 + (r1 - r0) * (LEVEL - f0) / (f1 - f0)
    return None


def one(name: str, seed: int) -> dict[str, dict[str, Any]]:
    """Every optimizer at every rate from the same taught model."""
    g = torch.Generator().manual_seed(seed)
    streams = dict(zip(("forget", "retain"), (rows(n, g) for n in ROWS), strict=True))
    torch.manual_seed(seed)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    taught = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, pad_token_id=0, **sizes))
    train(taught, NLL, {"forget": streams["forget"] + streams["retain"]}, 3e-3, 800, seed)
    said: dict[str, dict[str, Any]] = {"taught": {s: nll(taught, e) for s, e in streams.items()}}
    for label, optimizer in CHOICES.items():
        for rate in RATES:
            model = copy.deepcopy(taught)
            watch = Watch(model, streams)
            train(model, replace(build(name), optimizer=optimizer), streams, rate, MOST, seed, watch)
            said.setdefault(label, {})[str(rate)] = {"retain": price(watch.path), "steps": len(watch.path) - 1}
    return said


def main() -> None:
    """Run, print a line an optimizer, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="grad_diff")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    runs = [one(args.method, seed) for seed in range(args.seeds)]
    print("taught:", [run["taught"] for run in runs])
    for label in CHOICES:
        for rate in map(str, RATES):
            found = [run[label][rate] for run in runs]
            prices = [f["retain"] for f in found]
            mean = "never there" if None in prices else f"{statistics.mean(prices):.3f}"
            each = ", ".join("never" if p is None else f"{p:.3f}" for p in prices)
            print(f"{label:20} {rate:>7}  retain NLL {mean}  ({each})  steps {[f['steps'] for f in found]}")
    if args.out:
        args.out.write_text(json.dumps({"method": args.method, "level": LEVEL, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
