"""Batches of prompts and texts through the model: what it thinks of every token, and where its own answers part ways.

Four things are run once only: the tokens that all prompts begin with (a chat template's system prompt), each prompt, what
texts after one prompt begin with, and each right answer as far as greedy decoding agrees with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from expunge.evaluation.collect.facts import Facts, facts, first, joined, split
from expunge.evaluation.probe import Probe
from expunge.forward import family
from expunge.forward.view import logits_at
from expunge.generation import cache as caches
from expunge.generation import decode

log = logging.getLogger(__name__)

CPU_TOKENS = 256  # that are run together, padding included: in 1024 a token costs less, but more are padding
TOKENS = 1024  # the same elsewhere
CLOSE = 1e-2  # mean difference of the log-probabilities between a reused prompt and a whole pass
LEAST = 4  # tokens that all prompts, or two texts, begin with: fewer are not worth keeping


@dataclass(frozen=True)
class Coded:
    """A probe as tokens: its prompt (P,), and the tokens (T,) of each of its ``variants`` after it.

    ``asks``: the model is to go on from this prompt by itself.  ``scored``: which tokens of each text count, where not all.
    """

    probe: Probe
    prompt: tuple[int, ...]
    variants: tuple[str, ...]
    texts: tuple[tuple[int, ...], ...]
    asks: bool
    scored: tuple[tuple[int, ...], ...] = ()

    @property
    def width(self) -> int:
        """The longest of its sequences."""
        return len(self.prompt) + max(map(len, self.texts), default=0)


@dataclass(frozen=True)
class Met:
    """How far greedy decoding is known: ``said`` its first tokens; ``keys`` of the prompt and all of them but the last."""

    said: tuple[int, ...]
    keys: caches.Row


Results = tuple[list[Facts], list[Met | None]]  # of each text, and of each probe that asks
Run = Callable[[nn.Module, Sequence[Coded], int], Results]


def way(model: nn.Module, coded: Sequence[Coded], pad: int) -> Run:
    """How ``model`` is run: with beginnings reused if that gives on the shortest probe what whole sequences give."""
    first = [min(coded, key=lambda c: (c.width - len(c.prompt) < 2, c.width))]  # with a token after a reused one
    if not family.by_position(model) or not _windows_are_wide(model, coded):
        return run_whole
    whole = run_whole(model, first, pad)[0]
    try:
        reusing = _reusing(model, coded)
        reused = reusing(model, first, pad)[0]
    except Exception as error:  # a model with a cache of its own making, which may fail in any way of its own
        log.debug("each text is run whole, for the cache cannot be taken apart: %r", error)
        return run_whole
    if not whole:
        return reusing
    difference = torch.cat([f.logp for f in whole]) - torch.cat([f.logp for f in reused])
    return reusing if float(difference.abs().mean()) < CLOSE else run_whole


def _windows_are_wide(model: nn.Module, coded: Sequence[Coded]) -> bool:
    """Whether a sliding window, if there is one, reaches over all of a sequence and what lies between."""
    window = getattr(model.config.get_text_config(), "sliding_window", None)  # type: ignore[union-attr, operator]
    asks = max((c.probe.ask.max_new_tokens for c in coded if c.asks and c.probe.ask), default=0)
    prompt, text = max(len(c.prompt) for c in coded), max(c.width - len(c.prompt) for c in coded)
    return not window or window >= prompt + text + asks + decode.MAX_HOLES + decode.STEP_TOKENS


def tokens_whole(batch: Sequence[Coded]) -> int:
    """How many tokens :func:`run_whole` runs for ``batch``, padding included."""
    return max(c.width for c in batch) * sum(len(c.texts) for c in batch)


def tokens_reusing(batch: Sequence[Coded]) -> int:
    """How many tokens :func:`run_reusing` runs for ``batch``, padding included."""
    text = max(c.width - len(c.prompt) for c in batch)
    return max(len(c.prompt) for c in batch) * len(batch) + text * sum(len(c.texts) for c in batch)


def run_whole(model: nn.Module, batch: Sequence[Coded], pad: int) -> Results:
    """The facts of each text, prompt and text in one sequence; nothing is known of an answer."""
    rows = [(c.prompt, t) for c in batch for t in c.texts]
    if not rows:
        return [], [None] * len(batch)
    ids, mask = padded([p + t for p, t in rows], pad, _device(model))
    keep = torch.zeros_like(mask, dtype=torch.bool)
    for i, (p, t) in enumerate(rows):
        keep[i, len(p) - 1 : len(p) + len(t) - 1] = True
    logits, _ = logits_at(model, keep, input_ids=ids, attention_mask=mask, use_cache=False)
    labels = torch.tensor([y for _, t in rows for y in t], device=ids.device)
    return split(facts(logits, labels), [len(t) for _, t in rows]), [None] * len(batch)


def _reusing(model: nn.Module, coded: Sequence[Coded]) -> Run:
    """A run that shares what all prompts of ``coded`` begin with."""
    columns = zip(*(c.prompt[:-1] for c in coded), strict=False)
    same = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
    if len(same) < LEAST or len(coded) < 2:
        return lambda model, batch, pad: run_reusing(model, batch, pad, None)
    ids = torch.tensor([same], device=_device(model))
    cache = caches.empty(model)
    family.run(model, cache=cache, input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True)
    _be_plain(cache)
    stem = caches.row(cache, 0, 0, len(same))
    return lambda model, batch, pad: run_reusing(model, batch, pad, stem)


def run_reusing(model: nn.Module, batch: Sequence[Coded], pad: int, stem: caches.Row | None) -> Results:
    """The same with each prompt run once: its keys and values serve all its texts, and the answer after them.

    ``stem``: the keys and values of the tokens that all prompts begin with.  A text that begins as another one did goes on
    from that one's keys, before the last token they share: what is thought after it is asked for another token now.
    """
    ahead, prompts = _prompts(model, batch, pad, stem)
    owner = [g for g, c in enumerate(batch) for _ in c.texts]
    texts = [t for c in batch for t in c.texts]
    labels = torch.tensor([t[0] for t in texts], dtype=torch.long, device=ahead.device)
    found = split(facts(ahead[owner], labels), [1] * len(texts))
    met = [Met((int(ahead[g].argmax()),), prompts[g]) if c.asks else None for g, c in enumerate(batch)]

    branches = _branches(batch)
    apart = {j for some in branches.values() for j in some}
    keys = {i: prompts[owner[i]] for i in range(len(texts)) if i not in apart}  # that each text goes on from
    while keys:
        later: dict[int, caches.Row] = {}
        for some in _alike({i: len(texts[i]) - len(found[i].logp) for i in keys}, ahead.device):
            rest = [texts[i][len(found[i].logp) - 1 :] for i in some]
            cache, mask = caches.stacked([keys[i] for i in some], max(map(len, rest)) - 1)
            ids, there = padded([t[:-1] for t in rest], pad, ahead.device)
            logits = _read(model, ids, there.bool(), there, mask, cache)
            labels = torch.tensor([y for t in rest for y in t[1:]], device=ahead.device)
            new = split(facts(logits, labels), [len(t) - 1 for t in rest])
            for r, i in enumerate(some):
                found[i] = joined([found[i], new[r]])
                begin, prompt = mask.shape[1] - caches.length(keys[i]), caches.length(prompts[owner[i]])
                so_far, said = met[owner[i]], _agreed(texts[i], found[i])
                if so_far and len(said) > len(so_far.said):
                    met[owner[i]] = Met(said, caches.row(cache, r, begin, begin + prompt + len(said) - 1))
                if mine := branches.get(i):
                    whole = caches.row(cache, r, begin, begin + prompt + max(mine.values()) - 1)
                    for j, n in mine.items():
                        found[j], later[j] = first(found[i], n), caches.prefix(whole, prompt + n - 1)
        keys = later
    return found, met


def _prompts(
    model: nn.Module, batch: Sequence[Coded], pad: int, stem: caches.Row | None
) -> tuple[Tensor, list[caches.Row]]:
    """(G, V) logits after each prompt, and its keys and values."""
    device = _device(model)
    begun = caches.length(stem) if stem else 0
    logits: dict[int, Tensor] = {}
    keys: dict[int, caches.Row] = {}
    for some in _alike({g: len(c.prompt) - begun for g, c in enumerate(batch)}, device):
        ids, there = padded([batch[g].prompt[begun:] for g in some], pad, device)
        start = caches.stacked([stem] * len(some), ids.shape[1]) if stem else (caches.empty(model), there[:, :0])
        cache, mask = start
        last = torch.arange(ids.shape[1], device=device) == there.sum(1, keepdim=True) - 1
        after = _read(model, ids, last, there, mask, cache)
        _be_plain(cache)
        for r, g in enumerate(some):
            logits[g], keys[g] = after[r], caches.row(cache, r, 0, len(batch[g].prompt))
    return torch.stack([logits[g] for g in range(len(batch))]), [keys[g] for g in range(len(batch))]


def _read(model: nn.Module, ids: Tensor, keep: Tensor, there: Tensor, mask: Tensor, cache: Any) -> Tensor:
    """Logits at ``keep`` of ``ids`` (B, t), real where ``there``, that go on from the ``cache`` and its ``mask`` (B, T)."""
    logits, _ = logits_at(
        model,
        keep,
        input_ids=ids,
        attention_mask=torch.cat([mask, there], 1),
        position_ids=mask.sum(1, keepdim=True) + torch.arange(ids.shape[1], device=ids.device),
        cache=cache,
        use_cache=True,
    )
    return logits


def _branches(batch: Sequence[Coded]) -> dict[int, dict[int, int]]:
    """Of each text the shorter ones after the same prompt that begin as it does, and with how many tokens."""
    branches: dict[int, dict[int, int]] = {}
    begin = 0
    for c in batch:
        order = sorted(range(len(c.texts)), key=lambda k: len(c.texts[k]), reverse=True)
        for at, k in enumerate(order):
            shared = {j: _shared(c.texts[j], c.texts[k]) for j in order[:at]}
            most = max(shared, key=shared.__getitem__, default=k)
            if shared.get(most, 0) >= LEAST:
                branches.setdefault(begin + most, {})[begin + k] = shared[most]
        begin += len(c.texts)
    return branches


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _alike(lengths: Mapping[int, int], device: torch.device) -> Iterator[list[int]]:
    """What has tokens left to run, in batches of like length, longest first."""
    most, some = CPU_TOKENS if device.type == "cpu" else TOKENS, list[int]()
    for i in sorted((i for i, n in lengths.items() if n), key=lengths.__getitem__, reverse=True):
        if some and (len(some) + 1) * lengths[some[0]] > most:
            yield some
            some = []
        some.append(i)
    if some:
        yield some


def _be_plain(cache: Any) -> None:
    if not caches.keeps_all_positions(cache):
        raise NotImplementedError("keys and values of this model cannot be taken apart")


def _agreed(text: tuple[int, ...], facts: Facts) -> tuple[int, ...]:
    """What greedy decoding says as long as it says ``text``, and the one token after that if it says another."""
    best = facts.best.tolist()
    parted = next((t for t, (b, y) in enumerate(zip(best, text, strict=True)) if b != y), len(text) - 1)
    return (*text[:parted], best[parted])


def padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, T) ids padded on the right, and the mask of what is real."""
    width = max(map(len, rows))
    ids = torch.tensor([[*r, *[pad] * (width - len(r))] for r in rows], device=device)
    mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows], device=device)
    return ids, mask


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
