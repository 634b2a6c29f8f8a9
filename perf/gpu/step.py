"""How fast and how small is a step on a GPU?  Models of published shapes, random weights, rows as long as TOFU's.

    python -m perf.gpu.step --device cuda --out results/NAME/step.json
    python -m perf.gpu.step --device cpu --tiny --out step.json              # a rehearsal in a minute
    python -m perf.gpu.step --table results/NAME/step.json docs/performance.md

Rows: ``SHAPE/BATCH/METHOD/SIDE``, perhaps ``/checkpointing``.  Shapes: Llama-3.1-8B (bf16, LoRA r 16 on all linear
layers, factors fp32) and Llama-3.2-1B (fp32, all weights train), computing in bf16.  ``8+8`` is rows of each stream a
step.  Sides: the ``library``'s trainer as ``expunge run`` uses it, its whole loop; the ``naive`` trainer of
``perf/naive.py``, the same model and precision, a copy of it as reference; and ``floor``, forward and backward of the
decoder alone (no head, loss, optimizer) on as many real tokens without padding.  AdamW's step is part of both
trainers'; the learning rate is next to 0, so every row begins alike.

Figures: ``seconds`` a step (mean over steps after a warm-up, nothing waits in between), ``tokens`` a second (real
ones of both streams), ``share`` of the matrix rate measured in the same run (``expunge.plan.work`` has the formulas),
``gib`` peak memory of the row, the model included (CUDA: allocated; CPU: resident), ``fill_seconds`` of what the
library computes once before training, and, where weights are many, ``copy_seconds`` of the copy in main memory that a
run takes every ``copy_every`` steps (not in ``seconds``). What does not fit is a row too: ``out of memory``.  Each
row is written at once; started again, the rest is measured.  Exit status: 1 a row failed, 75 rows are left, 0 all done.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback

from expunge import methods, models
from expunge.data.collate import collate
from expunge.data.example import Example
from expunge.data.streams import PairedDataset
from expunge.forward import layers
from expunge.forward.view import IGNORE
from expunge.method import Method, fitted
from expunge.training import finite
from expunge.training.reference import layer_read
from expunge.training.trainer import UnlearningTrainer
from expunge.unlearning.settings import make
from expunge.unlearning.train import training_arguments
from perf import memory
from perf.gpu import lengths, rows, work
from perf.gpu.shapes import SHAPES, TINY, Shape
from perf.gpu.table import write_table
from perf.step import Naive

R, ALPHA = 16, 32.0
COEFFICIENT = 20.0  # of RMU: its value changes no time
RATE = 1e-12
RUN = 500  # steps of the run that the measured ones are the first of: ten epochs of 400 rows in eights
METHODS: Mapping[str, Callable[..., Method]] = {
    "pdu": partial(methods.pdu, budget=1.0),
    "blur_npo": methods.blur_npo,
    "npo_kl": partial(methods.npo, retain="kl"),
    "npo": methods.npo,
    "rmu": partial(methods.rmu, steering_coefficient=COEFFICIENT),
}
Streams = Mapping[str, Sequence[Example]]


@dataclass
class Bench:
    """A shape on a device: its model, made when a row first needs it, and rows to train on."""

    shape: Shape
    device: torch.device
    warm: int
    repeats: int
    base: Any = None

    @property
    def streams(self) -> dict[str, list[Example]]:
        """Rows of TOFU's lengths."""
        vocabulary = self.shape.sizes["vocab_size"]
        return {
            name: lengths.examples(pairs[: self.shape.rows], vocabulary, seed)
            for seed, (name, pairs) in enumerate(lengths.table().items())
        }

    def model(self) -> Any:
        """The base model as it was made: no adapter, no gradients."""
        if self.base is None:
            self.base = self.shape.model(self.device)
        self.base.gradient_checkpointing_disable()
        self.base.requires_grad_(True)
        for p in self.base.parameters():
            p.grad = None
        return self.base

    def drop(self) -> None:
        """Make room for the next shape."""
        self.base = None
        free(self.device)

    def autocast(self) -> AbstractContextManager[Any]:
        """Computing in bf16."""
        return torch.autocast(self.device.type, torch.bfloat16)


def prepared(bench: Bench, name: str) -> tuple[Any, Method]:
    """The model with what trains under the method, all weights or LoRA factors, and the method with its choices made."""
    base = bench.model()
    method = fitted(METHODS[name](), base, [])
    if not bench.shape.lora:
        if method.trainable:
            models.train_only(base, method.trainable)
        return base, method
    chosen = models.lora_targets(base, method.trainable) if method.trainable else {}
    return models.attach_lora(base, r=R, alpha=ALPHA, **chosen), method


def counted(streams: Mapping[str, Sequence[Example]], steps: int) -> work.Tokens:
    """Real and labelled tokens a step of the rows that ``steps`` steps took."""
    return {
        name: (
            round(sum(len(e.input_ids) for e in some) / steps),
            round(sum(sum(y != IGNORE for y in e.labels[1:]) for e in some) / steps),
        )
        for name, some in streams.items()
    }


