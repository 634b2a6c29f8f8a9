"""Batches of prompts and texts through the model: statistics of every token, and the start of greedy answers.

Four things are run once only: the common prefix of all prompts (a chat template's system prompt), each prompt, the common
prefix of texts after one prompt, and each right answer as far as greedy decoding agrees with it.
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

CPU_TOKENS = 256  # tokens per batch, padding included: in 1024 a token costs less, but more are padding
TOKENS = 1024  # tokens per batch on an accelerator
CLOSE = 1e-2  # mean difference of the log-probabilities between a reused prompt and a whole pass
NOT_APART = "each text is run whole, for the cache cannot be taken apart: %r"
MIN_PREFIX = 4  # tokens of a common prefix: shorter ones are not worth reusing


@dataclass(frozen=True)
class Coded:
    """A probe as tokens: its prompt (P,), and the tokens (T,) of each of its ``variants`` after it.

    ``asks``: the model answers this prompt itself too.  ``scored``: which tokens of each text count, if not all.
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
class KnownStart:
    """The known start of a greedy answer: ``said``, its first tokens, and ``keys`` of the prompt and all but the last."""

    said: tuple[int, ...]
    keys: caches.Row


Results = tuple[list[Facts], list[KnownStart | None]]  # of each text, and of each probe that asks
Run = Callable[[nn.Module, Sequence[Coded], int], Results]


def fastest_run(model: nn.Module, coded: Sequence[Coded], pad: int) -> Run:
    """The function that runs ``model``: prefixes are reused if that agrees with whole sequences on the shortest probe."""
    # The shortest with at least one token after the reused prefix.
    shortest = [min(coded, key=lambda c: (c.width - len(c.prompt) < 2, c.width))]
    if not family.by_position(model) or not _windows_are_wide(model, coded):
        return run_whole
    try:
        run = _reusing(model, coded)
    except Exception as error:  # a model with a cache of its own, which may fail in any way
        log.debug(NOT_APART, error)
        return run_whole
    return run if _agrees(model, run, shortest, pad) else run_whole


def _agrees(model: nn.Module, run: Run, batch: Sequence[Coded], pad: int) -> bool:
    """Whether ``run`` gives the texts of ``batch`` the log-probabilities of a whole pass."""
    expected = run_whole(model, batch, pad)[0]
    try:
        actual = run(model, batch, pad)[0]
    except Exception as error:
        log.debug(NOT_APART, error)
        return False
    if not expected:
        return True
    difference = torch.cat([f.logp for f in expected]) - torch.cat([f.logp for f in actual])
    return float(difference.abs().mean()) < CLOSE


def _windows_are_wide(model: nn.Module, coded: Sequence[Coded]) -> bool:
    """Whether a sliding window, if there is one, covers a whole sequence with its gaps."""
    window = getattr(model.config.get_text_config(), "sliding_window", None)  # type: ignore[union-attr, operator]
    longest_answer = max((c.probe.ask.max_new_tokens for c in coded if c.asks and c.probe.ask), default=0)
    longest_prompt, longest_text = max(len(c.prompt) for c in coded), max(c.width - len(c.prompt) for c in coded)
    needed = longest_prompt + longest_text + longest_answer + decode.MAX_HOLES + decode.STEP_TOKENS
    return not window or window >= needed


def tokens_whole(batch: Sequence[Coded]) -> int:
    """The number of tokens that :func:`run_whole` runs for ``batch``, padding included."""
    return max(c.width for c in batch) * sum(len(c.texts) for c in batch)


def tokens_reusing(batch: Sequence[Coded]) -> int:
    """The number of tokens that :func:`run_reusing` runs for ``batch``, padding included."""
    text = max(c.width - len(c.prompt) for c in batch)
    return max(len(c.prompt) for c in batch) * len(batch) + text * sum(len(c.texts) for c in batch)


def run_whole(model: nn.Module, batch: Sequence[Coded], pad: int) -> Results:
    """The facts of each text, prompt and text in one sequence; no start of an answer is known."""
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
    """A run that reuses the common prefix of all prompts of ``coded``."""
    columns = zip(*(c.prompt[:-1] for c in coded), strict=False)
    common = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
    if len(common) < MIN_PREFIX or len(coded) < 2:
        return lambda model, batch, pad: run_reusing(model, batch, pad, None)
    ids = torch.tensor([common], device=_device(model))
    cache = caches.empty(model)
    family.run(model, cache=cache, input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True)
    _check_plain(cache)
    stem = caches.row(cache, 0, 0, len(common))
    return lambda model, batch, pad: run_reusing(model, batch, pad, stem)


