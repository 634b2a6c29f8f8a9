"""Reveal as a command: from a model and a topic (or a scorer, or seed instructions) to a forget set on disk.

The folder holds ``revealed.jsonl`` (the forget set, each row with its origin), ``neutral.jsonl`` (general
questions answered by the model: a retain set without any data), ``queries.jsonl`` (every instruction, answer and part of
the score), ``arms.json`` (the instructions to choose from) and ``reveal.json`` (settings, fingerprints, counts).
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

from expunge import __version__, files, models, outputs, processes, record
from expunge.data import template
from expunge.data.chat import question
from expunge.data.example import Row
from expunge.data.sources import load_rows
from expunge.errors import InputError
from expunge.generation import sample as generate
from expunge.models import quantize
from expunge.models.check import usual_device
from expunge.models.tokenizer import load_tokenizer
from expunge.reveal import arms, bandit, embed, linear, search, surrogate
from expunge.reveal.arms import MetaPrompt
from expunge.reveal.settings import Reveal, make
from expunge.scorers import Scorer, checked, scorer
from expunge.settings import name_of
from expunge.training import signals

NEUTRAL_DRAWS = 3  # times that neutral rows are drawn where too many are relevant
LEAST_NEUTRAL = 8  # needed for a mean embedding
FILES = ("queries.jsonl", "revealed.jsonl", "neutral.jsonl", "arms.json", "reveal.json")
QUERIES, REVEALED, NEUTRAL, ARMS, RECORD = FILES
LAYOUT = outputs.Layout(RECORD, "an earlier search is here", entries=FILES)
ABOUT = 16  # answers to each seed that show what the topic is
NOT_RECORDED = (
    "model",
    "out",
    "overwrite",
    "device",
    "attn",
    "trust_remote_code",
    "model_name",
)  # do not change the result
FEW = 8  # revealed answers, below which a forget set is of little use
SEED_STEP = 1_000_003  # between the random draws of two seeds


@dataclass(frozen=True)
class Result:
    """The revealed rows, the contents of ``reveal.json``, and the folder."""

    rows: list[dict[str, Any]]
    record: dict[str, Any]
    folder: Path


def reveal(model: str, **settings: Any) -> Result:
    """Search for instructions whose answers show what ``model`` knows, and write these as a forget set.

    ``settings`` are those of :class:`~expunge.reveal.settings.Reveal`.

    Raises InputError for wrong settings before the model is loaded.
    """
    return run(make({"model": name_of(model), **settings}))


def run(settings: Reveal, *, command: str | None = None) -> Result:
    """Run a search, or resume one that was interrupted in the same folder."""
    processes.check_one("a search for what a model knows")
    with signals.caught():
        relevance_scorer = check(settings)
        with outputs.claimed(settings.out, LAYOUT, overwrite=settings.overwrite, resumable=True) as folder:
            return _search_in_folder(settings, relevance_scorer, folder, command)


def _search_in_folder(settings: Reveal, relevance_scorer: Scorer | None, folder: Path, command: str | None) -> Result:
    """The search itself, after :func:`check`, in a folder that this process has locked."""
    start = time.monotonic()
    meta, form, plan = settings.meta, settings.prompt_form, settings.plan
    encoder = embed.sentence_transformer(settings.embeddings) if settings.embeddings else None
    past = [] if settings.overwrite else search.read_log(folder / QUERIES)

    loaded = models.load(
        settings.model,
        dtype=getattr(torch, settings.dtype),
        device=usual_device(settings.device),
        trust_remote_code=settings.trust_remote_code,
        attn=settings.attn,
        quantize=settings.quantize,
        compute_dtype=None if settings.dtype == "float32" else getattr(torch, settings.dtype),
    )
    template.use(loaded.tokenizer, settings.template_arguments if settings.chat_template else {})
    record_values = _start_record(folder, settings, loaded.fingerprint)
    arm_of, tools = _tools(loaded.model, loaded.tokenizer, meta, relevance_scorer, encoder, settings, folder)
    instructions = list(arm_of)
    features = arms.features(
        loaded.model, loaded.tokenizer, instructions, form=form, chat_template=settings.chat_template
    )
    log = []
    files.cut_unfinished_line(folder / QUERIES)
    total = plan.rounds * (plan.queries + (plan.best if plan.harvest else 0))
    with tqdm(total=total, initial=len(past), desc="asking", leave=False) as bar:
        for n, entry in enumerate(search.search(instructions, features, plan, tools, past=past)):
            log.append(entry)
            if n >= len(past):
                files.append_line(folder / QUERIES, asdict(entry), mode=files.PRIVATE)
                bar.update()
    forget_set = search.revealed(log, plan)
    rows = [search.row(e, i, form) for e, i in forget_set.answers]
    files.write_lines(folder / REVEALED, rows, mode=files.PRIVATE)
    queries = [e for e in log if e.kind == "query"]
    record_values |= {
        "command": record.renamed(command, {settings.model: settings.model_name} if settings.model_name else {}),
        "instructions": len(instructions),
        "queries": len(queries),
        "answers": sum(len(e.answers) for e in log),
        "revealed": len(rows),
        "dropped": forget_set.dropped,
        "warnings": _warnings(len(rows), forget_set.dropped),
        "best": max((e.scores for e in queries), key=lambda scores: scores["score"]),
        "seconds": record_values.get("seconds", 0.0) + time.monotonic() - start,
        "private_files": [name for name in FILES if name != RECORD and (folder / name).exists()],
        "output": files.sha256_file(folder / REVEALED),
    }
    files.write_json(folder / RECORD, record_values)
    return Result(rows, record_values, folder)


def check(settings: Reveal) -> Scorer | None:
    """Raise InputError for settings that do not fit, before a model is loaded; returns the scorer of the settings."""
    _ = settings.meta, settings.prompt_form, settings.plan, settings.sampling
    relevance_scorer = scorer(settings.scorer) if settings.scorer else None
    folder = outputs.check(
        settings.out, LAYOUT, inputs={"model": settings.model}, overwrite=settings.overwrite, resumable=True
    )
    _check_search(folder, settings)
    quantize.check(settings.quantize)
    return relevance_scorer


def planned(settings: Reveal) -> dict[str, Any]:
    """What :func:`run` would do, after all checks that need no model; nothing is written."""
    check(settings)
    load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code, quantize=settings.quantize)
    search_plan = settings.plan
    return {
        "model": settings.model,
        "data": {"neutral": settings.neutral},
        "method": settings.chooser,
        "steps": search_plan.rounds * search_plan.queries,
        "out": settings.out,
    }


def _warnings(revealed: int, dropped: Mapping[str, int]) -> list[str]:
    """Warnings for the record if the forget set is small or empty."""
    reasons = ", ".join(f"{n} {reason}" for reason, n in dropped.items()) or "none was relevant"
    if not revealed:
        return [f"no answer was revealed ({reasons}): ask more (rounds, queries), or lower threshold"]
    warning = f"only {revealed} answer(s) were revealed ({reasons}): ask more (rounds, queries) for a forget set of use"
    return [warning] if revealed < FEW else []


# -- tools of the search --------------------------------------------------------------------------------------------------
def _tools(
    model: Any,
    tokenizer: Any,
    meta: MetaPrompt,
    relevance_scorer: Scorer | None,
    encoder: embed.Embed | None,
    settings: Reveal,
    folder: Path,
) -> tuple[dict[str, int], search.Tools]:
    """The instructions that the arms wrote, each with the first arm that wrote it, and the tools of the search."""
    chat: dict[str, Any] = {"chat_template": settings.chat_template}
    neutral = _neutral(folder, model, tokenizer, settings, relevance_scorer)
    vectors = embed.cached(encoder or embed.hidden_states(model, tokenizer))
    shape = {"tokens": settings.soft_tokens, "dimension": settings.dimension, "scale": settings.scale}
    soft = arms.soft_prompts(model, settings.arms, seed=settings.seed, **shape)  # type: ignore[arg-type]

    def sampling_at(temperature: float) -> generate.Sampling:
        return generate.Sampling(temperature, 1.0, settings.instruction_tokens)

    def ask(questions: Sequence[str], seed: int) -> list[generate.Answer]:
        draws = _random(settings, seed)
        return generate.answers(
            model, tokenizer, questions, sampling=settings.sampling, generator=draws, form=settings.prompt_form, **chat
        )

    def vary(arm: int, examples: Sequence[str], n: int, seed: int) -> list[str]:
        prompts, draws = soft[first[arm]].expand(n, -1, -1), _random(settings, seed)
        extended_meta = MetaPrompt(meta.heading, tuple(dict.fromkeys([*meta.seeds, *examples])))
        return arms.instructions(
            model,
            tokenizer,
            extended_meta,
            prompts,
            sampling=sampling_at(max(1.0, settings.arm_temperature)),
            generator=draws,
            **chat,
        )

    draws = _random(settings, -1)
    arm_sampling = sampling_at(settings.arm_temperature)
    arm_of = _arm_instructions(
        folder / ARMS,
        lambda: arms.instructions(model, tokenizer, meta, soft, sampling=arm_sampling, generator=draws, **chat),
    )
    first = list(arm_of.values())
    if relevance_scorer is None:
        topic_answers = [a.text for a in ask([s for s in meta.seeds for _ in range(ABOUT)], -2) if a.text]
        relevance_scorer = checked(embed.topic_relevance(vectors, topic_answers, [r.answer for r in neutral]), "topic")
    centre = vectors([r.answer for r in neutral]).mean(0)
    return arm_of, search.Tools(ask, vary, relevance_scorer, vectors, centre, _chooser(settings))


def _arm_instructions(file: Path, write: Callable[[], list[str]]) -> dict[str, int]:
    """{instruction: first arm that wrote it}, read from ``file`` or written to it."""
    if not file.exists():
        files.write_json(file, write(), mode=files.PRIVATE)
    first_arm: dict[str, int] = {}
    for i, text in enumerate(
        files.read_list(file, description="list of instructions", remedy="restore it, or --overwrite")
    ):
        if text:
            first_arm.setdefault(text, i)
    if not first_arm:
        raise InputError("the model wrote no instruction at all; try other seeds or another heading")
    return first_arm


def _chooser(settings: Reveal) -> search.Chooser:
    if settings.chooser != "random":
        predictor = linear.predict if settings.chooser == "linear" else bandit.predict
        return partial(
            bandit.choose, settings=surrogate.Settings(nu=settings.nu, seed=settings.seed), predictor=predictor
        )

    def random_choice(features: torch.Tensor, observed: bandit.Observed, allowed: Sequence[bool]) -> int:
        draws = random.Random(settings.seed * SEED_STEP + allowed.count(True))
        return draws.choice([i for i, free in enumerate(allowed) if free])

    return random_choice


def _random(settings: Reveal, draw: int) -> torch.Generator:
    return torch.Generator().manual_seed(settings.seed * SEED_STEP + draw + 10)


def _neutral(folder: Path, model: Any, tokenizer: Any, settings: Reveal, relevance_scorer: Scorer | None) -> list[Row]:
    """The neutral rows of ``folder``, generated if there are none.

    Rows that the scorer finds relevant are replaced: as a retain set, they would train the model to keep what is to be
    forgotten.
    """
    if not (folder / NEUTRAL).exists():
        rows: list[Row] = []
        n_drawn = 0
        for attempt in range(NEUTRAL_DRAWS):
            batch = generate.neutral_rows(
                model,
                tokenizer,
                settings.neutral,
                seed=settings.seed + attempt * SEED_STEP,
                sampling=settings.sampling,
                chat_template=settings.chat_template,
            )
            n_drawn += len(batch)
            rows += batch if relevance_scorer is None else _irrelevant(batch, relevance_scorer, settings.threshold)
            if relevance_scorer is None or len(rows) >= settings.neutral:
                break
        if len(rows) < LEAST_NEUTRAL:
            raise InputError(
                f"of {n_drawn} neutral rows that the model wrote, {n_drawn - len(rows)} hold what is to be revealed, so "
                "none can be told from it; choose a higher threshold or another scorer"
            )
        rows = rows[: settings.neutral]
        raw = ({"question": question(r), "answer": r.answer} for r in rows)
        files.write_lines(folder / NEUTRAL, raw, mode=files.PRIVATE)
    return load_rows(folder / NEUTRAL)


def _irrelevant(rows: Sequence[Row], relevance_scorer: Scorer, threshold: float) -> list[Row]:
    values = relevance_scorer([f"{question(r)}\n{r.answer}" for r in rows])
    return [r for r, value in zip(rows, values, strict=True) if value < threshold]


# -- the folder -----------------------------------------------------------------------------------------------------------
def _check_search(folder: Path, settings: Reveal) -> None:
    """Raise InputError if ``folder`` holds a search with other settings and ``overwrite`` is off."""
    if settings.overwrite:
        return
    previous = _read_record(folder)
    if previous is not None and previous.get("settings") != _recorded_settings(settings):
        raise InputError(f"{folder} holds a search with other settings; choose another folder, or --overwrite")


def _start_record(folder: Path, settings: Reveal, fingerprint: str) -> dict[str, Any]:
    """The earlier or a new ``reveal.json``; with ``overwrite`` earlier files are deleted.

    Raises InputError if the earlier search was in another model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if settings.overwrite:
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
    previous = _read_record(folder)
    if previous is not None:
        if previous["model"]["fingerprint"] != fingerprint:
            raise InputError(f"{folder} holds a search in another model; choose another folder, or --overwrite")
        return previous
    record_values = {
        "schema": record.SCHEMA,
        "expunge": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model": {"source": settings.model_name or settings.model, "fingerprint": fingerprint},
        "settings": _recorded_settings(settings),
        "versions": record.versions(),
    }
    files.write_json(folder / RECORD, record_values)
    return record_values


def _read_record(folder: Path) -> dict[str, Any] | None:
    file = folder / RECORD
    if not file.exists():
        return None
    values = files.read_json(file, description="record", remedy="restore it, or --overwrite")
    return record.check_schema(values, file, unnamed=1)


def _recorded_settings(settings: Reveal) -> dict[str, Any]:
    settings_values = {k: v for k, v in settings.model_dump().items() if k not in NOT_RECORDED}
    before_a_choice: tuple[tuple[str, Any], ...] = (
        ("dtype", "float32"),
        ("template_arguments", {}),
        ("quantize", None),
    )
    return {k: v for k, v in settings_values.items() if (k, v) not in before_a_choice}
