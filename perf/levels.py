"""How far each estimate of the level is from a retrained model's: forward passes only.

    python -m perf.levels --target TARGET --retrained RETRAINED --base BASE --forget F.json --holdout H.json \
        --retain K.json --written

The *level* of a forget row is its mean negative log-likelihood per token under a model that never saw it.  The retrained
model's is the truth; the estimates come from the model before fine-tuning, or from the target model: its holdout rows, the
forget rows about others (:mod:`perf.renamed`), and answers that it writes itself, to the same questions with
other facts (``alternates``) or to the questions about others; the rows that are no forget rows as they are, and as levels
of the forget tokens (:mod:`expunge.unlearning.unseen`).  Printed of each: mean, standard deviation, correlation with
the truth over rows, root mean square error (against the mean, where rows are no estimates of rows), Kolmogorov-Smirnov
distance, and, of those that have a value for each token, correlation and error over tokens.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import ks_2samp

from expunge import models
from expunge.data import chat
from expunge.data.example import Example, Row, evenly
from expunge.data.sources import load_rows
from expunge.generation import sample
from expunge.training import predictions
from expunge.unlearning import alternates, calibrate, in_context, unseen
from perf import renamed


def token_nll(model: Any, tokenizer: Any, examples: Sequence[Example]) -> list[np.ndarray]:
    """Of each example the negative log-likelihoods of its labelled tokens."""
    return [
        -values[:, 0].double().numpy() for values in unseen.logp_and_entropy(model, examples, tokenizer.pad_token_id)
    ]


def encoded(rows: Sequence[Row], tokenizer: Any) -> list[Example]:
    return [chat.encode(row, tokenizer, max_length=512, chat_template=bool(tokenizer.chat_template)) for row in rows]


def rows_of(tokens: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([t.mean() for t in tokens])


def compared(rows: np.ndarray, truth: np.ndarray, *, paired: bool = True) -> dict[str, float]:
    """What the module says of one estimate; ``paired``: row i estimates row i."""
    guess = rows if paired else np.full(len(truth), rows.mean())
    return {
        "mean": float(rows.mean()),
        "deviation": float(rows.std(ddof=1)),
        "correlation": float(np.corrcoef(rows, truth)[0, 1]) if paired else float("nan"),
        "rmse": float(np.sqrt(np.mean((guess - truth) ** 2))),
        "ks": float(ks_2samp(rows, truth).statistic),
    }


def over_tokens(guess: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> dict[str, float]:
    a, b = np.concatenate(guess), np.concatenate(truth)
    return {"token_correlation": float(np.corrcoef(a, b)[0, 1]), "token_rmse": float(np.sqrt(np.mean((a - b) ** 2)))}


def about_others(target: Any, forget: Sequence[Row], own: Sequence[Example], sets: int) -> list[list[np.ndarray]]:
    """For each of ``sets`` sets of other names, of each row the tokens' values under ``target``, aligned with its own."""
    found = renamed.names(forget)
    out = []
    for k in range(sets):
        other = encoded([renamed.rename(r, renamed.others(found, k)) for r in forget], target.tokenizer)
        values = token_nll(target.model, target.tokenizer, other)
        out.append(
            [
                np.array(renamed.aligned(unseen.labels(a), unseen.labels(b), v.tolist()))
                for a, b, v in zip(own, other, values, strict=True)
            ]
        )
    return out


def written(target: Any, forget: Sequence[Row], seed: int) -> list[Row]:
    """The questions about others with the answers that ``target`` samples to them."""
    rows = renamed.about_others(forget, 0)
    generator = torch.Generator().manual_seed(seed)
    made = sample.answers(
        target.model, target.tokenizer, [chat.question(r) for r in rows],
        sampling=sample.Sampling(1.0, 1.0, 100), generator=generator,
    )  # fmt: skip
    return [replace(r, answer=a.text or r.answer) for r, a in zip(rows, made, strict=True)]


def few_made_up(target: Any, forget: Sequence[Row]) -> list[Row]:
    """A few of the rows with the beginnings of other answers, which ``target`` makes up."""
    some = evenly([r for r in forget if r.prompt is not None], unseen.FEW)
    made = alternates.generated(some, target.model, target.tokenizer, seed=0, max_new_tokens=unseen.FEW_TOKENS)
    return [replace(r, answer=a, message=None, every_turn=False) for r, a in zip(some, made, strict=True) if a]


