"""Reveal as a command: from a model and a topic (or a scorer, or seed instructions) to a forget set on disk.

The folder holds ``revealed.jsonl`` (the forget set, each row with where it came from), ``neutral.jsonl`` (questions about
anything, answered by the model: a retain set from nothing), ``queries.jsonl`` (every instruction asked, every answer, every
part of the score), ``arms.json`` (the instructions to choose from) and ``reveal.json`` (settings, fingerprints, counts).
"""

from __future__ import annotations

import datetime
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from expunge import __version__, files, models, outputs, record
from expunge.data import template
from expunge.data.chat import question
from expunge.data.example import Row
from expunge.data.sources import load_rows
from expunge.errors import InputError
from expunge.generation import sample as generate
from expunge.models.tokenizer import load_tokenizer
from expunge.reveal import arms, bandit, embed, linear, search, surrogate
from expunge.reveal.arms import Meta
from expunge.reveal.settings import Reveal, make
from expunge.scorers import Scorer, checked, scorer
from expunge.settings import name_of

NEUTRAL_DRAWS = 3  # times that neutral rows are drawn where too many are relevant
LEAST_NEUTRAL = 8  # of which a mean can be taken
FILES = ("queries.jsonl", "revealed.jsonl", "neutral.jsonl", "arms.json", "reveal.json")
QUERIES, REVEALED, NEUTRAL, ARMS, RECORD = FILES
LAYOUT = outputs.Layout(RECORD, "an earlier search is here", entries=FILES)
ABOUT = 16  # answers to each seed that show what the topic is
HERE = ("model", "out", "overwrite", "device", "trust_remote_code", "model_name")  # do not decide what is found
FEW = 8  # revealed answers, below which a forget set is of little use
SEED_STEP = 1_000_003  # between the random draws of two seeds


@dataclass(frozen=True)
class Result:
    """The rows that were revealed, what ``reveal.json`` says, and the folder."""

    rows: list[dict[str, Any]]
    record: dict[str, Any]
    folder: Path


def reveal(model: str, **settings: Any) -> Result:
    """Make ``model`` tell what it knows and write it down as a forget set; ``settings`` are those of
    :class:`~expunge.reveal.settings.Reveal`.

    Raises InputError for what is wrong in the settings before the model is loaded.
    """
    return run(make({"model": name_of(model), **settings}))


def run(settings: Reveal, *, command: str | None = None) -> Result:
    """Carry out a search, or go on with one that was interrupted in the same folder."""
    given = check(settings)
    with outputs.claimed(settings.out, LAYOUT, overwrite=settings.overwrite, resumable=True) as folder:
        return _carried_out(settings, given, folder, command)


def _carried_out(settings: Reveal, given: Scorer | None, folder: Path, command: str | None) -> Result:
    """What :func:`run` does after :func:`check`, in a folder that is this process's alone."""
    began = time.monotonic()
    meta, form, plan = settings.meta, settings.prompt_form, settings.plan
    encoder = embed.sentence_transformer(settings.embeddings) if settings.embeddings else None
    past = [] if settings.overwrite else search.read_log(folder / QUERIES)

    loaded = models.load(
        settings.model,
        dtype=getattr(torch, settings.dtype),
        device=settings.device,
        trust_remote_code=settings.trust_remote_code,
    )
    template.use(loaded.tokenizer, settings.template_arguments if settings.chat_template else {})
    said = _claimed(folder, settings, loaded.fingerprint)
    written, tools = _tools(loaded.model, loaded.tokenizer, meta, given, encoder, settings, folder)
    asked = list(written)
    features = arms.features(loaded.model, loaded.tokenizer, asked, form=form, chat_template=settings.chat_template)
    log = []
    files.cut_unfinished_line(folder / QUERIES)
    total = plan.rounds * (plan.queries + (plan.best if plan.harvest else 0))
    with tqdm(total=total, initial=len(past), desc="asking", leave=False) as bar:
        for n, entry in enumerate(search.search(asked, features, plan, tools, past=past)):
            log.append(entry)
            if n >= len(past):
                files.append_line(folder / QUERIES, asdict(entry), mode=files.PRIVATE)
                bar.update()
    found = search.revealed(log, plan)
    rows = [search.row(e, i, form) for e, i in found.kept]
    files.write_lines(folder / REVEALED, rows, mode=files.PRIVATE)
    queries = [e for e in log if e.kind == "query"]
    said |= {
        "command": record.renamed(command, {settings.model: settings.model_name} if settings.model_name else {}),
        "instructions": len(asked),
        "queries": len(queries),
        "answers": sum(len(e.answers) for e in log),
        "revealed": len(rows),
        "dropped": found.dropped,
        "warnings": _warnings(len(rows), found.dropped),
        "best": max((e.scores for e in queries), key=lambda scores: scores["score"]),
        "seconds": said.get("seconds", 0.0) + time.monotonic() - began,
        "private_files": [name for name in FILES if name != RECORD and (folder / name).exists()],
        "output": files.sha256_file(folder / REVEALED),
    }
    files.write_json(folder / RECORD, said)
    return Result(rows, said, folder)


