r"""Arms of the search: soft prompts after which the model itself writes an instruction, and the features of these.

An arm is a point z of a Sobol sequence in [0, 1]^m, turned into a few soft tokens by one fixed random matrix A,

.. math:: p = \mathrm{scale} \cdot \frac{\sigma(E)}{\sigma(A z)} \, A \, (z - \tfrac12),

E the model's own input embeddings, σ the standard deviation of a coordinate.  After the soft tokens comes a *meta-prompt*,
an unfinished list of instructions, and the model writes its next entry.

Deviations from INSTINCT and InstructZero (arXiv:2310.02905, 2306.03082).  They leave A z as it is, several times as large
as a real embedding, and with the part that all arms share; here the scale is relative to the model's embeddings and the
shared part is taken away.  They let the model write greedily, which makes few instructions out of many arms (19 of 48 at
most on SmolLM2-135M, whatever the scale); here it samples.  Their feature of an arm is the hidden state before the
instruction is written; here it is the one after it is read, where the answer begins, since that is what is scored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.data.chat import opened, prompt_ids
from expunge.errors import InputError
from expunge.generation import cache as caches
from expunge.generation.sample import (
    QUESTION,
    Form,
    Sampling,
    continue_rows,
    last_position,
    line_ends,
    padded_left,
    position_ids,
    prefill,
)

ROWS = 64  # arms that are run together
SENTENCE = re.compile(r"(?<=[?!])|(?<=[^.\s]{3}\.)\s+(?=[A-Z\"'])")  # where a first sentence ends


@dataclass(frozen=True)
class MetaPrompt:
    """A meta-prompt: a heading and a few example instructions of one line each; the model writes the next one."""

    heading: str
    seeds: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.seeds:
            raise InputError("there is no seed instruction; give at least one")
        for seed in self.seeds:
            if not seed.strip() or "\n" in seed.strip():
                raise InputError(f"a seed instruction must be one line of text, not {seed!r}")

    @property
    def text(self) -> str:
        """The list, open for its next entry."""
        lines = (f"{i}. {s.strip()}" for i, s in enumerate(self.seeds, 1))
        return "\n".join([self.heading, *lines, f"{len(self.seeds) + 1}."])


def soft_prompts(
    model: nn.Module, n: int, *, tokens: int = 5, dimension: int = 10, scale: float = 1.0, seed: int = 0
) -> Tensor:
    """(n, tokens, D) soft prompts; whatever n is, the i-th is the same."""
    weight = model.get_input_embeddings().weight  # type: ignore[operator]
    width = weight.shape[1]
    z = torch.quasirandom.SobolEngine(dimension, scramble=True, seed=seed).draw(n).double()  # (n, m)
    a = torch.rand(tokens * width, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.double) * 2 - 1
    std = math.sqrt(dimension / 36)  # σ of A (z - 1/2): m times the variances 1/3 of A and 1/12 of z
    out = (z - 0.5) @ a.T * (scale / std * float(weight.detach().double().std()))
    return out.reshape(n, tokens, width).to(weight)


@torch.no_grad()
def instructions(
    model: nn.Module,
    tokenizer: Any,
    meta: MetaPrompt,
    soft: Tensor,
    *,
    sampling: Sampling,
    generator: torch.Generator | None = None,
    chat_template: bool = True,
) -> list[str]:
    """The instruction that each of ``soft`` (n, tokens, D) makes the model write: its line, up to the first sentence's end.

    The soft tokens are at the beginning of an unfinished user's turn, or of the text if there is no chat template.
    """
    device = soft.device
    turn_ids = opened("", tokenizer, chat_template=chat_template)
    meta_ids = tokenizer(meta.text, add_special_tokens=False).input_ids
    embed, ends = model.get_input_embeddings(), line_ends(tokenizer)  # type: ignore[operator]
    stem = prefill(model, turn_ids, device) if turn_ids else None
    head, tail = (embed(torch.tensor([ids], dtype=torch.long, device=device)) for ids in (turn_ids, meta_ids))
    texts: list[str] = []
    for batch in soft.split(ROWS):
        n = len(batch)
        parts = [batch, tail.expand(n, -1, -1)]
        cache = caches.stacked([stem] * n)[0] if stem else caches.empty(model)
        inputs = torch.cat(parts if stem else [head.expand(n, -1, -1), *parts], 1)
        mask = torch.ones(n, len(turn_ids) + batch.shape[1] + len(meta_ids), dtype=torch.long, device=device)
        logits, _, cache = last_position(model, cache, inputs_embeds=inputs, attention_mask=mask)
        texts += [
            first_sentence(tokenizer.decode(s.tokens, skip_special_tokens=True))
            for s in continue_rows(model, cache, mask, logits, sampling, ends, generator)
        ]
    return texts


@torch.no_grad()
def features(
    model: nn.Module, tokenizer: Any, questions: Sequence[str], *, form: Form = QUESTION, chat_template: bool = True
) -> Tensor:
    """(n, D) last hidden states of the model where its answer to each instruction begins, in fp32 on the CPU."""
    device = next(model.parameters()).device
    ids = [prompt_ids(form.row(text), tokenizer, chat_template=chat_template) for text in questions]
    out: dict[int, Tensor] = {}
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for start in range(0, len(order), ROWS):
        rows = order[start : start + ROWS]
        input_ids, mask = padded_left([ids[i] for i in rows], int(tokenizer.pad_token_id), device)
        _, hidden, _ = last_position(
            model, caches.empty(model), input_ids=input_ids, attention_mask=mask, position_ids=position_ids(mask)
        )
        out |= dict(zip(rows, hidden.cpu(), strict=True))
    return torch.stack([out[i] for i in range(len(ids))])


def first_sentence(text: str) -> str:
    """``text`` in one line, up to the end of its first sentence; an abbreviation of one or two letters ends none.

    >>> first_sentence(" Where was he born?He was born in Rome.")
    'Where was he born?'
    >>> first_sentence("Tell me about Dr. Who and his box. It is blue.")
    'Tell me about Dr. Who and his box.'
    """
    return SENTENCE.split(" ".join(text.split()))[0].strip()
