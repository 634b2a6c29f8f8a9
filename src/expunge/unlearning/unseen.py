r"""Levels of tokens from rows that the start model never saw: holdout rows, or answers that it makes up itself.

Holdout rows say how likely an unseen answer is as a whole, and nothing of the tokens of another answer.  Those differ most
by kind: what was said before is repeated, a frequent token is form, a rare one is a fact.  So the level of a forget token is
the mean log-probability, under the start model, of the unseen rows' tokens of its kind,

.. math:: \ell_{i,t} = \frac{\sum_{s \in K} \log p_s + m\,\bar\ell}{|K| + m}, \qquad
    K = \{s : \kappa(s) = \kappa(i,t)\}, \quad m = 5

with :math:`\bar\ell` the mean over all of them.  The kind κ is whether the token, and whether it with the one before it, was
in the text before, and in what share of the *other* unseen answers it is.  It reads token ids alone, so no language and no
tokenizer is special.

The entropy of a prediction, how unsure a model is of what comes next whatever does, has a level, too: the mean over the
unseen rows' tokens of the kind.

What another model predicts is nearer than that (:mod:`expunge.unlearning.calibrate`).

How near each is to a retrained model: ``python -m perf.levels``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expunge import processes
from expunge.data import chat, collate
from expunge.data.example import Example, Row, evenly
from expunge.errors import InputError
from expunge.forward.family import unwrap
from expunge.forward.view import IGNORE, see
from expunge.unlearning import alternates
from expunge.unlearning.rows import Data
from expunge.unlearning.settings import Recipe

SHRINK = 5.0  # tokens' worth of the mean over all that each kind's mean has
SHARES = (1e-9, 0.1, 0.3)  # between kinds: in none of the other answers, fewer than a tenth, than three tenths, in more
BATCH = 8  # rows of a forward pass
FEW, FEW_TOKENS = 32, 64  # answers that are made up for a temperature alone, and tokens of each at most
Kind = tuple[int, int]  # how much of it was said before, and how frequent it is


def levels(own: Sequence[Example], unseen: Sequence[Example], of: Sequence[Tensor]) -> dict[int, Tensor]:
    """Row number -> (|y_i|, 2) the levels of the labelled tokens of ``own``.

    ``of``: what :func:`logp_and_entropy` gives of the ``unseen`` rows.
    """
    found, by_kind = _kinds_of(unseen)
    logp, entropy = (means(by_kind, [values[:, k].tolist() for values in of]) for k in (0, 1))
    return {
        i: torch.tensor([(logp[kind], entropy[kind]) for kind in kinds(e, found, len(unseen))])
        for i, e in enumerate(own)
    }


def explained(unseen: Sequence[Example], of: Sequence[Tensor]) -> list[Tensor]:
    """Of each of the ``unseen`` rows (|y|,) the level that its tokens have by their kinds."""
    _, by_kind = _kinds_of(unseen)
    logp = means(by_kind, [values[:, 0].tolist() for values in of])
    return [torch.tensor([logp[kind] for kind in row]) for row in by_kind]


def _kinds_of(unseen: Sequence[Example]) -> tuple[Counter[int], list[list[Kind]]]:
    """In how many of the answers each token is, and the kinds of the tokens of each."""
    answers = [set(labels(e)) for e in unseen]
    found = Counter(y for answer in answers for y in answer)
    return found, [kinds(e, found, len(unseen), answer) for e, answer in zip(unseen, answers, strict=True)]


def made_up(data: Data, target: Any, settings: Recipe, folder: Path) -> tuple[list[Example], list[str]]:
    """Other answers to the forget questions, by ``target``, as tokens, and what is to be warned of.

    Kept in ``alternates.json`` in ``folder`` (:mod:`expunge.unlearning.alternates`).
    Raises InputError where it makes up none.
    """
    rows = _answered(data.rows["forget"], data, target, settings, folder)
    if not rows:
        raise InputError(
            "the model made up no other answers to the forget questions, from which the level of an answer that it never "
            "saw could be told; name a model with --level, or give rows of the same kind that it never saw with --holdout"
        )
    warning = (
        "the level is estimated from answers that the model made up, which can be a nat a token off; rows of the same kind "
        "that it never saw (--holdout), or an earlier model (--level), give a better one"
    )
    return rows, [warning]


def few_made_up(data: Data, target: Any, settings: Recipe, folder: Path) -> list[Example]:
    """The same of a few of the forget rows, and of no more than their beginnings; none of plain texts."""
    questions = [r for r in data.rows["forget"] if r.prompt is not None]
    return _answered(evenly(questions, FEW), data, target, settings, folder, max_new_tokens=FEW_TOKENS)


def _answered(
    forget: Sequence[Row], data: Data, target: Any, settings: Recipe, folder: Path, **how: Any
) -> list[Example]:
    """``forget`` with answers that ``target`` makes up, as tokens; without those of which it made up none."""
    how |= {"seed": settings.seed, "chat_template": settings.chat_template}
    texts = processes.on_main(partial(alternates.answers, forget, target, folder, **how))
    rows = [replace(r, answer=t, message=None, every_turn=False) for r, t in zip(forget, texts, strict=True) if t]
    options: dict[str, Any] = {"max_length": data.max_length, "chat_template": settings.chat_template}
    return [chat.encode(r, target.tokenizer, **options) for r in rows]


def kinds(example: Example, found: Mapping[int, int], rows: int, but: set[int] | None = None) -> list[Kind]:
    """The kind of each labelled token; ``found``: in how many of the ``rows`` answers a token is.

    ``but``: the tokens of the answer that the row itself is among those, which does not count.
    """
    out: list[Kind] = []
    tokens, pairs = set[int](), set[tuple[int, int]]()
    ids = example.input_ids
    others = max(1, rows - (but is not None))
    for t, (token, label) in enumerate(zip(ids, example.labels, strict=True)):
        pair = (ids[t - 1], token)
        if t and label != IGNORE:
            share = (found.get(token, 0) - (but is not None and token in but)) / others
            out.append(((token in tokens) + (pair in pairs), bisect_right(SHARES, share)))
        tokens.add(token)
        if t:
            pairs.add(pair)
    return out


def means(of: Sequence[Sequence[Kind]], values: Sequence[Sequence[float]]) -> Mapping[Kind, float]:
    """Kind -> the mean of its ``values``, drawn to the mean of all by :data:`SHRINK`; that where there is none.

    >>> table = means([[(0, 0), (0, 0), (1, 3)]], [[-4.0, -2.0, 0.0]])
    >>> table[0, 0], table[1, 3], table[2, 3]
    (-2.2857142857142856, -1.6666666666666667, -2.0)
    """
    by_kind: dict[Kind, list[float]] = defaultdict(list)
    for row, numbers in zip(of, values, strict=True):
        for kind, value in zip(row, numbers, strict=True):
            by_kind[kind].append(value)
    every = [value for some in by_kind.values() for value in some]
    mean = sum(every) / len(every)
    table: dict[Kind, float] = defaultdict(lambda: mean)
    return table | {kind: (sum(some) + SHRINK * mean) / (len(some) + SHRINK) for kind, some in by_kind.items()}


def mean_of_rows(logp: Sequence[Tensor]) -> float:
    """The mean over rows of the mean over tokens."""
    return float(torch.stack([values.mean() for values in logp if len(values)]).mean())


def labels(example: Example) -> list[int]:
    """The labelled tokens, in order."""
    return [y for y in example.labels[1:] if y != IGNORE]


def logp_and_entropy(model: nn.Module, examples: Sequence[Example], pad_id: int) -> list[Tensor]:
    """Of each example (|y|, 2): the log-probabilities of its labelled tokens and the entropies of their predictions."""

    def of(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        x = see(unwrap(model), batch, grad=False)
        return torch.stack([x.token_logp, x.entropy], -1).float()

    return by_row(model, examples, pad_id, of)


@torch.no_grad()
def by_row(
    model: nn.Module, examples: Sequence[Example], pad_id: int, of: Callable[[nn.Module, Mapping[str, Any]], Tensor]
) -> list[Tensor]:
    """``of(model, batch)``, one entry a labelled token, of each example, on the host; rows of like length together."""
    device: Any = next(model.parameters()).device
    was = model.training
    out: dict[int, Tensor] = {}
    model.eval()
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].input_ids))
    for start in range(0, len(order), BATCH):
        some = order[start : start + BATCH]
        batch = collate.collate([vars(examples[i]) | {"index": i} for i in some], pad_id=pad_id)
        batch = {key: value.to(device) if hasattr(value, "to") else value for key, value in batch.items()}
        values = of(model, batch).cpu()
        out |= dict(zip(some, values.split([len(labels(examples[i])) for i in some]), strict=True))
    model.train(was)
    return [out[i] for i in range(len(examples))]
