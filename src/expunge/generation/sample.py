"""Sampled text from a model, batched: equal prompts are run once, finished rows leave the batch.

Every random draw comes from a generator that the caller seeds, so the text can be generated again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from expunge.data.chat import opened, prompt_ids
from expunge.data.example import Row
from expunge.errors import InputError
from expunge.forward import family
from expunge.forward.view import logits_at
from expunge.generation import cache as caches
from expunge.generation.greedy import end_tokens

ROWS = 64  # answers in a batch
SHRINK_SHARE = 0.125  # share of finished rows from which a batch is made smaller, which copies the others


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn: from the likeliest that make up ``top_p``, at ``temperature``; greedily at temperature 0."""

    temperature: float = 1.0
    top_p: float = 0.95
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf or not 0 < self.top_p <= 1 or self.max_new_tokens < 1:
            raise InputError(
                f"sampling needs temperature >= 0, 0 < top_p <= 1 and max_new_tokens >= 1, not {self.temperature}, "
                f"{self.top_p}, {self.max_new_tokens}"
            )


@dataclass(frozen=True)
class Continuation:
    """A sampled continuation: its tokens without the end token, and the log-probability of all of them.

    ``logp`` (T,) is under the model itself, at temperature 1 and of the whole vocabulary, the end token included if there
    is one; ``ended``: whether the model generated an end token.
    """

    tokens: tuple[int, ...]
    logp: tuple[float, ...]
    ended: bool

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-probability; infinite if there are no tokens."""
        return math.exp(-sum(self.logp) / len(self.logp)) if self.logp else math.inf


@dataclass(frozen=True)
class Answer:
    """One sampled answer as text; ``perplexity`` under the model that wrote it."""

    text: str
    tokens: int
    perplexity: float
    ended: bool


SLOT = "{instruction}"


@dataclass(frozen=True)
class Form:
    """How an instruction becomes a prompt: ``to_row`` makes a row of the filled template; ``clean`` strips the answer.

    ``fields``: the names of prompt and answer in a row of data.  ``template``: a text with ``{instruction}`` in it.
    """

    to_row: Callable[[str], Row]
    clean: Callable[[str], str]
    fields: tuple[str, str]
    template: str = SLOT

    def prompt(self, instruction: str) -> str:
        """The instruction in its template; braces of either stay as they are."""
        return self.template.replace(SLOT, instruction)

    def row(self, instruction: str) -> Row:
        """The prompt as a row without an answer."""
        return self.to_row(self.prompt(instruction))


FORMS = {
    "question": Form(lambda text: Row(({"role": "user", "content": text},), ""), str.strip, ("question", "answer")),
    "beginning": Form(lambda text: Row(text, ""), str.rstrip, ("prompt", "completion")),
}
QUESTION = FORMS["question"]


# -- texts ----------------------------------------------------------------------------------------------------------------
@torch.no_grad()
def answers(
    model: nn.Module,
    tokenizer: Any,
    instructions: Sequence[str],
    *,
    sampling: Sampling,
    generator: torch.Generator | None = None,
    form: Form = QUESTION,
    chat_template: bool = True,
) -> list[Answer]:
    """One answer to each of ``instructions``, in their order; a repeated instruction is run once."""
    ids = {
        text: tuple(prompt_ids(form.row(text), tokenizer, chat_template=chat_template))
        for text in dict.fromkeys(instructions)
    }
    ends = end_tokens(model, tokenizer)
    order = sorted(range(len(instructions)), key=lambda i: (-len(ids[instructions[i]]), instructions[i]))
    out: dict[int, Answer] = {}
    for start in range(0, len(order), ROWS):
        rows = order[start : start + ROWS]
        for i, continuation in zip(
            rows,
            sampled(model, tokenizer, [ids[instructions[i]] for i in rows], sampling, ends, generator),
            strict=True,
        ):
            text = form.clean(tokenizer.decode(continuation.tokens, skip_special_tokens=True))
            out[i] = Answer(text, len(continuation.tokens), continuation.perplexity, continuation.ended)
    return [out[i] for i in range(len(instructions))]


def neutral_rows(
    model: nn.Module,
    tokenizer: Any,
    n: int,
    *,
    seed: int = 0,
    sampling: Sampling | None = None,
    chat_template: bool = True,
) -> list[Row]:
    """``n`` questions and answers on topics of the model's own choice: a retain set without any data.

    The model writes a user's turn from its empty beginning, then answers it (as in Magpie, arXiv:2406.08464).  Empty,
    unfinished and repeated questions are drawn again, at most 4 n of them; raises InputError if these are too few.
    """
    sampling = sampling or Sampling()
    generator = torch.Generator().manual_seed(seed)
    opening = tuple(opened("", tokenizer, chat_template=chat_template)) or (_first_token(tokenizer),)
    ends = line_ends(tokenizer) | end_tokens(model, tokenizer)
    questions: dict[str, None] = {}
    for _ in range(math.ceil(4 * n / ROWS)):
        for continuation in sampled(model, tokenizer, [opening] * ROWS, sampling, ends, generator):
            text = tokenizer.decode(continuation.tokens, skip_special_tokens=True).strip()
            if text and continuation.ended:
                questions.setdefault(text)
        if len(questions) >= n:
            break
    if len(questions) < n:
        raise InputError(
            f"the model came up with only {len(questions)} questions of its own that end within {sampling.max_new_tokens} "
            f"tokens, not {n}; ask for fewer (--self-retain; of a reveal neutral=N) or longer ones, or give a retain set "
            "(--retain)"
        )
    chosen = list(questions)[:n]
    responses = answers(model, tokenizer, chosen, sampling=sampling, generator=generator, chat_template=chat_template)
    return [
        Row(({"role": "user", "content": q},), a.text, where=f"neutral question {i}")
        for i, (q, a) in enumerate(zip(chosen, responses, strict=True), 1)
        if a.text
    ]


# -- tokens ---------------------------------------------------------------------------------------------------------------
@torch.no_grad()
def sampled(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[tuple[int, ...]],
    sampling: Sampling,
    ends: Set[int],
    generator: torch.Generator | None,
) -> list[Continuation]:
    """One continuation of each of ``prompts``, in order; equal prompts are run once if the cache allows."""
    model.eval()
    device = next(model.parameters()).device
    distinct = list(dict.fromkeys(prompts))
    owner = torch.tensor([distinct.index(p) for p in prompts], device=device)
    ids, mask = padded_left(distinct, int(tokenizer.pad_token_id), device)
    sampling = replace(sampling, max_new_tokens=family.tokens_left(model, ids.shape[1], sampling.max_new_tokens))
    cache: Any = caches.empty(model)
    logits, _, cache = last_position(model, cache, input_ids=ids, attention_mask=mask, position_ids=position_ids(mask))
    if caches.keeps_all_positions(cache):
        width = ids.shape[1]
        keys = [caches.row(cache, i, width - len(p), width) for i, p in enumerate(distinct)]
        cache, mask = caches.stacked([keys[i] for i in owner.tolist()])
    else:
        cache, mask = caches.rows_of(cache, mask, owner)
    return continue_rows(model, cache, mask, logits[owner], sampling, ends, generator)


@torch.no_grad()
def continue_rows(
    model: nn.Module,
    cache: Any,
    mask: Tensor,
    logits: Tensor,
    sampling: Sampling,
    ends: Set[int],
    generator: torch.Generator | None,
) -> list[Continuation]:
    """Continue B rows whose keys and values are in ``cache``, ``mask`` (B, T) of what is real, from ``logits`` (B, V)."""
    device = logits.device
    stops = torch.tensor(sorted(ends), device=device)
    tokens: list[list[int]] = [[] for _ in range(len(logits))]
    logps: list[list[float]] = [[] for _ in tokens]
    ended = [False] * len(tokens)
    alive = list(range(len(tokens)))
    for step in range(sampling.max_new_tokens):
        chosen = draw_tokens(logits, sampling, generator)  # (b,)
        logp = logits.float().log_softmax(-1).gather(1, chosen[:, None]).squeeze(1)
        at_end = torch.isin(chosen, stops).tolist()
        for i, token, value, end in zip(alive, chosen.tolist(), logp.tolist(), at_end, strict=True):
            if not ended[i]:
                logps[i].append(value)
                ended[i] = end
                if not end:
                    tokens[i].append(token)
        finished = [ended[i] for i in alive]
        if all(finished) or step + 1 == sampling.max_new_tokens:
            break
        if sum(finished) >= SHRINK_SHARE * len(alive):
            stay = torch.tensor([k for k, end in enumerate(finished) if not end], device=device)
            alive, chosen = [alive[k] for k in stay.tolist()], chosen[stay]
            cache, mask = caches.rows_of(cache, mask, stay)
        positions = mask.sum(1, keepdim=True)
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], 1)
        logits, _, cache = last_position(
            model, cache, input_ids=chosen[:, None], attention_mask=mask, position_ids=positions
        )
    return [Continuation(tuple(t), tuple(p), e) for t, p, e in zip(tokens, logps, ended, strict=True)]


def draw_tokens(logits: Tensor, sampling: Sampling, generator: torch.Generator | None) -> Tensor:
    """(B, V) -> (B,) tokens.

    ``top_p``: the fewest tokens whose probabilities, at ``temperature``, sum to at least that much.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    p, index = (logits.float() / sampling.temperature).softmax(-1).sort(descending=True)
    p = p.masked_fill(p.cumsum(-1) - p >= sampling.top_p, 0.0).cpu()  # drawn on the CPU: the same on every device
    return index.gather(1, torch.multinomial(p, 1, generator=generator).to(index.device)).squeeze(1)