def run_reusing(model: nn.Module, batch: Sequence[Coded], pad: int, stem: caches.Row | None) -> Results:
    """As :func:`run_whole`, with each prompt run once: its keys and values serve all its texts, and the answer after them.

    ``stem``: the keys and values of the prompts' common prefix.  A text that shares a prefix with an earlier one continues
    from that one's keys, before the last shared token, whose logits are needed for another next token.
    """
    next_logits, prompts = _prompts(model, batch, pad, stem)
    owner = [g for g, c in enumerate(batch) for _ in c.texts]
    texts = [t for c in batch for t in c.texts]
    labels = torch.tensor([t[0] for t in texts], dtype=torch.long, device=next_logits.device)
    results = split(facts(next_logits[owner], labels), [1] * len(texts))
    known_answers = [
        KnownStart((int(next_logits[g].argmax()),), prompts[g]) if c.asks else None for g, c in enumerate(batch)
    ]

    branches = _branches(batch)
    deferred = {j for group in branches.values() for j in group}
    keys = {i: prompts[owner[i]] for i in range(len(texts)) if i not in deferred}  # that each text continues from
    while keys:
        next_keys: dict[int, caches.Row] = {}
        for group in _by_length({i: len(texts[i]) - len(results[i].logp) for i in keys}, next_logits.device):
            remaining = [texts[i][len(results[i].logp) - 1 :] for i in group]
            cache, mask = caches.stacked([keys[i] for i in group], max(map(len, remaining)) - 1)
            ids, real = padded([t[:-1] for t in remaining], pad, next_logits.device)
            logits = _read(model, ids, real.bool(), real, mask, cache)
            labels = torch.tensor([y for t in remaining for y in t[1:]], device=next_logits.device)
            new = split(facts(logits, labels), [len(t) - 1 for t in remaining])
            for r, i in enumerate(group):
                results[i] = joined([results[i], new[r]])
                begin, prompt = mask.shape[1] - caches.length(keys[i]), caches.length(prompts[owner[i]])
                known, agreed = known_answers[owner[i]], _agreed(texts[i], results[i])
                if known and len(agreed) > len(known.said):
                    known_answers[owner[i]] = KnownStart(
                        agreed, caches.row(cache, r, begin, begin + prompt + len(agreed) - 1)
                    )
                if shorter := branches.get(i):
                    longest = caches.row(cache, r, begin, begin + prompt + max(shorter.values()) - 1)
                    for j, n in shorter.items():
                        results[j], next_keys[j] = first(results[i], n), caches.prefix(longest, prompt + n - 1)
        keys = next_keys
    return results, known_answers


def _prompts(
    model: nn.Module, batch: Sequence[Coded], pad: int, stem: caches.Row | None
) -> tuple[Tensor, list[caches.Row]]:
    """(G, V) logits after each prompt, and its keys and values."""
    device = _device(model)
    reused = caches.length(stem) if stem else 0
    logits: dict[int, Tensor] = {}
    keys: dict[int, caches.Row] = {}
    for group in _by_length({g: len(c.prompt) - reused for g, c in enumerate(batch)}, device):
        ids, real = padded([batch[g].prompt[reused:] for g in group], pad, device)
        start = caches.stacked([stem] * len(group), ids.shape[1]) if stem else (caches.empty(model), real[:, :0])
        cache, mask = start
        is_last = torch.arange(ids.shape[1], device=device) == real.sum(1, keepdim=True) - 1
        logits_after = _read(model, ids, is_last, real, mask, cache)
        _check_plain(cache)
        for r, g in enumerate(group):
            logits[g], keys[g] = logits_after[r], caches.row(cache, r, 0, len(batch[g].prompt))
    return torch.stack([logits[g] for g in range(len(batch))]), [keys[g] for g in range(len(batch))]


def _read(model: nn.Module, ids: Tensor, keep: Tensor, real: Tensor, mask: Tensor, cache: Any) -> Tensor:
    """Logits at ``keep`` of ``ids`` (B, t), real where ``real``, that continue the ``cache`` with its ``mask`` (B, T)."""
    logits, _ = logits_at(
        model,
        keep,
        input_ids=ids,
        attention_mask=torch.cat([mask, real], 1),
        position_ids=mask.sum(1, keepdim=True) + torch.arange(ids.shape[1], device=ids.device),
        cache=cache,
        use_cache=True,
    )
    return logits


def _branches(batch: Sequence[Coded]) -> dict[int, dict[int, int]]:
    """Text -> {shorter text after the same prompt with the same prefix: length of that prefix}."""
    branches: dict[int, dict[int, int]] = {}
    begin = 0
    for c in batch:
        order = sorted(range(len(c.texts)), key=lambda k: len(c.texts[k]), reverse=True)
        for position, k in enumerate(order):
            shared = {j: _shared(c.texts[j], c.texts[k]) for j in order[:position]}
            closest = max(shared, key=shared.__getitem__, default=k)
            if shared.get(closest, 0) >= MIN_PREFIX:
                branches.setdefault(begin + closest, {})[begin + k] = shared[closest]
        begin += len(c.texts)
    return branches


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _by_length(lengths: Mapping[int, int], device: torch.device) -> Iterator[list[int]]:
    """The texts with tokens left to run, in batches of similar length, longest first."""
    limit, group = CPU_TOKENS if device.type == "cpu" else TOKENS, list[int]()
    for i in sorted((i for i, n in lengths.items() if n), key=lengths.__getitem__, reverse=True):
        if group and (len(group) + 1) * lengths[group[0]] > limit:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _check_plain(cache: Any) -> None:
    if not caches.keeps_all_positions(cache):
        raise NotImplementedError("keys and values of this model cannot be taken apart")


def _agreed(text: tuple[int, ...], facts: Facts) -> tuple[int, ...]:
    """The tokens of ``text`` that greedy decoding would generate, and its first differing token, if any."""
    best = facts.best.tolist()
    difference = next((t for t, (b, y) in enumerate(zip(best, text, strict=True)) if b != y), len(text) - 1)
    return (*text[:difference], best[difference])


def padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, T) ids padded on the right, and the mask of what is real."""
    width = max(map(len, rows))
    ids = torch.tensor([[*r, *[pad] * (width - len(r))] for r in rows], device=device)
    mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows], device=device)
    return ids, mask


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