def check(settings: Reveal) -> Scorer | None:
    """Raise InputError for what does not fit, before a model is loaded; returns the scorer that is named."""
    _ = settings.meta, settings.prompt_form, settings.plan, settings.sampling
    given = scorer(settings.scorer) if settings.scorer else None
    folder = outputs.check(
        settings.out, LAYOUT, inputs={"model": settings.model}, overwrite=settings.overwrite, resumable=True
    )
    _check_search(folder, settings)
    return given


def planned(settings: Reveal) -> dict[str, Any]:
    """What :func:`run` would do, when all that can be checked without a model is in order; nothing is written."""
    check(settings)
    load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    search_plan = settings.plan
    return {
        "model": settings.model,
        "data": {"neutral": settings.neutral},
        "method": settings.chooser,
        "steps": search_plan.rounds * search_plan.queries,
        "out": settings.out,
    }


def _warnings(revealed: int, dropped: Mapping[str, int]) -> list[str]:
    """What a reader of the record should know of a forget set that is small or empty."""
    why = ", ".join(f"{n} {reason}" for reason, n in dropped.items()) or "none was relevant"
    if not revealed:
        return [f"no answer was revealed ({why}): ask more (rounds, queries), or lower threshold"]
    few = f"only {revealed} answer(s) were revealed ({why}): ask more (rounds, queries) for a forget set of use"
    return [few] if revealed < FEW else []


# -- what the search works with -------------------------------------------------------------------------------------------
def _tools(
    net: Any,
    tokenizer: Any,
    meta: Meta,
    given: Scorer | None,
    encoder: embed.Embed | None,
    settings: Reveal,
    folder: Path,
) -> tuple[dict[str, int], search.Tools]:
    """The instructions that the arms wrote, each with the first arm that wrote it, and the tools of the search."""
    how: dict[str, Any] = {"chat_template": settings.chat_template}
    neutral = _neutral(folder, net, tokenizer, settings, given)
    vectors = embed.remembered(encoder or embed.hidden_states(net, tokenizer))
    shape = {"tokens": settings.soft_tokens, "dimension": settings.dimension, "scale": settings.scale}
    soft = arms.soft_prompts(net, settings.arms, seed=settings.seed, **shape)  # type: ignore[arg-type]

    def sampled(temperature: float) -> generate.Sampling:
        return generate.Sampling(temperature, 1.0, settings.instruction_tokens)

    def ask(questions: Sequence[str], seed: int) -> list[generate.Answer]:
        draws = _random(settings, seed)
        return generate.answers(
            net, tokenizer, questions, sampling=settings.sampling, generator=draws, form=settings.prompt_form, **how
        )

    def vary(arm: int, examples: Sequence[str], n: int, seed: int) -> list[str]:
        own, draws = soft[first[arm]].expand(n, -1, -1), _random(settings, seed)
        after = Meta(meta.heading, tuple(dict.fromkeys([*meta.seeds, *examples])))
        return arms.instructions(
            net, tokenizer, after, own, sampling=sampled(max(1.0, settings.arm_temperature)), generator=draws, **how
        )

    draws = _random(settings, -1)
    writing = sampled(settings.arm_temperature)
    written = _written(
        folder / ARMS, lambda: arms.instructions(net, tokenizer, meta, soft, sampling=writing, generator=draws, **how)
    )
    first = list(written.values())
    if given is None:
        about = [a.text for a in ask([s for s in meta.seeds for _ in range(ABOUT)], -2) if a.text]
        given = checked(embed.topic(vectors, about, [r.answer for r in neutral]), "topic")
    centre = vectors([r.answer for r in neutral]).mean(0)
    return written, search.Tools(ask, vary, given, vectors, centre, _chooser(settings))


