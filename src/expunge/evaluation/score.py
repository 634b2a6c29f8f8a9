"""Batches of prompts and texts through the model: what it thinks of every token, and where its own answers part ways.

Three things are run once only: the tokens that all prompts begin with (a chat template's system prompt), each prompt, and
each right answer as far as greedy decoding agrees with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from expunge.evaluation import cache as caches
from expunge.evaluation.probe import Probe
from expunge.forward import logits_at

TOKENS = 1024  # of the texts that are run together, padding included
ROWS = 1 << 22  # elements of the largest temporary over the vocabulary
CLOSE = 1e-2  # mean difference of the log-probabilities between a reused prompt and a whole pass
LEAST = 4  # tokens that all prompts begin with: fewer are not worth keeping


@dataclass(frozen=True)
class Coded:
    """A probe as tokens: its prompt (P,), and the tokens (T,) of each of its ``variants`` after it.

    ``asks``: the model is to go on from this prompt by itself.
    """

    probe: Probe
    prompt: tuple[int, ...]
    variants: tuple[str, ...]
    texts: tuple[tuple[int, ...], ...]
    asks: bool

    @property
    def width(self) -> int:
        """The longest of its sequences."""
        return len(self.prompt) + max(map(len, self.texts), default=0)


@dataclass(frozen=True)
class Facts:
    """Of n tokens: log-probability, mean and deviation of it over the vocabulary, and the likeliest token there."""

    logp: Tensor
    mean: Tensor
    std: Tensor
    best: Tensor


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
    try:
        _windows_are_wide(model, coded)
        reusing = _reusing(model, coded)
        whole, reused = run_whole(model, first, pad)[0], reusing(model, first, pad)[0]
    except (AttributeError, TypeError, ValueError, NotImplementedError):  # no cache, or one that cannot be repeated
        return run_whole
    if not whole:
        return reusing
    difference = torch.cat([f.logp for f in whole]) - torch.cat([f.logp for f in reused])
    return reusing if float(difference.abs().mean()) < CLOSE else run_whole


def _windows_are_wide(model: nn.Module, coded: Sequence[Coded]) -> None:
    """Raise NotImplementedError where a sliding window may not reach over all of a sequence: padding would count in it."""
    window = getattr(model.config.get_text_config(), "sliding_window", None)  # type: ignore[union-attr, operator]
    asks = max((c.probe.ask.max_new_tokens for c in coded if c.asks and c.probe.ask), default=0)
    prompt, text = max(len(c.prompt) for c in coded), max(c.width - len(c.prompt) for c in coded)
    if window and window < prompt + text + asks:
        raise NotImplementedError("a sequence is longer than the model's sliding window")


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
    return _split(_facts(logits, labels), [len(t) for _, t in rows]), [None] * len(batch)


def _reusing(model: nn.Module, coded: Sequence[Coded]) -> Run:
    """A run that shares what all prompts of ``coded`` begin with."""
    columns = zip(*(c.prompt[:-1] for c in coded), strict=False)
    same = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
    if len(same) < LEAST or len(coded) < 2:
        return lambda model, batch, pad: run_reusing(model, batch, pad, None)
    ids = torch.tensor([same], device=_device(model))
    cache = caches.empty()
    model(input_ids=ids, attention_mask=torch.ones_like(ids), past_key_values=cache, use_cache=True)
    _be_plain(cache)
    stem = caches.row(cache, 0, torch.arange(len(same), device=ids.device))
    return lambda model, batch, pad: run_reusing(model, batch, pad, stem)


def run_reusing(model: nn.Module, batch: Sequence[Coded], pad: int, stem: caches.Row | None) -> Results:
    """The same with each prompt run once: its keys and values serve all its texts, and the answer after them.

    ``stem``: the keys and values of the tokens that all prompts begin with.
    """
    device = _device(model)
    begun = stem[0][0].shape[2] if stem else 0
    prompts, mask = padded([c.prompt[begun:] for c in batch], pad, device)
    last = torch.arange(prompts.shape[1], device=device) == mask.sum(1, keepdim=True) - 1
    mask = torch.cat([mask.new_ones(len(batch), begun), mask], 1)
    cache = caches.repeated(stem, len(batch)) if stem else caches.empty()
    first, _ = logits_at(
        model,
        last,
        input_ids=prompts,
        attention_mask=mask,
        position_ids=(begun + torch.arange(prompts.shape[1], device=device)).expand(len(batch), -1),
        past_key_values=cache,
        use_cache=True,
    )
    _be_plain(cache)

    owner = [g for g, c in enumerate(batch) for _ in c.texts]
    texts = [t for c in batch for t in c.texts]
    facts = _split(
        _facts(first[owner], torch.tensor([t[0] for t in texts], dtype=torch.long, device=device)), [1] * len(texts)
    )
    real = [mask[g].nonzero().squeeze(1) for g in range(len(batch))]  # the columns of each prompt
    met = [
        Met((int(first[g].argmax()),), caches.row(cache, g, real[g])) if c.asks else None for g, c in enumerate(batch)
    ]
    for some in _alike({i: t for i, t in enumerate(texts) if len(t) > 1}):
        owners = torch.tensor([owner[i] for i in some], device=device)
        branch = caches.select(cache, owners)
        ids, there = padded([texts[i][:-1] for i in some], pad, device)
        logits, _ = logits_at(
            model,
            there.bool(),
            input_ids=ids,
            attention_mask=torch.cat([mask[owners], there], 1),
            position_ids=mask[owners].sum(1, keepdim=True) + torch.arange(ids.shape[1], device=device),
            past_key_values=branch,
            use_cache=True,
        )
        labels = torch.tensor([y for i in some for y in texts[i][1:]], device=device)
        for r, (i, rest) in enumerate(
            zip(some, _split(_facts(logits, labels), [len(texts[i]) - 1 for i in some]), strict=True)
        ):
            facts[i] = Facts(*(torch.cat(pair) for pair in zip(_fields(facts[i]), _fields(rest), strict=True)))
            so_far, said = met[owner[i]], _agreed(texts[i], facts[i])
            if so_far and len(said) > len(so_far.said):
                read = mask.shape[1] + torch.arange(len(said) - 1, device=device)
                met[owner[i]] = Met(said, caches.row(branch, r, torch.cat([real[owner[i]], read])))
    return facts, met


def _alike(texts: Mapping[int, Sequence[int]]) -> Iterator[list[int]]:
    """The texts in batches of like length, longest first, at most ``TOKENS`` tokens each."""
    some: list[int] = []
    for i in sorted(texts, key=lambda i: len(texts[i]), reverse=True):
        if some and (len(some) + 1) * len(texts[some[0]]) > TOKENS:
            yield some
            some = []
        some.append(i)
    if some:
        yield some


def _be_plain(cache: DynamicCache) -> None:
    if not caches.plain(cache):
        raise NotImplementedError("keys and values of this model cannot be taken apart")


def _agreed(text: tuple[int, ...], facts: Facts) -> tuple[int, ...]:
    """What greedy decoding says as long as it says ``text``, and the one token after that if it says another."""
    best = facts.best.tolist()
    parted = next((t for t, (b, y) in enumerate(zip(best, text, strict=True)) if b != y), len(text) - 1)
    return (*text[:parted], best[parted])


def _facts(logits: Tensor, labels: Tensor) -> Facts:
    """(n, V), (n,) -> facts of n tokens, in fp32, a few rows of the vocabulary at a time."""
    parts: list[tuple[Tensor, ...]] = []
    step = max(1, ROWS // logits.shape[-1])
    for i in range(0, len(logits), step):
        z, y = logits[i : i + step].float(), labels[i : i + step]
        every = z.log_softmax(-1)
        p = every.exp()
        mean = (p * every).sum(-1, keepdim=True)
        spread = (p * (every - mean).square()).sum(-1).sqrt()
        parts.append((every.gather(1, y[:, None]).squeeze(1), mean.squeeze(1), spread, z.argmax(-1)))
    if not parts:
        none = logits.new_zeros(0)
        return Facts(none, none, none, labels)
    return Facts(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _split(facts: Facts, lengths: list[int]) -> list[Facts]:
    return [Facts(*columns) for columns in zip(*(f.split(lengths) for f in _fields(facts)), strict=True)]


def _fields(facts: Facts) -> tuple[Tensor, ...]:
    return facts.logp, facts.mean, facts.std, facts.best


def padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, T) ids padded on the right, and the mask of what is real."""
    width = max(map(len, rows))
    ids = torch.tensor([[*r, *[pad] * (width - len(r))] for r in rows], device=device)
    mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows], device=device)
    return ids, mask


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