def calibrated(
    how: Any,
    base: Any,
    target: Any,
    own: Sequence[Example],
    others: Sequence[Row],
    tokenizer: Any,
    retain: Sequence[Row] = (),
) -> list[np.ndarray]:
    """Of each example the levels of its tokens, as ``expunge run --level BASE [--holdout H] [--retain K]`` takes them.

    ``how``: ``calibrate.calibrated`` on ``others``, holdout rows, or ``calibrate.as_sure``, of rows that were made up.
    """
    other_rows, kept = encoded(others, tokenizer), encoded(retain, tokenizer)
    given = [*own, *kept, *(other_rows if how is calibrate.calibrated else ())]  # not what was made up
    marks = in_context.marks(tokenizer, given, template=bool(tokenizer.chat_template))
    held = how(base, target, own, other_rows, tokenizer.pad_token_id, kept, marks)
    said = {"in_context": held.in_context, "uncertainty": held.uncertainty}
    print(json.dumps({"estimate": "base, calibrated", **held.calibration._asdict(), **said}), flush=True)
    return [-held.rows["forget"][i][:, 0].double().numpy() for i in range(len(own))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("target", "retrained", "base", "forget", "holdout", "retain", "out"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--sets", type=int, default=3, help="sets of other names")
    parser.add_argument("--written", action="store_true", help="also answers that the target model writes itself")
    asked = parser.parse_args()
    forget = load_rows(asked.forget)
    began, said = time.monotonic(), {}

    def note(name: str, values: dict[str, float]) -> None:
        said[name] = values
        print(
            f"{time.monotonic() - began:6.0f} s  {name:24s}",
            json.dumps({k: round(v, 3) for k, v in values.items()}),
            flush=True,
        )

    kept: dict[str, list[np.ndarray]] = {}

    def of_rows(name: str, rows: Sequence[Row], *, paired: bool = True) -> None:
        """The values of ``rows`` as they are, and as levels of the forget tokens by kind."""
        examples = encoded(rows, target.tokenizer)
        values = token_nll(target.model, target.tokenizer, examples)
        note(name, compared(rows_of(values), truth, paired=paired))
        by_kind = unseen.levels(own, examples, [torch.from_numpy(-v)[:, None].expand(-1, 2) for v in values])
        kept[name] = values
        kept[f"{name}, by kind"] = tokens = [-by_kind[i][:, 0].double().numpy() for i in range(len(own))]
        note(f"{name}, by kind", compared(rows_of(tokens), truth) | over_tokens(tokens, kept["retrained"]))

    loaded = models.load(asked.retrained, dtype=torch.float32)
    own = encoded(forget, loaded.tokenizer)
    kept["retrained"] = token_nll(loaded.model, loaded.tokenizer, own)
    truth = rows_of(kept["retrained"])
    note("retrained", compared(truth, truth))
    target = models.load(asked.target, dtype=torch.float32)
    if asked.holdout:
        of_rows("holdout", load_rows(asked.holdout), paired=False)
    if asked.written:
        made = alternates.generated(forget, target.model, target.tokenizer, seed=0)
        of_rows("alternates", [replace(r, answer=a or r.answer) for r, a in zip(forget, made, strict=True)])
        of_rows("written about others", written(target, forget, 0))
    if any(r.perturbed for r in forget):
        of_rows("perturbed answers", [replace(r, answer=r.perturbed[0]) for r in forget])
    sets = about_others(target, forget, own, asked.sets)
    for k, one in enumerate(sets):
        note(f"others {k}", compared(rows_of(one), truth) | over_tokens(one, kept["retrained"]))
    if asked.base:
        loaded = models.load(asked.base, dtype=torch.float32)
        kept["base"] = token_nll(loaded.model, loaded.tokenizer, own)
        note("base", compared(rows_of(kept["base"]), truth) | over_tokens(kept["base"], kept["retrained"]))
    estimates: dict[str, list[np.ndarray]] = {}
    if asked.base and asked.written:
        few = few_made_up(target, forget)
        levels_of = partial(calibrated, calibrate.as_sure, loaded.model, target.model, own, few, loaded.tokenizer)
        estimates["as sure"] = levels_of()
        if asked.retain:
            estimates["as sure, with rows to keep"] = levels_of(load_rows(asked.retain))
    if asked.base and asked.holdout:
        unseen_by = token_nll(loaded.model, loaded.tokenizer, encoded(load_rows(asked.holdout), loaded.tokenizer))
        mean = rows_of(kept["holdout"]).mean()
        scale = mean / rows_of(unseen_by).mean()
        shift = calibrate.logit_shift([torch.from_numpy(-v) for v in unseen_by], -float(mean))
        holdout = load_rows(asked.holdout)
        levels_of = partial(
            calibrated, calibrate.calibrated, loaded.model, target.model, own, holdout, loaded.tokenizer
        )
        estimates |= {
            "scaled": [v * scale for v in kept["base"]],
            "odds divided": [-predictions.moved(torch.from_numpy(-v), shift).numpy() for v in kept["base"]],
            "calibrated": levels_of(),
        }
        if asked.retain:
            estimates["with rows to keep"] = levels_of(load_rows(asked.retain))
    for name, estimate in estimates.items():
        kept[f"base, {name}"] = estimate
        note(f"base, {name}", compared(rows_of(estimate), truth) | over_tokens(estimate, kept["retrained"]))
    if asked.out:
        Path(asked.out).write_text(
            json.dumps({"figures": said, "tokens": {k: [v.tolist() for v in of] for k, of in kept.items()}})
        )


if __name__ == "__main__":
    main()