class Clock(TrainerCallback):
    """Times the steps after a warm-up without waiting for the device in between, then ends the training."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.seconds = bench, 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.bench.warm:
            work.synchronize(self.bench.device)
            self.began = work.time.perf_counter()
        if state.global_step == self.bench.warm + self.bench.repeats:
            work.synchronize(self.bench.device)
            self.seconds = (work.time.perf_counter() - self.began) / self.bench.repeats
            control.should_training_stop = True


def library(bench: Bench, name: str, batch: int, *, checkpointing: bool, rate: float) -> rows.Figures:
    """The library's step, in its trainer's loop."""
    memory.reset_peak(bench.device)
    net, method = prepared(bench, name)
    training = {
        "max_steps": RUN, "learning_rate": RATE, "weight_decay": 0.0, "bf16": True, "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": 1, "gradient_checkpointing": checkpointing, "disable_tqdm": True,
        "use_cpu": bench.device.type == "cpu",
    }  # fmt: skip
    settings = make(
        {"model": "-", "forget": "-", "training": training} | ({"adapter": "lora"} if bench.shape.lora else {})
    )
    streams, clock = bench.streams, Clock(bench)
    data = PairedDataset(streams, seed=0, window=batch)
    with tempfile.TemporaryDirectory() as folder:
        build = partial(
            UnlearningTrainer,
            model=net,
            args=training_arguments(settings, method, bench.shape.rows, Path(folder)),
            train_dataset=data,
            data_collator=partial(collate, pad_id=0),
            method=method,
            callbacks=[clock],
        )
        trainer: Any = None

        def fill() -> None:
            nonlocal trainer
            trainer = build()

        fill_seconds = work.timed(fill, bench.device)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    seen = range(bench.warm * batch, (bench.warm + bench.repeats) * batch)
    taken = {s: [_example(data[k][s]) for k in seen] for s in streams}
    found = figures(bench, net, method, counted(taken, bench.repeats), clock.seconds, rate)
    return found | {"fill_seconds": fill_seconds, **copying(net, bench.device)}


def _example(row: Mapping[str, Any]) -> Example:
    return Example(row["input_ids"], row["labels"])


def copying(net: Any, device: torch.device) -> dict[str, float]:
    """What the copy of good weights costs that a long run takes now and then."""
    every = finite.period(net, RUN)
    return (
        {"copy_every": every, "copy_seconds": work.timed(lambda: finite.copy_of(net, 0), device)} if every > 1 else {}
    )


def naive(bench: Bench, name: str, batch: int, *, checkpointing: bool, rate: float) -> rows.Figures:
    """The naive trainer's step."""
    memory.reset_peak(bench.device)
    net, method = prepared(bench, name)
    if checkpointing:
        net.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        net.config.use_cache = False
    what = layer_read(method.objectives)
    steer = {"layer": what.layer, "steering_coefficient": COEFFICIENT} if what else {}
    side = Naive(
        name, net, SimpleNamespace(pad_token_id=0), bench.streams, batch=batch, autocast=bench.autocast, **steer
    )
    drawn = [side.draw() for _ in range(bench.warm + bench.repeats)]
    for some in drawn[: bench.warm]:
        side.step_on(some)

    def steps() -> None:
        for some in drawn[bench.warm :]:
            side.step_on(some)

    seconds = work.timed(steps, bench.device) / bench.repeats
    taken = {stream: [e for some in drawn[bench.warm :] for e in some[at]] for at, stream in enumerate(bench.streams)}
    return figures(bench, net, method, counted(taken, bench.repeats), seconds, rate)


def floor(bench: Bench, name: str, batch: int, *, checkpointing: bool, rate: float) -> rows.Figures:
    """Forward and backward of the decoder alone, or of its layers that RMU runs, on equally long rows."""
    memory.reset_peak(bench.device)
    net, method = prepared(bench, name)
    base = net.get_base_model() if bench.shape.lora else net
    what = layer_read(method.objectives)
    mean = {s: round(statistics.mean(len(e.input_ids) for e in some)) for s, some in bench.streams.items()}
    ids = {
        s: torch.randint(1, bench.shape.sizes["vocab_size"], (batch, n), device=bench.device) for s, n in mean.items()
    }

    def step() -> None:
        with layers.up_to(base, what.layer) if what else nullcontext():
            for some in ids.values():
                with bench.autocast():
                    hidden = base.model(input_ids=some, use_cache=False).last_hidden_state
                hidden.backward(torch.ones_like(hidden))
                net.zero_grad()

    base.train()
    for _ in range(bench.warm):
        step()
    seconds = work.timed(lambda: [step() for _ in range(bench.repeats)], bench.device) / bench.repeats
    tokens = {s: (batch * n, 0) for s, n in mean.items()}
    return figures(bench, net, method, tokens, seconds, rate)


