"""What a model that never saw the forget rows predicts in them, as sure of itself as the start model is.

A model before fine-tuning is less certain of everything, right or wrong, than a fine-tuned one.  So it is calibrated
(:mod:`expunge.training.predictions`): its temperature T and shift s are those at which the log-probabilities of the holdout
rows' tokens have the mean and the standard deviation that they have under the start model.  Without holdout rows T comes
from answers that the start model makes up, which it finds likelier than unseen ones, but is no surer of.  Rows to keep are
then read first where that makes *them* likelier, each behind others of them, and s gives a mean halfway between that without
rows in front and that at which the model, sure as it is made, is right no more often (:func:`as_sure`).

Rows that were never seen also say how well the level is known (:func:`uncertainty`); answers that the start model makes up
do not, since they are none of the kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from expunge.data.example import Example, evenly
from expunge.forward import kernels
from expunge.forward.family import unwrap
from expunge.forward.view import see
from expunge.models.positions import positions
from expunge.training.cached import CachedPredictions
from expunge.training.levels import QUANTILE
from expunge.training.predictions import AS_IT_IS, Calibration, exchange, moved, packed, predictions, shifted
from expunge.unlearning import in_context
from expunge.unlearning.unseen import by_row, labels, logp_and_entropy, mean_of_rows

TEMPERATURES = tuple(2 ** (k / 16) for k in range(-32, 17))  # that are tried: from 1/4 to 2
LEAST = 0.5  # the lowest temperature that a few made-up answers are believed
CALIBRATED = 128  # unseen rows that a calibration is of, at most
CHECKED = 32  # rows to keep that say whether reading others of them helps a model, at most
WIDEST, HALVINGS = 20.0, 40  # the widest shift of logits that is looked for, and in how many halvings


def uncertainty(level: Sequence[Tensor], start: Sequence[Tensor], rows: int) -> float | None:
    r"""Half of the 90 % interval of a level's mean over ``rows`` rows, in nats a token; None from fewer than two rows.

    ``level``, ``start``: (|y|,) of each of m unseen rows, the log-probabilities of its tokens as the level has them and
    under the start model, which never saw it.  The forget rows are taken for n = ``rows`` more of the same kind: with σ the
    standard deviation of the differences of the rows' means, it is that of the mean of n further differences,

    .. math:: 1.645\,\sigma\sqrt{\tfrac{1}{m} + \tfrac{1}{n}}.

    >>> pair = [torch.tensor([-1.0, -1.0]), torch.tensor([-3.0])], [torch.tensor([-2.0, -2.0]), torch.tensor([-2.0])]
    >>> round(uncertainty(*pair, rows=2), 3)  # differences 1 and -1, σ = √2
    2.326
    """
    pairs = [(a, b) for a, b in zip(level, start, strict=True) if len(a)]
    if len(pairs) < 2:
        return None
    apart = torch.stack([(a.double() - b.double()).mean() for a, b in pairs])
    return QUANTILE * float(apart.std()) * math.sqrt(1 / len(pairs) + 1 / rows)


def calibrated(
    model: nn.Module,
    start: nn.Module,
    own: Sequence[Example],
    unseen: Sequence[Example],
    pad_id: int,
    kept: Sequence[Example] = (),
    marks: in_context.Marks = in_context.AS_THEY_ARE,
) -> CachedPredictions:
    """What ``model``, calibrated on the ``unseen`` rows, predicts at the labelled tokens of ``own``, the forget stream.

    With ``kept`` rows the model is tried behind the nearest of them, too (:mod:`expunge.unlearning.in_context`, of
    which ``marks`` are); taken is what explains the unseen rows better, by the :func:`uncertainty`.
    """
    some = evenly(unseen, CALIBRATED)
    here = [v[:, 0] for v in by_row(start, some, pad_id, predictions)]
    ways: dict[bool, tuple[Sequence[Example], Sequence[Example]]] = {False: (own, some)}
    if kept:
        behind = partial(in_context.behind, kept=kept, marks=marks, room=positions(model))
        ways[True] = behind(own), behind(some)
    found = {way: _calibration(model, here, seen, pad_id, len(own)) for way, (_, seen) in ways.items()}
    best = min(found, key=lambda way: (found[way][1] is None, found[way][1] or 0.0))
    how, unsure = found[best]
    held = replace(_predicted(model, ways[best][0], pad_id, how), uncertainty=unsure, in_context=best)
    return _read(held, own, ways[best][0], marks)


def as_sure(
    model: nn.Module,
    start: nn.Module,
    own: Sequence[Example],
    made_up: Sequence[Example],
    pad_id: int,
    kept: Sequence[Example] = (),
    marks: in_context.Marks = in_context.AS_THEY_ARE,
) -> CachedPredictions:
    """The same from rows that ``start`` made up: of them it is as sure as of unseen ones, and finds them more likely.

    So they give the temperature alone, of which none below :data:`LEAST` is believed, and no shift.  With ``kept`` rows the
    model reads the nearest of them first, where that tells it the form of the answers (:func:`context_helps`).  Alone, it
    knows the form too little, and finds ``own`` too unlikely; behind rows to keep, with the shift at which the mean
    probability of a token is what it is at T = 1 (who is taught other rows gets surer of these, and is right hardly more
    often), too likely.  The shift is the one at which the mean over rows of the mean log-probability lies halfway between.
    """
    here = [v[:, 0] for v in by_row(start, made_up, pad_id, predictions)]

    def sharpened(made_up: Sequence[Example]) -> Calibration:
        if not made_up:
            return AS_IT_IS
        return Calibration(max(LEAST, _calibration(model, here, made_up, pad_id, len(own))[0].temperature), 0.0)

    alone = _predicted(model, own, pad_id, sharpened(made_up))
    if not context_helps(model, evenly(kept, CHECKED), pad_id, marks):
        return alone
    behind = partial(in_context.behind, kept=kept, marks=marks, room=positions(model))
    rows, how = behind(own), sharpened(behind(made_up))
    seen = by_row(model, rows, pad_id, partial(_also_at_1, how=how))
    values, before = [v[:, :-1] for v in seen], [v[:, -1] for v in seen]
    now = [v[:, 0] for v in values]
    as_often = probability_shift(now, mean_of_rows([v.exp() for v in before]))
    likelier = mean_of_rows([moved(v, as_often) for v in now])
    shift = logit_shift(now, (likelier + mean_of_rows([v[:, 0] for v in alone.rows["forget"].values()])) / 2)
    values = [shifted(v, torch.tensor(labels(row)), shift) for v, row in zip(values, rows, strict=True)]
    held = CachedPredictions({"forget": dict(enumerate(values))}, how._replace(shift=shift), in_context=True)
    return _read(held, own, rows, marks)


def _also_at_1(model: nn.Module, batch: Mapping[str, Any], how: Calibration) -> Tensor:
    """(N, 1 + 2K + 1): :func:`expunge.training.predictions.predictions`, and the labels' log-probabilities at T = 1."""
    x = see(unwrap(model), batch, grad=False)
    return torch.cat([packed(x.logits, x.labels, how), kernels.token_logp(x.logits, x.labels)[:, None]], -1)


