"""The one place that runs a model for evaluation: every text scored once, every prompt answered once.

A probe's prompt is run once; its keys and values are reused for each of its texts and for the model's own answer, which
starts where the right answer and greedy decoding part ways.  Probes of like length share a batch; the head computes
logits at the tokens that are scored.  Everything any metric or membership attack needs is read off those logits; only the
gradient norm has a pass of its own.

Under ``accelerate launch`` each process takes every n-th probe and the shares are put together at the end: none twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from expunge.data.chat import continuation, encode, prompt_ids
from expunge.errors import InputError
from expunge.evaluation.collect import gradient, score
from expunge.evaluation.collect.facts import Facts, at_places
from expunge.evaluation.collect.score import Coded, KnownStart
from expunge.evaluation.probe import Ask, Probe
from expunge.evaluation.table import Collected, Generated, Scored, join
from expunge.forward import family
from expunge.forward.view import IGNORE
from expunge.generation import cache as caches
from expunge.generation import decode
from expunge.generation import greedy as generate
from expunge.models.check import check_ids
from expunge.processes import state as processes

BATCH_TOKENS = 4096  # prompt and answer tokens of a batch, padding included
BATCH_TOKENS_CPU = 512  # as fast there, and the first answers are heard of in a quarter of the time
SHARED = 4  # times as many where prompts are run apart from texts, which are batched again by their own length
WAITING = 8192  # tokens of prompts whose answers are decoded together, at least
SHARE = 1 / 32  # of an accelerator's free memory that their keys and values may take, which grow as answers do

Progress = Callable[[int], None]


@torch.no_grad()
def collect(
    model: nn.Module,
    tokenizer: Any,
    probes: Sequence[Probe],
    *,
    max_length: int = 512,
    chat_template: bool = True,
    batch_tokens: int | None = None,
    progress: Progress | None = None,
    coded: Sequence[Coded] | None = None,
    alone: bool = False,
) -> Collected:
    """Run ``model`` over ``probes``; ``progress`` is told of each text scored and each prompt answered.

    ``batch_tokens``: of a batch, prompt and answer tokens and padding; without it what the device takes well.
    ``coded``: what :func:`coded_of` gives of them, which is the same for all models with one tokenizer.  Several processes
    share the probes and all get what each found; ``alone`` one asks all of them.

    Raises InputError where ``max_length`` leaves nothing of an answer, or a log-probability is no number.
    """
    model.eval()
    state = processes()
    mine = probes if alone else probes[state.process_index :: state.num_processes]
    if coded is None or len(mine) < len(probes):
        coded = coded_of(mine, tokenizer, max_length=max_length, chat_template=chat_template)
    _check_tokens(model, tokenizer, coded)
    scores: list[Scored] = []
    answers: list[Generated] = []
    if batch_tokens is None:
        on_cpu = next(model.parameters()).device.type == "cpu"
        batch_tokens = BATCH_TOKENS_CPU if on_cpu else BATCH_TOKENS
    for found in _found(model, tokenizer, coded, batch_tokens):
        (scores if isinstance(found, Scored) else answers).append(found)  # type: ignore[arg-type]
        if progress:
            progress(1)
    table = Collected(tuple(scores), tuple(answers))
    if alone or state.num_processes == 1:
        return table
    return join(gather_object([table]))


def coded_of(probes: Iterable[Probe], tokenizer: Any, *, max_length: int, chat_template: bool) -> list[Coded]:
    """The tokens of ``probes``; raises InputError as :func:`collect`."""
    options: dict[str, Any] = {"max_length": max_length, "chat_template": chat_template}
    return [c for p in probes for c in code(p, tokenizer, options)]


def code(probe: Probe, tokenizer: Any, options: dict[str, Any]) -> list[Coded]:
    """The tokens, texts after one prompt together: one value, but for plain texts, whose prompt is their own first token."""
    groups: dict[tuple[int, ...], dict[str, tuple[int, ...]]] = {}
    scored: dict[str, tuple[int, ...]] = {}  # of a conversation whose earlier turns count too
    asked = None
    if probe.ask:
        asked = tuple(prompt_ids(probe.row, tokenizer, chat_template=options["chat_template"]))
        if not asked:
            raise InputError(f"{_place(probe)}: there is no prompt for the model to answer")
        groups[asked] = {}
    encoded = continuation if probe.continues else encode
    for variant, text in probe.texts.items():
        example = encoded(probe.row, tokenizer, answer=text, **options)
        cut = max(1, next((t for t, y in enumerate(example.labels) if y != IGNORE), len(example.labels)))
        if not example.input_ids[cut:]:
            raise InputError(
                f"{_place(probe)}: max_length={options['max_length']} leaves nothing of the text {variant!r} to score; "
                "raise it"
            )
        groups.setdefault(example.input_ids[:cut], {})[variant] = example.input_ids[cut:]
        labels = example.labels[cut:]
        scored[variant] = tuple(i for i, y in enumerate(labels) if y != IGNORE) if IGNORE in labels else ()
    return [
        Coded(probe, p, tuple(texts), tuple(texts.values()), p == asked, tuple(scored[v] for v in texts))
        for p, texts in groups.items()
    ]


def _check_tokens(model: nn.Module, tokenizer: Any, coded: Iterable[Coded]) -> None:
    """Raise InputError where the model has no embedding for a token."""
    rows: Tensor = model.get_input_embeddings().weight  # type: ignore[operator]
    ids = {i for c in coded for some in (c.prompt, *c.texts) for i in some}
    check_ids(family.shape_of(rows)[0], ids | {int(tokenizer.pad_token_id)}, tokenizer, "this model")


def _batches(
    coded: Sequence[Coded], size: Callable[[Sequence[Coded]], int], batch_tokens: int
) -> Iterator[list[Coded]]:
    """Probes of like length, longest first, as many as fit into ``batch_tokens``."""
    batch: list[Coded] = []
    for c in sorted(coded, key=lambda c: c.width, reverse=True):
        if batch and size([*batch, c]) > batch_tokens:
            yield batch
            batch = []
        batch.append(c)
    if batch:
        yield batch


def _found(model: nn.Module, tokenizer: Any, coded: Sequence[Coded], batch_tokens: int) -> Iterator[Scored | Generated]:
    if not coded:
        return
    pad, end = int(tokenizer.pad_token_id), generate.end_tokens(model, tokenizer)
    run = score.fastest_run(model, coded, pad)
    asked = [(c.prompt, t) for c in coded for v, t in zip(c.variants, c.texts, strict=True) if v in c.probe.grad_norm]
    grad_norm = gradient.fastest_norm(model, [(p, t[: len(t) - (t[-1] in end)]) for p, t in asked])
    greedy = decode.plainly_greedy(model)
    waiting: list[tuple[Probe, KnownStart]] = []
    whole: list[Coded] = []
    most = 0
    size = score.tokens_whole
    if run is not score.run_whole:
        size, batch_tokens = score.tokens_reusing, SHARED * batch_tokens
    for batch in _batches(coded, size, batch_tokens):
        facts, met = run(model, batch, pad)
        results = iter(facts)
        for c, m in zip(batch, met, strict=True):
            for k, (variant, tokens) in enumerate(zip(c.variants, c.texts, strict=True)):
                ends = tokens[-1] in end
                norm = None
                if variant in c.probe.grad_norm:
                    norm = grad_norm(model, c.prompt, tokens[: len(tokens) - ends])
                known = next(results)
                if c.scored and c.scored[k]:
                    known, tokens = at_places(known, c.scored[k]), tuple(tokens[i] for i in c.scored[k])
                yield _scored(c.probe, variant, tokens, known, ends=ends, norm=norm)
            if c.asks and m and greedy:
                most = most or _together(m.keys)
                waiting.append((c.probe, m))
            elif c.asks:
                whole.append(c)
        if sum(m.keys[0][0].shape[2] for _, m in waiting) > most:
            yield from _decoded(model, tokenizer, waiting)
            waiting = []
    yield from _decoded(model, tokenizer, waiting)
    yield from _generated(model, tokenizer, whole)


def _together(keys: caches.Row) -> int:
    """How many tokens of prompts wait until their answers are decoded: a step takes as long for few rows as for many."""
    device = keys[0][0].device
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
    a_token = sum(t.nbytes for layer in keys for t in layer) // keys[0][0].shape[2]
    return max(WAITING, int(free * SHARE) // a_token)


def _scored(
    probe: Probe, variant: str, tokens: tuple[int, ...], facts: Facts, *, ends: bool, norm: float | None
) -> Scored:
    logp, mean, std = (np.asarray(t.cpu(), np.float32) for t in (facts.logp, facts.mean, facts.std))
    if not np.isfinite(logp).all():
        raise InputError(
            f"{_place(probe)}: the model's log-probabilities of {variant!r} are no numbers (NaN or infinite); are its "
            "weights whole, or is its number format too narrow?"
        )
    hit = np.asarray(facts.best.cpu()) == np.asarray(tokens)
    text = probe.texts[variant]
    return Scored(probe.part, probe.index, variant, text, logp, mean, std, hit, ends, norm, probe.note)


# -- answers --------------------------------------------------------------------------------------------------------------
def _decoded(model: nn.Module, tokenizer: Any, waiting: Sequence[tuple[Probe, KnownStart]]) -> Iterator[Generated]:
    """The greedy answers from what is known of them."""
    ends = generate.end_tokens(model, tokenizer)

    def done(ask: Ask) -> Callable[[Sequence[int]], bool]:
        def done(said: Sequence[int]) -> bool:
            return said[-1] in ends or (bool(ask.stop) and any(s in _text(tokenizer, said) for s in ask.stop))

        return done

    starts = []
    for probe, met in waiting:
        assert probe.ask is not None
        prompt = met.keys[0][0].shape[2] - len(met.said) + 1
        limit = family.tokens_left(model, prompt, probe.ask.max_new_tokens)
        starts.append(decode.Start(met.said[:limit], met.keys, limit, done(probe.ask)))
    for (probe, _), said in zip(waiting, decode.decode(model, starts), strict=True):
        yield answered(probe, tokenizer, _text(tokenizer, said))


def _generated(model: nn.Module, tokenizer: Any, coded: Sequence[Coded]) -> Iterator[Generated]:
    """The greedy answers of a model whose keys and values cannot be taken apart, by its own ``generate``."""
    for ask in dict.fromkeys(c.probe.ask for c in coded):
        assert ask is not None
        group = [c for c in coded if c.probe.ask == ask]
        prompts = [c.prompt for c in group]
        made = generate.answers(model, tokenizer, prompts, max_new_tokens=ask.max_new_tokens, stop=ask.stop)
        for c, text in zip(group, made, strict=True):
            yield answered(c.probe, tokenizer, text)


def answered(probe: Probe, tokenizer: Any, text: str) -> Generated:
    """``text`` as what the model answered; where the right answer is cut, a begin-of-text token counts, as in MUSE."""
    assert probe.ask is not None
    expected = probe.row.answer
    if probe.ask.cut:
        ids = tokenizer(expected).input_ids
        expected = tokenizer.decode(ids[: probe.ask.max_new_tokens], skip_special_tokens=True)
    said = generate.cut(text, probe.ask.stop).strip()
    return Generated(probe.part, probe.index, "answer", expected, said, probe.note)


def _text(tokenizer: Any, said: Sequence[int]) -> str:
    result: str = tokenizer.decode(list(said), skip_special_tokens=True)
    return result


def _place(probe: Probe) -> str:
    return probe.row.where or f"{probe.part}, row {probe.index}"
