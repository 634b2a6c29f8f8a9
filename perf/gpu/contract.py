"""The methods' contract on a device: three steps of every method against the same three steps on the CPU.

Full weights are compared with the plain loop that the tests compare them with (``tests/by_hand.py``), LoRA factors
with the trainer on the CPU in fp32.  ``Δ`` is the movement of all weights that train, ``Δ*`` the one on the CPU:

* fp32: no coordinate is more than 5e-5 off (as in the tests), and ``‖Δ - Δ*‖ ≤ 1e-4 ‖Δ*‖``; 2e-3 for MGDA, of which the
  plain loop tries a thousand points. Sophia divides by the curvature: there one coordinate in 200 may go by its
  rounding, and ``‖Δ - Δ*‖ ≤ 0.01 ‖Δ*‖``.
* bf16 compute (autocast; bf16 keeps 8 bits): ``‖Δ - Δ*‖ ≤ 0.05 ‖Δ*‖``, under Sophia, whose steps are signs, ``cos(Δ,
  Δ*) ≥ 0.85``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any
from unittest import mock

import tiny
import torch
from by_hand import hand_written
from method_rows import IDS, LR, ROWS
from torch import Tensor
from transformers.trainer_callback import PrinterCallback

from expunge.combine import MGDA, PrimalDual
from expunge.errors import InputError
from expunge.method import Activations, Method, build
from expunge.models import attach_lora
from expunge.training import reference
from perf.gpu.rows import Differs, Figures, Row

FAR, FAR_FP32, FAR_MGDA, FAR_SOPHIA, FAR_BF16, COSINE = 5e-5, 1e-4, 2e-3, 1e-2, 0.05, 0.85
WEIGHTS = ("full", "lora", "lora_on_bf16")
LIVE = {"full": "copy", "lora": "adapter_off", "lora_on_bf16": "adapter_off"}  # the reference that is run, not cached


def rows(device: torch.device) -> Iterator[Row]:
    """``contract/METHOD/WEIGHTS/COMPUTE``, and ``…/copy`` or ``…/adapter_off`` where a reference is not cached."""
    for at, (name, parameters) in enumerate(ROWS):
        try:
            live = reads_model(build(name, parameters))
        except InputError as error:  # a package is missing: one row says so
            yield Row(f"contract/{IDS[at]}", partial(_raise, error))
            continue
        for weights in WEIGHTS:
            for bf16 in (False, True):
                if weights == "lora_on_bf16" and not bf16:
                    continue
                label = f"contract/{IDS[at]}/{weights}/{'bf16' if bf16 else 'fp32'}"
                measure = partial(compared, at, weights, bf16, device)
                yield Row(label, measure)
                if live:
                    yield Row(f"{label}/{LIVE[weights]}", partial(measure, live=True))


def _raise(error: Exception) -> Figures:
    raise error


def reads_model(method: Method) -> bool:
    """Whether a loss of ``method`` reads more of the reference than log-probabilities, which are always cached."""
    return any(o.reference == "logits" or isinstance(o.reference, Activations) for o in method.objectives.values())


def compared(at: int, weights: str, bf16: bool, device: torch.device, *, live: bool = False) -> Figures:
    """Three steps of contract row ``at`` on ``device`` beside those on the CPU; Differs where they are not alike."""
    name, parameters = ROWS[at]
    trainer = three_steps(at, weights, bf16, device, live=live)
    check_form(trainer, weights, live)
    wanted, multiplier = by_hand(at) if weights == "full" else (movement(on_cpu(at, weights)), None)
    figures = distance(movement(trainer), wanted, build(name, parameters), bf16=bf16)
    if multiplier is not None and not bf16:
        figures |= {
            "multiplier": (own := float(trainer.combine.weights(torch.zeros(2, device=trainer.args.device))[1])),
            "on_cpu": multiplier,
        }
        if abs(own - multiplier) > 1e-4 * abs(multiplier):
            raise Differs(f"the multiplier is {own:.6g}, and {multiplier:.6g} on the CPU", figures)
    return figures


def three_steps(at: int, weights: str, bf16: bool, device: torch.device, *, live: bool = False) -> Any:
    """The trainer of contract row ``at`` after its three steps."""
    name, parameters = ROWS[at]
    kw = {"use_cpu": device.type == "cpu", "bf16": bf16, "learning_rate": LR}
    with uncached() if live else nullcontext():
        trainer = tiny.trainer(build(name, parameters), start(weights, keep_bf16=bf16), **kw)
        trainer.remove_callback(PrinterCallback)
        trainer.start = values(trainer.model)
        trainer.train()
    return trainer


def start(weights: str, *, keep_bf16: bool = True) -> Any:
    """The tiny model with all its weights to train or LoRA factors, on a base that is rounded to bf16 or not."""
    model = tiny.model()
    if weights == "full":
        return model
    if weights == "lora_on_bf16":
        model = model.to(torch.bfloat16)
        model = model if keep_bf16 else model.float()
    return attach_lora(model, r=2, alpha=4, seed=0)


def uncached() -> AbstractContextManager[Any]:
    """While open, a reference of logits or activations is a model: its cache counts as too large to be worth it."""
    return mock.patch.object(reference, "hidden_bytes", return_value=float("inf"))


def check_form(trainer: Any, weights: str, live: bool) -> None:
    """Raise where the reference is not in the form that the row is called after."""
    held = trainer.reference
    if live and (held.hidden or held.activations or (held.copy is None) != (weights != "full")):
        raise AssertionError(f"the reference should be the {LIVE[weights]}, and is {held}")
    if not live and held.copy is not None:
        raise AssertionError("the reference should be cached, and is a copy")


def values(model: Any) -> Tensor:
    """The weights that train, flat, in float64 on the CPU."""
    return torch.cat([p.detach().cpu().double().flatten() for p in model.parameters() if p.requires_grad])


def movement(trainer: Any) -> Tensor:
    """What the steps added to the weights that train."""
    return values(trainer.model) - trainer.start


@functools.cache
def by_hand(at: int) -> tuple[Tensor, float | None]:
    """The movement and the last multiplier of contract row ``at`` in the plain loop, fp32 on the CPU."""
    name, parameters = ROWS[at]
    method = build(name, parameters)
    model, multiplier = hand_written(method)
    return values(model) - values(tiny.model()), multiplier if isinstance(method.combine, PrimalDual) else None


@functools.cache
def on_cpu(at: int, weights: str) -> Any:
    """The trainer of contract row ``at`` after three steps in fp32 on the CPU."""
    return three_steps(at, weights, False, torch.device("cpu"))


def distance(got: Tensor, wanted: Tensor, method: Method, *, bf16: bool) -> dict[str, float]:
    """How far ``got`` is from ``wanted``; Differs where that is outside of the tolerances above."""
    off = (got - wanted).abs()
    found = {
        "relative": float((got - wanted).norm() / wanted.norm()),
        "largest": float(off.max()),
        "cosine": float(got @ wanted / (got.norm() * wanted.norm())),
        "moved": float(wanted.norm()),
    }
    if bf16:
        right = found["cosine"] >= COSINE if method.optimizer else found["relative"] <= FAR_BF16
    elif method.optimizer:
        right = float((off > FAR).double().mean()) < 0.005 and found["relative"] <= FAR_SOPHIA
    else:
        right = found["largest"] <= FAR and found["relative"] <= (
            FAR_MGDA if isinstance(method.combine, MGDA) else FAR_FP32
        )
    if not (right and found["moved"] > 1e-4):
        raise Differs(
            f"other steps than on the CPU: relative {found['relative']:.1e}, cosine {found['cosine']:.4f}", found
        )
    return found
