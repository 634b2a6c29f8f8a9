r"""A linear probe: whether a model's hidden states still tell right answers from wrong ones.

At the last token of question and answer, the difference of hidden states d = h(right) - h(wrong) is taken for three
wrong answers to each of the rows that the attacker has (``known``); w is fitted by ridge regression so that w·d = 1.
The figure of a measured row is the share of its wrong answers with w·d > 0: ½ by chance.  The layer is the one with the
best figure under cross-validation on the attacker's own rows.  The point of strength 0 ranks by the model's own
likelihood.

As the latent-knowledge test of Lynch et al. 2024, arXiv:2402.16835.  Cost: four forward passes over measured and known
rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from expunge.attacks.attack import Array, Attack, Measure, Point, Subject
from expunge.attacks.choice import wrong_answers
from expunge.attacks.forced import batches, hidden_states, per_row, spread, token_logp
from expunge.attacks.prompts import with_prompt
from expunge.attacks.restore import evaluated
from expunge.data.example import Row
from expunge.errors import InputError

RIDGE = 0.1  # of the mean squared length of the differences
FOLDS = 5
LAYERS = 8
WRONG = 3


def linear_probe(subject: Subject, measure: Measure) -> list[Point]:
    """The share of wrong answers that rank below the right one: by likelihood, and by the probe.

    Raises InputError where fewer than two known rows, or not all measured ones, have three wrong answers.
    """
    others = [*subject.known, *subject.retain, *subject.forget]
    known = [row for row in map(with_prompt, subject.known) if len(wrong_answers(row, others)) == WRONG]
    forget = [*map(with_prompt, subject.forget)]
    wrong = [wrong_answers(row, others) for row in forget]
    if len(known) < 2 or any(len(some) < WRONG for some in wrong):
        raise InputError(
            "a linear probe needs two known rows, and three wrong answers to each row, its own or other rows'"
        )
    with evaluated(subject.model):
        before, own = ranks_and_differences(subject, forget, wrong)
        _, fitted = ranks_and_differences(subject, known, [wrong_answers(row, others) for row in known])
    layer = best_layer(fitted)
    after = ranked(own[layer], direction(fitted[layer]))
    return [Point(0, "by likelihood", before), Point(1, "by a probe", after)]


def ranks_and_differences(subject: Subject, rows: Sequence[Row], wrong: Sequence[Sequence[str]]) -> tuple[Array, Array]:
    """(n,) share of wrong answers less likely a token than the right one; (L, n, 3, D) differences of states."""
    many = [row for row in rows for _ in range(1 + WRONG)]
    answers = [text for row, some in zip(rows, wrong, strict=True) for text in (row.answer, *some)]
    forced = batches(subject, many, answers=answers)
    likelihood = per_row(forced, lambda batch: token_logp(subject.model, batch)).reshape(-1, 1 + WRONG)
    ends = []
    for batch, states in hidden_states(subject.model, forced):
        last = torch.tensor([int(k.nonzero().max()) + 1 for k in batch.keep])  # of the answer, its end token left out
        layers = spread(len(states) - 1, LAYERS)
        picked = [states[k + 1][torch.arange(len(last)), last.to(states[0].device)].double().cpu() for k in layers]
        ends.append(torch.stack(picked))
    found = np.asarray(torch.cat(ends, 1))  # (L, 4 n, D)
    found = found.reshape(len(found), len(rows), 1 + WRONG, -1)
    return (likelihood[:, 1:] < likelihood[:, :1]).mean(axis=1), found[:, :, :1] - found[:, :, 1:]


def direction(differences: Array) -> Array:
    r"""(n, k, D) -> (D,) :math:`w = X^\top (X X^\top + \lambda I)^{-1} 1`, λ = :data:`RIDGE` times the mean of |x|².

    >>> direction(np.array([[[2.0, 0.0]]])).round(4).tolist()
    [0.4545, 0.0]
    """
    x = differences.reshape(-1, differences.shape[-1])
    gram = x @ x.T
    ridge = RIDGE * max(float(np.trace(gram)) / len(x), np.finfo(float).tiny)
    return np.asarray(x.T @ np.linalg.solve(gram + ridge * np.eye(len(x)), np.ones(len(x))))


def ranked(differences: Array, w: Array) -> Array:
    """(n, k, D) -> (n,) the share of differences on the side of ``w``; half of those on neither."""
    side = differences @ w
    return np.asarray(((side > 0) + 0.5 * (side == 0)).mean(axis=1))


def best_layer(differences: Array) -> int:
    """Of (L, n, k, D) the layer whose probe ranks best on rows that it was not fitted on; of equals the last."""
    n = differences.shape[1]
    folds = np.arange(n) % min(FOLDS, n)
    scores = [
        np.mean(
            np.concatenate([ranked(layer[folds == f], direction(layer[folds != f])) for f in range(folds.max() + 1)])
        )
        for layer in differences
    ]
    return int(len(scores) - 1 - np.argmax(scores[::-1]))


ATTACKS = (
    Attack(
        "linear-probe",
        "inside",
        "right and wrong answers told apart by hidden states",
        linear_probe,
        unit="",
        needs=("known",),
    ),
)
