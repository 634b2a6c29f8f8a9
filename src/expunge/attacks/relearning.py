r"""Attacks that train: how few steps on other rows bring the measured ones back.

What was forgotten is learned again from rows whose answers are not measured: a few other forget rows, other facts of
the same people, text that has nothing to do with them.  A model that never saw the rows cannot learn them so; one that
hides them often does within a few steps (Hu et al. 2024, arXiv:2406.13356; Deeb and Roger 2024, arXiv:2410.08827; Łucki
et al. 2024, arXiv:2409.18025).

Which learning rate brings most back differs between models, so a few are tried, on all weights and on LoRA.  The best
is chosen for each half of the measured rows on the *other* half (:func:`chosen_apart`): no row is reported under a
setting that was chosen by it, and a control gets the same choice.

Cost, of one attack: settings · steps · rows a step · tokens a row to train on, and settings · ``len(at)`` calls of
``measure``.  With :data:`PLAN`, and TOFU's rows of 92 tokens on SmolLM2-135M on two cores (120 tokens a second), about
50 s of training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from expunge.attacks.attack import Array, Attack, Measure, Point, Subject
from expunge.attacks.restore import held_quantized
from expunge.attacks.train import Setting, drawn, train
from expunge.data import names
from expunge.data.example import Row, evenly
from expunge.errors import InputError

FEW = 8  # rows of `known` that an attacker with a few rows has
RATES = (2e-5, 1e-4, 3e-4, 1e-3)


@dataclass(frozen=True)
class Plan:
    """The ``settings`` that are tried, the steps ``at`` which knowledge is measured, and rows a step."""

    settings: tuple[Setting, ...]
    at: tuple[int, ...] = (2, 4, 8)
    size: int = 4


PLAN = Plan((Setting(1e-4), Setting(1e-3, lora=True)))
"""The quick one: 2 settings, 8 steps."""
SWEEP = Plan(tuple(Setting(rate, lora) for lora in (False, True) for rate in RATES), at=(1, 2, 4, 8, 16, 32, 64, 128))
"""The thorough one: 8 settings, 128 steps."""


# -- the four texts -------------------------------------------------------------------------------------------------------
def few(subject: Subject, measure: Measure, *, plan: Plan = PLAN) -> list[Point]:
    """Trained on a few rows of ``subject.known``: other rows to forget, which the attacker has."""
    return relearned(subject, measure, [evenly(subject.known, FEW)], plan)


def facts(subject: Subject, measure: Measure, *, plan: Plan = PLAN) -> list[Point]:
    """Trained on other facts of the same people (RTT): the rows of ``subject.known`` that :func:`of_same_names` finds.

    ``subject.known`` must hold other questions about the people (books, firms) of ``subject.forget``, whose answers do
    not tell the measured ones.  Raises InputError where no row does.  Deeb and Roger 2024, arXiv:2410.08827.
    """
    rows = of_same_names(subject.known, subject.forget, [*subject.retain, *subject.unrelated])
    if not rows:
        raise InputError(
            "no row that the attacker has shares a name with a row that is measured; to relearn other facts of the same "
            "people, leave more questions about each of them in the forget set"
        )
    return relearned(subject, measure, [rows], plan)


def benign(subject: Subject, measure: Measure, *, plan: Plan = PLAN) -> list[Point]:
    """Trained on text that has nothing to do with the rows: ten such samples undo RMU (arXiv:2409.18025)."""
    return relearned(subject, measure, [subject.unrelated], plan)


def benign_then_known(subject: Subject, measure: Measure, *, plan: Plan = PLAN) -> list[Point]:
    """Trained on unrelated text for as many steps as ``plan`` has, then on a few known rows; measured in the second part.

    The strength counts the steps of the second part.
    """
    return relearned(subject, measure, [subject.unrelated, evenly(subject.known, FEW)], plan)


def relearned(subject: Subject, measure: Measure, phases: Sequence[Sequence[Row]], plan: Plan) -> list[Point]:
    """The curve over the steps on the last of ``phases``, each as long as the plan; the settings chosen apart.

    A model that is held in 4 or 8 bits is trained by the plan's LoRA settings alone; InputError where it has none.
    """
    settings = [s for s in plan.settings if s.lora or not held_quantized(subject.model)]
    if not settings:
        raise InputError(
            "a model that is held in 4 or 8 bits is trained with LoRA alone, and the plan has no such setting"
        )
    curves = {s: curve(subject, measure, phases, s, plan) for s in settings}
    known, labels = chosen_apart(curves, halves(len(subject.forget), subject.seed))
    return [Point(step, f"{step} steps ({labels})", row) for step, row in zip(plan.at, known, strict=True)]


def curve(subject: Subject, measure: Measure, phases: Sequence[Sequence[Row]], setting: Setting, plan: Plan) -> Array:
    """(steps, n) what is known after each of ``plan.at`` steps on the last of ``phases``; 0 once training has diverged."""
    steps, seed = max(plan.at), subject.seed
    batches = [b for k, rows in enumerate(phases) for b in drawn(rows, steps, plan.size, seed + k)]
    before = steps * (len(phases) - 1)
    out = np.zeros((len(plan.at), len(subject.forget)))

    def after(step: int) -> None:
        if step - before in plan.at:
            out[plan.at.index(step - before)] = measure(subject.model)

    train(subject.model, subject.tokenizer, batches, setting, after, seed=seed, chat_template=subject.templated)
    return out


# -- which setting --------------------------------------------------------------------------------------------------------
def halves(n: int, seed: int) -> NDArray[np.bool_]:
    """(n,) whether a row is in the first half, ⌈n / 2⌉ of them at random."""
    first = np.zeros(n, dtype=bool)
    first[np.random.default_rng(seed).permutation(n)[: (n + 1) // 2]] = True
    return first


def chosen_apart(curves: Mapping[Setting, Array], first: NDArray[np.bool_]) -> tuple[Array, str]:
    """Of (steps, n) a setting: for each half of the rows, the curve of the setting that is best on the other half.

    Best is the largest mean over steps and rows; of equals, and where a half is empty, the first setting.  Also the
    names of the settings chosen.
    """
    settings = list(curves)
    out = np.empty_like(curves[settings[0]])
    chosen = []
    for half in (first, ~first):
        scores = [float(curves[s][:, ~half].mean()) if (~half).any() else 0.0 for s in settings]
        best = settings[int(np.argmax(scores))]
        out[:, half] = curves[best][:, half]
        chosen += [str(best)] if half.any() else []
    return out, "; ".join(dict.fromkeys(chosen))


# -- which rows -----------------------------------------------------------------------------------------------------------
def of_same_names(rows: Sequence[Row], forget: Sequence[Row], others: Sequence[Row]) -> list[Row]:
    """The ``rows`` that share a name with a row of ``forget``, by :func:`~expunge.data.names.names`; words of ``others``
    are no names.
    """
    known = names.names([names.text(row) for row in [*rows, *forget]], map(names.text, others))
    measured = {name for row in forget for name in names.named(names.text(row), known)}
    return [row for row in rows if names.named(names.text(row), measured)]


make = partial(Attack, family="relearning", unit="steps", trains=True, random=True)
ATTACKS = (
    make("relearning-few", summary="trained on a few other forget rows", run=few, needs=("known",)),
    make("relearning-facts", summary="trained on other facts of the same people", run=facts, needs=("known",)),
    make("relearning-benign", summary="trained on unrelated text", run=benign, needs=("unrelated",)),
    make(
        "relearning-benign-then-few",
        summary="trained on unrelated text, then on a few other forget rows",
        run=benign_then_known,
        needs=("unrelated", "known"),
    ),
)
