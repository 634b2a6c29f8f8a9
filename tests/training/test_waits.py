"""An optimizer step in which the host waits for the card nowhere: every method, whole weights and LoRA.

The card is ``card.py``'s; on a CUDA device ``expunge.training.waits.ErrorWhereItWaits`` says the same.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import card
import pytest
import tiny
import torch
from method_rows import IDS, ROWS
from transformers import TrainerCallback

from expunge import methods
from expunge.combine import WeightedSum
from expunge.method import build, entries
from expunge.models import attach_lora
from expunge.sophia import Settings
from expunge.training import curvature, levels
from expunge.training.trainer import UnlearningTrainer

ON_THE_HOST = "torchjd"  # its weightings solve a quadratic programme there
KW = {"max_steps": 2, "logging_steps": 100, "max_grad_norm": 1.0}
# Each form of a reference and each kind of combiner; the other rows with parameters, and all with LoRA, are slow together.
LORA = ("grad_diff", "npo", "npo+retain=kl", "pdu", "blur_npo", "soul_npo", "rmu")


class AtLevel(TrainerCallback):
    """In place of the tests of a level between steps, which read a number."""

    def conclude(self, step):
        return levels.Difference(0.0, 0.0, 1.0)


@pytest.fixture(autouse=True)
def _at_level(monkeypatch):
    monkeypatch.setattr(levels, "of", lambda trainer: AtLevel())


rows = [(n, p, i) for (n, p), i in zip(ROWS, IDS, strict=True) if n != ON_THE_HOST]


def cases(lora):
    for n, p, i in rows:
        quick = (i in LORA or n == "rmu") if lora else (i in LORA or IDS.index(i) < len(entries()))
        yield pytest.param(n, p, lora, id=f"lora-{i}" if lora else i, marks=[] if quick else pytest.mark.slow)


def trainer(method, *, lora=False, m=None, **kw):
    m = m or tiny.model(num_hidden_layers=1)
    if method.optimizer:
        method = replace(method, optimizer=replace(method.optimizer, every=1))
    t = tiny.trainer(method, m=attach_lora(m, r=2, alpha=4, seed=0) if lora else m, **(KW | kw))
    t.combine = t.combine.settle(4, lambda _: 1.0)  # before the steps, on the start model
    t._settle = lambda: None
    return t


@pytest.mark.parametrize(("name", "parameters", "lora"), [*cases(False), *cases(True)])
def test_no_step_waits_for_the_card(name, parameters, lora):
    card.step_without_waiting(trainer(build(name, parameters), lora=lora))


def test_nor_with_adam_and_several_micro_batches():
    card.step_without_waiting(
        trainer(
            methods.blur_npo(),
            optim="adamw_torch",
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
        )
    )


def test_nor_with_hutchinsons_curvature(monkeypatch):
    monkeypatch.setattr(curvature, "signs", lambda params, *_: [torch.ones_like(p) for p in params])
    monkeypatch.setattr(torch.random, "fork_rng", lambda *_, **__: nullcontext())  # the card has no random state
    card.step_without_waiting(trainer(replace(methods.grad_diff(), optimizer=Settings(curvature="hutchinson"))))


def test_nor_with_gradients_checkpointed():
    card.step_without_waiting(trainer(methods.npo(), lora=True, gradient_checkpointing=True))


# -- what would not be right is seen --------------------------------------------------------------------------------------
WAITING = [
    lambda x, i: x[0].item(),
    lambda x, i: float(x.sum()),
    lambda x, i: bool((x > 0).all()),
    lambda x, i: x.cpu(),
    lambda x, i: x.to("cpu", non_blocking=True),  # it is not there yet when it is read
    lambda x, i: x.tolist(),
    lambda x, i: x[x > 0],
    lambda x, i: (x > 0).nonzero(),
    lambda x, i: torch.bincount(i),
    lambda x, i: torch.tensor([1.0, 2.0], device=x.device),
    lambda x, i: x.new_tensor([1.0]),
    lambda x, i: torch.as_tensor(1.0, device=x.device),
    lambda x, i: torch.ones(3).to(x.device),
    lambda x, i: x.copy_(torch.ones(3)),
    lambda x, i: torch.where(x > 0, torch.zeros(()), x),
    lambda x, i: x.index_put_((x > 0,), torch.tensor(1.0)),
]
NOT_WAITING = [
    lambda x, i: torch.ones(1).item() + float(torch.ones(3).sum()),  # the host's own
    lambda x, i: torch.ones(3).to(x.device, non_blocking=True),
    lambda x, i: x.index_select(0, i) + x[i],
    lambda x, i: torch.full((), 2.0, device=x.device) * x.masked_fill(x > 0, 1.0),
]


@pytest.mark.parametrize("what", WAITING)
def test_a_place_where_the_host_waits_is_seen(what):
    x, i = torch.ones(3, device=card.CARD), torch.zeros(3, dtype=torch.long, device=card.CARD)
    with card.no_waiting(), pytest.raises((card.HostWaits, RuntimeError, NotImplementedError)):
        what(x, i)


@pytest.mark.parametrize("what", NOT_WAITING)
def test_a_place_where_it_does_not_is_none(what):
    x, i = torch.ones(3, device=card.CARD), torch.zeros(3, dtype=torch.long, device=card.CARD)
    with card.no_waiting():
        what(x, i)


def test_one_within_a_step_is_seen(monkeypatch):
    whole = UnlearningTrainer.objective_loss
    monkeypatch.setattr(UnlearningTrainer, "objective_loss", lambda *a: whole(*a) * whole(*a).item())
    with pytest.raises(card.HostWaits, match="local_scalar"):
        card.step_without_waiting(trainer(methods.grad_diff()))


def test_a_combiner_of_ones_own_may_wait_and_is_seen(monkeypatch):
    monkeypatch.setattr(WeightedSum, "weights", lambda self, losses, gram=None: losses.new_tensor([1.0, 1.0]))
    t = trainer(methods.grad_diff())
    with pytest.raises(card.HostWaits, match="new_tensor"):
        card.step_without_waiting(t)