def _written(file: Path, write: Callable[[], list[str]]) -> dict[str, int]:
    """Each instruction that an arm wrote, and the first that did; from ``file``, or now and into it."""
    if not file.exists():
        files.write_json(file, write(), mode=files.PRIVATE)
    out: dict[str, int] = {}
    for i, text in enumerate(
        files.read_list(file, description="list of instructions", remedy="restore it, or --overwrite")
    ):
        if text:
            out.setdefault(text, i)
    if not out:
        raise InputError("the model wrote no instruction at all; try other seeds or another heading")
    return out


def _chooser(settings: Reveal) -> search.Chooser:
    if settings.chooser != "random":
        guess = linear.predict if settings.chooser == "linear" else bandit.predict
        return partial(bandit.choose, settings=surrogate.Settings(nu=settings.nu, seed=settings.seed), guess=guess)

    def at_random(features: torch.Tensor, observed: bandit.Observed, allowed: Sequence[bool]) -> int:
        draws = random.Random(settings.seed * SEED_STEP + allowed.count(True))
        return draws.choice([i for i, free in enumerate(allowed) if free])

    return at_random


def _random(settings: Reveal, draw: int) -> torch.Generator:
    return torch.Generator().manual_seed(settings.seed * SEED_STEP + draw + 10)


def _neutral(folder: Path, net: Any, tokenizer: Any, settings: Reveal, given: Scorer | None) -> list[Row]:
    """The neutral rows of ``folder``, written now if there are none.

    Rows that the scorer finds relevant are left out and drawn again: a model that swears unasked would keep its swearing.
    """
    if not (folder / NEUTRAL).exists():
        rows: list[Row] = []
        drawn = 0
        for attempt in range(NEUTRAL_DRAWS):
            found = generate.neutral_rows(
                net,
                tokenizer,
                settings.neutral,
                seed=settings.seed + attempt * SEED_STEP,
                sampling=settings.sampling,
                chat_template=settings.chat_template,
            )
            drawn += len(found)
            rows += found if given is None else _irrelevant(found, given, settings.threshold)
            if given is None or len(rows) >= settings.neutral:
                break
        if len(rows) < LEAST_NEUTRAL:
            raise InputError(
                f"of {drawn} neutral rows that the model wrote, {drawn - len(rows)} hold what is to be revealed, so "
                "none can be told from it; choose a higher threshold or another scorer"
            )
        rows = rows[: settings.neutral]
        raw = ({"question": question(r), "answer": r.answer} for r in rows)
        files.write_lines(folder / NEUTRAL, raw, mode=files.PRIVATE)
    return load_rows(folder / NEUTRAL)


def _irrelevant(rows: Sequence[Row], given: Scorer, threshold: float) -> list[Row]:
    values = given([f"{question(r)}\n{r.answer}" for r in rows])
    return [r for r, value in zip(rows, values, strict=True) if value < threshold]


# -- the folder -----------------------------------------------------------------------------------------------------------
def _check_search(folder: Path, settings: Reveal) -> None:
    """Raise InputError if something that is not this search is in ``folder`` and may not be written over."""
    if settings.overwrite:
        return
    there = _read_record(folder)
    if there is not None and there.get("settings") != _decides(settings):
        raise InputError(f"{folder} holds a search with other settings; choose another folder, or --overwrite")


def _claimed(folder: Path, settings: Reveal, fingerprint: str) -> dict[str, Any]:
    """What ``reveal.json`` says so far, of this model or an InputError; with ``overwrite`` what was there goes away."""
    folder.mkdir(parents=True, exist_ok=True)
    if settings.overwrite:
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
    there = _read_record(folder)
    if there is not None:
        if there["model"]["fingerprint"] != fingerprint:
            raise InputError(f"{folder} holds a search in another model; choose another folder, or --overwrite")
        return there
    said = {
        "schema": record.SCHEMA,
        "expunge": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model": {"source": settings.model_name or settings.model, "fingerprint": fingerprint},
        "settings": _decides(settings),
        "versions": record.versions(),
    }
    files.write_json(folder / RECORD, said)
    return said


def _read_record(folder: Path) -> dict[str, Any] | None:
    file = folder / RECORD
    if not file.exists():
        return None
    said = files.read_json(file, description="record", remedy="restore it, or --overwrite")
    return record.check_schema(said, file, unnamed=1)


def _decides(settings: Reveal) -> dict[str, Any]:
    said = {k: v for k, v in settings.model_dump().items() if k not in HERE}
    before_a_choice: tuple[tuple[str, Any], ...] = (("dtype", "float32"), ("template_arguments", {}))
    return {k: v for k, v in said.items() if (k, v) not in before_a_choice}