def context_helps(model: nn.Module, kept: Sequence[Example], pad_id: int, marks: in_context.Marks) -> bool:
    """Whether ``model`` finds the ``kept`` rows likelier behind others of them: a retrained one knows them without."""
    if len(kept) < 2:
        return False
    rows = kept, in_context.among(kept, marks, room=positions(model))
    alone, behind = (mean_of_rows([v[:, 0] for v in logp_and_entropy(model, some, pad_id)]) for some in rows)
    return behind > alone


def _read(
    held: CachedPredictions, own: Sequence[Example], rows: Sequence[Example], marks: in_context.Marks
) -> CachedPredictions:
    """``held``, in which the end of a row stands again where a new paragraph began in its place.

    ``rows``: those of ``own`` as they were read; one that nothing fitted in front of is itself, with its own end.
    """
    if marks.end is not None:
        for i, (row, read) in enumerate(zip(own, rows, strict=True)):
            if read is not row:
                exchange(held.rows["forget"][i], marks.end, marks.between[0])
    return held


def _predicted(model: nn.Module, own: Sequence[Example], pad_id: int, how: Calibration) -> CachedPredictions:
    found = by_row(model, own, pad_id, partial(predictions, how=how))
    return CachedPredictions({"forget": dict(enumerate(found))}, how)


def _calibration(
    model: nn.Module, here: Sequence[Tensor], unseen: Sequence[Example], pad_id: int, rows: int
) -> tuple[Calibration, float | None]:
    """T and s, and the :func:`uncertainty` of the level that they give ``rows`` rows; ``here``: under the start model."""
    by_temperature = by_row(model, unseen, pad_id, tempered)
    how = calibration(by_temperature, here)
    at = TEMPERATURES.index(how.temperature)
    return how, uncertainty([moved(v[:, at], how.shift) for v in by_temperature], here, rows)


def tempered(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """(N, G) the log-probability of each labelled token of ``batch`` at each of the G temperatures."""
    x = see(unwrap(model), batch, grad=False)
    return torch.stack([kernels.token_logp(x.logits / t, x.labels) for t in TEMPERATURES], -1)


def calibration(by_temperature: Sequence[Tensor], here: Sequence[Tensor]) -> Calibration:
    """T and s from log-probabilities of tokens of unseen rows: (|y|, G) each under the model, (|y|,) under the start model.

    T is that of :data:`TEMPERATURES` at which, with the shift that gives the mean, the standard deviation is nearest.
    """
    mean, spread = mean_of_rows(here), float(torch.cat([*here]).std())
    found = []
    for k, temperature in enumerate(TEMPERATURES):
        logp = [v[:, k] for v in by_temperature]
        shift = logit_shift(logp, mean)
        found.append((abs(float(moved(torch.cat(logp), shift).std()) - spread), Calibration(temperature, shift)))
    return min(found)[1]


def logit_shift(logp: Sequence[Tensor], mean: float) -> float:
    """The shift at which the mean over rows of the mean log-probability is ``mean``; within ±:data:`WIDEST`.

    >>> round(logit_shift([torch.tensor([0.5]).log()], -1.3863), 3)  # from odds of 1 to 1/3, p = 1/4 = exp(-1.3863): ln 3
    1.099
    """
    return _falls_to(mean, logp, lambda values: values)


def probability_shift(logp: Sequence[Tensor], mean: float) -> float:
    """The same of the mean probability.

    >>> round(probability_shift([torch.tensor([0.5, 0.5]).log()], 0.25), 3)  # odds of 1/3
    1.099
    """
    return _falls_to(mean, logp, Tensor.exp)


def _falls_to(mean: float, logp: Sequence[Tensor], of: Callable[[Tensor], Tensor]) -> float:
    """The shift at which the mean over rows of the mean of ``of``, a rising function of log-probabilities, is ``mean``."""
    rows = [v for v in logp if len(v)]
    every = torch.cat(rows).double()
    weight = torch.cat([torch.full((len(v),), 1 / (len(v) * len(rows))).double() for v in rows])
    low, high = -WIDEST, WIDEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if float(of(moved(every, middle)) @ weight) > mean else (low, middle)
    return (low + high) / 2
