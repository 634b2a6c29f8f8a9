"""The one place that runs a model for evaluation: every text scored once, every prompt answered once.

A probe's prompt is run once and its keys and values are reused for each of its texts; probes of like length share a
batch; the head computes logits at the tokens that are scored.  Everything any metric or membership attack needs is
read off those logits, so no metric needs a pass of its own.

Under ``accelerate launch`` each process takes every n-th probe and the shares are put together at the end: none twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.data.chat import continuation, encode, prompt_ids
from expunge.errors import InputError
from expunge.evaluation import generate
from expunge.evaluation.gradient import grad_norm
from expunge.evaluation.probe import Probe
from expunge.evaluation.table import Collected, Generated, Scored, join
from expunge.forward import IGNORE, logits_at

BATCH_TOKENS = 4096  # prompt and answer tokens of a batch, padding included
ROWS = 1 << 22  # elements of the largest temporary over the vocabulary
CLOSE = 1e-2  # mean difference of the log-probabilities between a reused prompt and a whole pass

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Coded:
    """A probe as tokens: its prompt (P,), and the tokens (T,) of each of its ``variants`` after it."""

    probe: Probe
    prompt: tuple[int, ...]
    variants: tuple[str, ...]
    texts: tuple[tuple[int, ...], ...]

    @property
    def width(self) -> int:
        """The longest of its sequences."""
        return len(self.prompt) + max(map(len, self.texts), default=0)


@dataclass(frozen=True)
class Facts:
    """Of n tokens: log-probability, mean and deviation of it over the vocabulary, and whether it is the largest."""

    logp: Tensor
    mean: Tensor
    std: Tensor
    hit: Tensor


@torch.no_grad()
def collect(
    model: nn.Module,
    tokenizer: Any,
    probes: Sequence[Probe],
    *,
    max_length: int = 512,
    chat_template: bool = True,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress | None = None,
) -> Collected:
    """Run ``model`` over ``probes``; ``progress`` is told of each text scored and each prompt answered.

    Raises InputError where ``max_length`` leaves nothing of an answer, or a log-probability is no number.
    """
    from accelerate import PartialState

    model.eval()
    state = PartialState()
    mine = probes[state.process_index :: state.num_processes]
    options: dict[str, Any] = {"max_length": max_length, "chat_template": chat_template}
    coded = [c for p in mine for c in _code(p, tokenizer, options)]
    found = Collected(
        tuple(_score(model, coded, int(tokenizer.pad_token_id), tokenizer.eos_token_id, batch_tokens, progress)),
        tuple(_answer(model, tokenizer, [p for p in mine if p.ask], chat_template, progress)),
    )
    if state.num_processes == 1:
        return found
    from accelerate.utils import gather_object

    return join(gather_object([found]))


# -- scoring --------------------------------------------------------------------------------------------------------------
def _code(probe: Probe, tokenizer: Any, options: dict[str, Any]) -> list[Coded]:
    """The tokens, texts after one prompt together: one value, but for plain texts, whose prompt is their own first token."""
    groups: dict[tuple[int, ...], dict[str, tuple[int, ...]]] = {}
    for variant, text in probe.texts.items():
        if probe.continues:
            example = continuation(probe.row, tokenizer, text, **options)
        else:
            example = encode(probe.row, tokenizer, answer=text, **options)
        cut = max(1, next((t for t, y in enumerate(example.labels) if y != IGNORE), len(example.labels)))
        if not example.input_ids[cut:]:
            raise InputError(
                f"{probe.row.where or f'{probe.part}, row {probe.index}'}: max_length={options['max_length']} leaves "
                f"nothing of the text {variant!r} to score; raise it"
            )
        groups.setdefault(example.input_ids[:cut], {})[variant] = example.input_ids[cut:]
    return [Coded(probe, prompt, tuple(texts), tuple(texts.values())) for prompt, texts in groups.items()]


def _batches(coded: Sequence[Coded], batch_tokens: int) -> Iterator[list[Coded]]:
    """Probes of like length, longest first, as many as fit into ``batch_tokens``."""
    batch: list[Coded] = []
    rows = 0
    for c in sorted(coded, key=lambda c: c.width, reverse=True):
        if batch and (rows + len(c.texts)) * batch[0].width > batch_tokens:
            yield batch
            batch, rows = [], 0
        batch.append(c)
        rows += len(c.texts)
    if batch:
        yield batch


def _score(
    model: nn.Module, coded: Sequence[Coded], pad: int, eos: int | None, batch_tokens: int, progress: Progress | None
) -> Iterator[Scored]:
    run: Callable[[nn.Module, list[Coded], int], list[Facts]] | None = None
    for batch in _batches(coded, batch_tokens):
        run = run or _way(model, batch, pad)
        results = iter(run(model, batch, pad))
        for c in batch:
            for variant, tokens in zip(c.variants, c.texts, strict=True):
                ends = tokens[-1] == eos
                norm = (
                    grad_norm(model, c.prompt, tokens[: len(tokens) - ends]) if variant in c.probe.grad_norm else None
                )
                yield _scored(c.probe, variant, next(results), ends=ends, norm=norm)
        if progress:
            progress(sum(len(c.texts) for c in batch))


def _scored(probe: Probe, variant: str, facts: Facts, *, ends: bool, norm: float | None) -> Scored:
    logp, mean, std = (np.asarray(t.cpu(), np.float32) for t in (facts.logp, facts.mean, facts.std))
    if not np.isfinite(logp).all():
        raise InputError(
            f"{probe.row.where or f'{probe.part}, row {probe.index}'}: the model's log-probabilities of {variant!r} are "
            "no numbers (NaN or infinite); are its weights whole, or is its number format too narrow?"
        )
    hit = np.asarray(facts.hit.cpu(), bool)
    text = probe.texts[variant]
    return Scored(probe.part, probe.index, variant, text, logp, mean, std, hit, ends, norm, probe.note)


def _way(model: nn.Module, batch: list[Coded], pad: int) -> Callable[[nn.Module, list[Coded], int], list[Facts]]:
    """How this model is run: with prompts reused if that gives what whole sequences give on the first probe."""
    first = batch[-1:]  # the shortest
    whole = torch.cat([f.logp for f in run_whole(model, first, pad)])
    try:
        reused = torch.cat([f.logp for f in run_reusing(model, first, pad)])
    except (AttributeError, TypeError, ValueError, NotImplementedError):  # no cache, or one that cannot be repeated
        return run_whole
    return run_reusing if float((whole - reused).abs().mean()) < CLOSE else run_whole


def run_whole(model: nn.Module, batch: list[Coded], pad: int) -> list[Facts]:
    """The facts of each text, prompt and text in one sequence."""
    rows = [(c.prompt, t) for c in batch for t in c.texts]
    ids, mask = _padded([p + t for p, t in rows], pad, _device(model))
    keep = torch.zeros_like(mask, dtype=torch.bool)
    for i, (p, t) in enumerate(rows):
        keep[i, len(p) - 1 : len(p) + len(t) - 1] = True
    logits, _ = logits_at(model, keep, input_ids=ids, attention_mask=mask, use_cache=False)
    labels = torch.tensor([y for _, t in rows for y in t], device=ids.device)
    return _split(_facts(logits, labels), [len(t) for _, t in rows])


def run_reusing(model: nn.Module, batch: list[Coded], pad: int) -> list[Facts]:
    """The same with each prompt run once: its keys and values serve all its texts."""
    device = _device(model)
    prompts, prompt_mask = _padded([c.prompt for c in batch], pad, device)
    lengths = prompt_mask.sum(1)
    last = torch.arange(prompts.shape[1], device=device) == lengths[:, None] - 1
    first, out = logits_at(model, last, input_ids=prompts, attention_mask=prompt_mask, use_cache=True)

    owner = torch.tensor([g for g, c in enumerate(batch) for _ in c.texts], device=device)
    texts = [t for c in batch for t in c.texts]
    facts = _split(_facts(first[owner], torch.tensor([t[0] for t in texts], device=device)), [1] * len(texts))
    longer = [i for i, t in enumerate(texts) if len(t) > 1]
    if longer:
        cache = out.past_key_values
        cache.batch_select_indices(owner[longer])
        ids, mask = _padded([texts[i][:-1] for i in longer], pad, device)
        places = lengths[owner[longer], None] + torch.arange(ids.shape[1], device=device)
        logits, _ = logits_at(
            model,
            mask.bool(),
            input_ids=ids,
            attention_mask=torch.cat([prompt_mask[owner[longer]], mask], 1),
            position_ids=places,
            past_key_values=cache,
            use_cache=True,
        )
        labels = torch.tensor([y for i in longer for y in texts[i][1:]], device=device)
        for i, rest in zip(longer, _split(_facts(logits, labels), [len(texts[i]) - 1 for i in longer]), strict=True):
            facts[i] = Facts(*(torch.cat(pair) for pair in zip(_fields(facts[i]), _fields(rest), strict=True)))
    return facts


def _facts(logits: Tensor, labels: Tensor) -> Facts:
    """(n, V), (n,) -> facts of n tokens, in fp32, a few rows of the vocabulary at a time."""
    parts: list[tuple[Tensor, ...]] = []
    step = max(1, ROWS // logits.shape[-1])
    for i in range(0, len(logits), step):
        z, y = logits[i : i + step].float(), labels[i : i + step]
        every = z.log_softmax(-1)
        p = every.exp()
        mean = (p * every).sum(-1)
        spread = ((p * every.square()).sum(-1) - mean.square()).clamp(min=0).sqrt()
        parts.append((every.gather(1, y[:, None]).squeeze(1), mean, spread, z.argmax(-1) == y))
    return Facts(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _split(facts: Facts, lengths: list[int]) -> list[Facts]:
    return [Facts(*columns) for columns in zip(*(f.split(lengths) for f in _fields(facts)), strict=True)]


def _fields(facts: Facts) -> tuple[Tensor, ...]:
    return facts.logp, facts.mean, facts.std, facts.hit


def _padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, T) ids padded on the right, and the mask of what is real."""
    width = max(map(len, rows))
    ids = torch.tensor([[*r, *[pad] * (width - len(r))] for r in rows], device=device)
    mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows], device=device)
    return ids, mask


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


