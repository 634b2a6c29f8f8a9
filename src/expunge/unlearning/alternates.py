"""Alternate answers that the target model makes up itself, once, before training: what AltPO prefers to the forget answers.

Each forget row's question and answer are put into :data:`PROMPT`, and the model's own answer, sampled at temperature 1 from
the whole vocabulary, is the row's alternate.  They are kept in ``alternates.json`` beside the run, so that a run that is
resumed trains on the same.  The prompt is ours; the paper's own asks for the same.

Mekala et al. 2024, arXiv:2409.13474.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from expunge.data import chat, refusals, sources
from expunge.data.example import Row
from expunge.errors import InputError
from expunge.generation import sample as generate
from expunge.unlearning.generated import once

FILE = "alternates.json"
TOKENS = 200  # of an alternate at most, as in the public code
ROUNDS = 4  # how often an unfit alternate is drawn at most
PROMPT = """Question: {question}
Answer: {answer}

Make up another answer to this question. It should sound just as plausible and be about as long, but each fact in the \
answer above (every name, place, date, number and title) must be replaced by a different one. Keep what the question \
itself says. Write the made-up answer and nothing else."""


def check(forget: Sequence[Row], name: str) -> None:
    """Raise InputError where a row has no question that could be answered otherwise."""
    for row in forget:
        if row.prompt is None:
            raise InputError(
                f"{row.where}: {name} makes up other answers to questions, and this row is plain text; give questions and "
                "answers, or take a method without alternates such as npo"
            )


def generated(
    forget: Sequence[Row],
    model: Any,
    tokenizer: Any,
    *,
    seed: int,
    chat_template: bool = True,
    max_new_tokens: int = TOKENS,
    rounds: int = ROUNDS,
) -> list[str]:
    """One alternate answer to each of ``forget``, a function of the model and ``seed``; "" where none came out.

    An alternate that is empty, or is the forget answer itself, is drawn again, ``rounds`` times in all.
    """
    sampling = generate.Sampling(1.0, 1.0, max_new_tokens)
    generator = torch.Generator().manual_seed(seed)
    template = chat_template and bool(getattr(tokenizer, "chat_template", None))
    out = [""] * len(forget)
    for _ in range(rounds):
        open_rows = [i for i, text in enumerate(out) if not text]
        if not open_rows:
            break
        prompts = [PROMPT.format(question=chat.question(forget[i]), answer=forget[i].answer) for i in open_rows]
        made = generate.answers(
            model, tokenizer, prompts, sampling=sampling, generator=generator, chat_template=template
        )
        for i, answer in zip(open_rows, made, strict=True):
            out[i] = "" if _same(answer.text, forget[i].answer) else answer.text
    return out


def alternate_rows(
    forget: Sequence[Row], target: Any, folder: Path, *, seed: int, chat_template: bool = True
) -> tuple[list[Row], list[str]]:
    """The forget rows with their alternates as answers, and what is to be warned of.

    ``target``: what :func:`expunge.models.load.load` gave.  A row without an alternate gets a refusal, as with ``idk_dpo``.
    """
    texts = answers(forget, target, folder, seed=seed, chat_template=chat_template)
    rows = [
        replace(r, answer=t or refusals.refusal(seed, i)) for i, (r, t) in enumerate(zip(forget, texts, strict=True))
    ]
    none = texts.count("")
    warning = (
        f"{none} of {len(rows)} forget rows have a refusal as alternate, for the model made up nothing else for them"
    )
    return rows, [warning] if none else []


def answers(
    forget: Sequence[Row],
    target: Any,
    folder: Path,
    *,
    seed: int,
    chat_template: bool = True,
    max_new_tokens: int = TOKENS,
) -> list[str]:
    """The alternate of each forget row, "" where there is none.

    They are read from ``alternates.json`` in ``folder`` if it is of the same rows, model, seed and prompt; else generated
    and written there.
    """
    key = {
        "forget": sources.fingerprint(forget),
        "model": target.fingerprint,
        "seed": seed,
        "chat_template": chat_template,
        "prompt": PROMPT,
    } | ({} if max_new_tokens == TOKENS else {"max_new_tokens": max_new_tokens})
    how: dict[str, Any] = {"seed": seed, "chat_template": chat_template, "max_new_tokens": max_new_tokens}
    write = partial(generated, forget, target.model, target.tokenizer, **how)
    texts: list[str] = once(folder / FILE, "alternates", key, write)
    return texts


def _same(text: str, answer: str) -> bool:
    return text.casefold().split() == answer.casefold().split()
