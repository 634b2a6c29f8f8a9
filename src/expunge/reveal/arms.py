r"""Arms of the search: soft prompts that make the model itself write an instruction, and what the model makes of it.

An arm is a point z of a Sobol sequence in [0, 1]^m, turned into a few soft tokens by one fixed random matrix A,

.. math:: p = \mathrm{scale} \cdot \frac{\sigma(E)}{\sigma(A z)} \, A \, (z - \tfrac12),

E the model's own input embeddings, σ the standard deviation of a coordinate.  Behind the soft tokens stands a *meta-prompt*,
a list of instructions that is not finished, and the model writes its next entry.

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
from expunge.generation.sample import QUESTION, Form, Sampling, go_on, last, line_ends, padded_left, places, run_once

ROWS = 64  # arms that are run together
SENTENCE = re.compile(r"(?<=[?!])|(?<=[^.\s]{3}\.)\s+(?=[A-Z\"'])")  # where a first sentence ends


@dataclass(frozen=True)
class Meta:
    """What instructions are asked for: a heading and a few examples of one line each; the model writes the next one."""

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
    spread = math.sqrt(dimension / 36)  # σ of A (z - 1/2): m times the variances 1/3 of A and 1/12 of z
    out = (z - 0.5) @ a.T * (scale / spread * float(weight.detach().double().std()))
    return out.reshape(n, tokens, width).to(weight)


@torch.no_grad()
def instructions(
    model: nn.Module,
    tokenizer: Any,
    meta: Meta,
    soft: Tensor,
    *,
    sampling: Sampling,
    generator: torch.Generator | None = None,
    chat_template: bool = True,
) -> list[str]:
    """The instruction that each of ``soft`` (n, tokens, D) makes the model write: its line, up to the first sentence's end.

    The soft tokens stand at the beginning of a user's turn that stays open, or of the text where there is no chat template.
    """
    device = soft.device
    before = opened("", tokenizer, chat_template=chat_template)
    asked = tokenizer(meta.text, add_special_tokens=False).input_ids
    embed, ends = model.get_input_embeddings(), line_ends(tokenizer)  # type: ignore[operator]
    stem = run_once(model, before, device) if before else None
    head, tail = (embed(torch.tensor([ids], dtype=torch.long, device=device)) for ids in (before, asked))
    said: list[str] = []
    for some in soft.split(ROWS):
        n = len(some)
        parts = [some, tail.expand(n, -1, -1)]
        cache = caches.stacked([stem] * n)[0] if stem else caches.empty(model)
        inputs = torch.cat(parts if stem else [head.expand(n, -1, -1), *parts], 1)
        mask = torch.ones(n, len(before) + some.shape[1] + len(asked), dtype=torch.long, device=device)
        logits, _, cache = last(model, cache, inputs_embeds=inputs, attention_mask=mask)
        said += [
            first_sentence(tokenizer.decode(s.tokens, skip_special_tokens=True))
            for s in go_on(model, cache, mask, logits, sampling, ends, generator)
        ]
    return said


@torch.no_grad()
def features(
    model: nn.Module, tokenizer: Any, asked: Sequence[str], *, form: Form = QUESTION, chat_template: bool = True
) -> Tensor:
    """(n, D) last hidden states of the model where its answer to each instruction begins, in fp32 on the CPU."""
    device = next(model.parameters()).device
    ids = [prompt_ids(form.row(text), tokenizer, chat_template=chat_template) for text in asked]
    out: dict[int, Tensor] = {}
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for start in range(0, len(order), ROWS):
        rows = order[start : start + ROWS]
        given, mask = padded_left([ids[i] for i in rows], int(tokenizer.pad_token_id), device)
        _, hidden, _ = last(model, caches.empty(model), input_ids=given, attention_mask=mask, position_ids=places(mask))
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