# -- answers --------------------------------------------------------------------------------------------------------------
def _answer(
    model: nn.Module, tokenizer: Any, probes: Sequence[Probe], chat_template: bool, progress: Progress | None
) -> Iterator[Generated]:
    """The greedy answers, probes of one way of asking together."""
    for ask in dict.fromkeys(p.ask for p in probes):
        assert ask is not None
        group = [p for p in probes if p.ask == ask]
        prompts = [prompt_ids(p.row, tokenizer, chat_template=chat_template) for p in group]
        made = generate.answers(
            model, tokenizer, prompts, max_new_tokens=ask.max_new_tokens, stop=ask.stop, progress=progress
        )
        for p, text in zip(group, made, strict=True):
            yield answered(p, tokenizer, text)


def answered(probe: Probe, tokenizer: Any, text: str) -> Generated:
    """``text`` as what the model answered; where the right answer is cut, a begin-of-text token counts, as in MUSE."""
    assert probe.ask is not None
    expected = probe.row.answer
    if probe.ask.cut:
        ids = tokenizer(expected).input_ids
        expected = tokenizer.decode(ids[: probe.ask.max_new_tokens], skip_special_tokens=True)
    said = generate.cut(text, probe.ask.stop).strip()
    return Generated(probe.part, probe.index, "answer", expected, said, probe.note)