def figures(
    bench: Bench, net: Any, method: Method, tokens: work.Tokens, seconds: float, rate: float
) -> dict[str, float]:
    """What a row holds."""
    real = sum(t for t, _ in tokens.values())
    needed = work.operations(net, method, tokens)
    return {
        "seconds": seconds,
        "tokens_a_step": real,
        "tokens": real / seconds,
        "operations": needed,
        "share": needed / seconds / rate,
        "gib": memory.peak(bench.device) / 2**30,
    }


SIDES: Mapping[str, Callable[..., rows.Figures]] = {"library": library, "naive": naive, "floor": floor}


def every_row(shapes: Mapping[str, Shape], device: torch.device, warm: int, repeats: int) -> Iterator[rows.Row]:
    """All rows, shape by shape; small batches before large ones, PDU and BLUR before the others."""
    for label, shape in shapes.items():
        bench, rate = Bench(shape, device, warm, repeats), partial(_rate, device)
        for batch in shape.batches:
            large = batch == shape.batches[-1]
            for name, side in itertools.product(METHODS, ("library", "naive")):
                for checkpointing in (False, True) if shape.lora and large else (False,):
                    end = "/checkpointing" if checkpointing else ""
                    measure = partial(one, bench, side, name, batch, checkpointing, rate)
                    yield rows.Row(f"{label}/{batch}+{batch}/{name}/{side}{end}", measure)
            for name in ("pdu", "rmu"):  # that of all layers, and that of the lower ones
                yield rows.Row(
                    f"{label}/{batch}+{batch}/{name}/floor", partial(one, bench, "floor", name, batch, False, rate)
                )
        yield rows.Row(f"{label}/end", partial(_end, bench))


_RATES: dict[str, float] = {}


def _rate(device: torch.device) -> float:
    """The device's matrix rate, measured once."""
    if str(device) not in _RATES:
        _RATES[str(device)] = work.matrix_rate(device, 8192 if device.type == "cuda" else 256)
    return _RATES[str(device)]


def _end(bench: Bench) -> rows.Figures:
    bench.drop()
    return {"rate": _rate(bench.device)}


def one(bench: Bench, side: str, name: str, batch: int, checkpointing: bool, rate: Callable[[], float]) -> rows.Figures:
    """One row; whatever becomes of it, the base model is left as it was."""
    measured = rate()
    free(bench.device)  # an error kept what its frames held until now
    try:
        if bench.base is None and bench.device.type == "cuda":  # kernels are loaded when they are first used
            SIDES["library"](bench, name, batch, checkpointing=False, rate=measured)
            _without_adapter(bench.base)
            free(bench.device)
        return SIDES[side](bench, name, batch, checkpointing=checkpointing, rate=measured)
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(str(error)) from None  # without the frames that hold what did not fit
    finally:
        if bench.base is not None and bench.shape.lora:
            _without_adapter(bench.base)
        free(bench.device)


def _without_adapter(base: Any) -> None:
    """Take LoRA layers out of ``base``."""
    for name, module in list(base.named_modules()):
        if hasattr(module, "lora_A") and hasattr(module, "base_layer"):
            base.set_submodule(name, module.base_layer)
    if hasattr(base, "peft_config"):
        del base.peft_config


def free(device: torch.device) -> None:
    """Give back what a row left, so that the next begins alike."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def said(found: rows.Figures) -> str:
    """A row in a few words."""
    if "seconds" not in found:
        return f"{found['rate'] / 1e12:.2f} TFLOP/s"
    speed = f"{found['seconds']:8.4f} s  {found['tokens']:9.0f} tokens/s  {100 * found['share']:5.1f} %"
    return f"{speed}  {found['gib']:6.2f} GiB"


def main(arguments: list[str] | None = None) -> int:
    """Measure, or write the table of a record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes: a rehearsal")
    parser.add_argument("--only", metavar="REGEX", help="the rows whose name it is found in")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no row that long after the start")
    parser.add_argument("--warm", type=int, default=2, help="steps before the clock")
    parser.add_argument("--repeats", type=int, default=5, help="steps on the clock")
    parser.add_argument("--out", type=Path, help="the record, JSON")
    parser.add_argument(
        "--table", nargs=2, type=Path, metavar=("RECORD", "PAGE"), help="write a record's table into a page"
    )
    args = parser.parse_args(arguments)
    if args.table:
        write_table(rows.read(args.table[0]), args.table[1])
        return 0
    device = rows.device_of(args.device)
    rows.silence()
    some = rows.chosen(every_row(TINY if args.tiny else SHAPES, device, args.warm, args.repeats), args.only)
    log = rows.run(some, device, args.out, seconds=rows.left(args.seconds), line=said)
    return rows.exit_status(log, args.out)


if __name__ == "__main__":
    sys.exit(main())