def last_position(model: nn.Module, cache: Any, **inputs: Any) -> tuple[Tensor, Tensor, Any]:
    """(B, V) logits and (B, D) last hidden states in fp32, at the last position of each row, and the cache after it."""
    tokens = inputs.get("input_ids", inputs.get("inputs_embeds"))
    assert tokens is not None
    keep = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    keep[:, -1] = True
    logits, out = logits_at(model, keep, cache=cache, use_cache=True, output_hidden_states=True, **inputs)
    return logits, out.hidden_states[-1][:, -1].float(), cache if cache is not None else family.cache_of(out)


def prefill(model: nn.Module, ids: Sequence[int], device: torch.device) -> caches.Row | None:
    """Keys and values of one sequence; None if the model's cache cannot be split by position."""
    if (cache := caches.empty(model)) is None:
        return None
    family.run(model, cache=cache, input_ids=torch.tensor([list(ids)], device=device), use_cache=True)
    return caches.row(cache, 0, 0, len(ids)) if caches.keeps_all_positions(cache) else None


@lru_cache(maxsize=1)  # it reads the whole vocabulary
def line_ends(tokenizer: Any) -> frozenset[int]:
    """The tokens that end a line or a turn: all special ones, and those whose text contains a line break."""
    size = len(tokenizer)
    line_breaks = (i for i, t in enumerate(tokenizer.batch_decode([[i] for i in range(size)])) if "\n" in t)
    return frozenset([*tokenizer.all_special_ids, *line_breaks])


def padded_left(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, T) ids padded on the left, and the mask of what is real."""
    width = max(map(len, prompts))
    ids = torch.tensor([[*[pad] * (width - len(p)), *p] for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    return ids, mask


def position_ids(mask: Tensor) -> Tensor:
    """(B, T) positions of the real tokens, counted from 0."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def _first_token(tokenizer: Any) -> int:
    return int(tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id)
