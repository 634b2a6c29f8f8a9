"""From a benchmark and a model to figures on disk; and from the stored answers to figures again, without a model.

A folder of results holds ``figures.json`` and ``scores/``: the scores and answers of the model, and in ``scores/target/``
and ``scores/retrained/`` those of the models to compare with, if given.  They are also kept in the user's cache under a key
of the model's weights and of all prompts and settings, so a model is run once even if it is scored several times.
"""

from __future__ import annotations

import dataclasses
import datetime
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from expunge import __version__, files, outputs, record
from expunge.errors import InputError
from expunge.evaluation import custom, fluency, scores, table
from expunge.evaluation.benchmark import Benchmark, Figure, data_of, to_json
from expunge.evaluation.probe import EvaluationOptions, Probe, fingerprint

FIGURES, SCORES = "figures.json", "scores"
LAYOUT = outputs.Layout(
    FIGURES,
    "figures of an earlier evaluation are here",
    entries=(
        "figures.json", "report.html", "scores/", "samples.json", "run/", "target/", "retrained/", "target-training/",
        "retrained-training/",
    ),
    evidence=(
        "target/made.json", "retrained/made.json", "run/made.json", "run/run.json",
        "run/unfinished/checkpoint-*/trainer_state.json",
    ),
)  # fmt: skip
NOT_RECORDED = ("device", "attn", "trust_remote_code")  # fields of EvaluationOptions that change no figure
LM_EVAL = "lm-eval:"  # prefix of the name of a run of lm-evaluation-harness, see :mod:`expunge.evaluation.lm_eval`
BESIDE = ("target", "retrained")  # the models to compare ``model`` with
AnswersByModel: TypeAlias = dict[str, tuple[table.Collected, dict[str, Any]]]  # model -> its answers, and its source


def evaluate(
    benchmark: Benchmark,
    model: str,
    out: str | Path,
    *,
    data: str | Path | None = None,
    target: str | None = None,
    retrained: str | None = None,
    how: EvaluationOptions | None = None,
    overwrite: bool = False,
    defined_in: str | None = None,
    names: Mapping[str, str] | None = None,
    about: Mapping[str, Any] | None = None,
    asked: AnswersByModel | None = None,
    metrics: Sequence[str] | None = None,
) -> list[Figure]:
    """Run ``benchmark`` on ``model``, write the folder ``out``, and return the model's figures.

    ``target`` (before unlearning) and ``retrained`` (never saw the forget set) are run too, and their figures are
    written beside the model's.  ``data``: a folder with the benchmark's files; without it they come from the Hub.
    ``how.limit`` takes the first rows of each part only, for a quick look.  ``defined_in``: the file of a user's
    own benchmark, for :func:`rescore`.  ``names``: path -> its name in the record; ``about``: further entries of the record.
    ``asked`` keeps the answers of ``target`` and ``retrained``, by name, for several evaluations with the same probes.
    ``metrics``: the user's own, see :mod:`expunge.evaluation.custom`.  Under several processes the main one writes and
    returns; the others return nothing.

    Raises InputError for invalid data before a model is loaded.
    """
    how = with_defaults(how or EvaluationOptions(), benchmark)
    own_metrics = custom.metrics(metrics)
    folder = check_folder(out, overwrite=overwrite)
    source = data_of(benchmark, data)
    probes = limited(benchmark.probes(source), how.limit)
    began = time.monotonic()
    from expunge.evaluation.collect import cached as asking  # torch, not before the data is in order
    from expunge.evaluation.collect import judge

    names_by_role = {"model": model, "target": target, "retrained": retrained}
    answered: AnswersByModel = {} if asked is None else asked
    results: AnswersByModel = {}
    for role, name in names_by_role.items():
        if name:
            earlier = answered.get(name) if role in BESIDE else None
            results[role] = earlier or asking.collected(name, probes, how)
            if role in BESIDE:
                answered[name] = results[role]
    results = dict(judge.judged(benchmark.score_parts, probes, results, how))
    answered |= {name: results[role] for role, name in names_by_role.items() if name and role in BESIDE}
    if not asking.is_main_process():
        return []
    collected = {role: table_of_model for role, (table_of_model, _) in results.items()}
    shutil.rmtree(folder / SCORES, ignore_errors=True)  # of an earlier evaluation, perhaps with other models
    for role, table_of_model in collected.items():
        table.write(table_of_model, _scores(folder, role))
    warnings = [*source.warnings, *benchmark.warn(collected["model"]), *_less_fluent(benchmark, collected)]
    names = names or {}
    facts = {role: info | {"source": names.get(info["source"], info["source"])} for role, (_, info) in results.items()}
    return write(
        folder,
        figures_of(benchmark, collected, own_metrics),
        {
            **(about or {}),
            **({"metrics": list(metrics)} if metrics else {}),
            "benchmark": benchmark.name,
            "defined_in": defined_in,
            "paper": benchmark.paper,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **{role: facts.get(role) for role in names_by_role},
            "data": {
                "source": names.get(str(data), str(data)) if data else sorted({s.hub for s in benchmark.sets if s.hub}),
                "fingerprint": fingerprint(probes),
                "left_out": list(source.absent),
            },
            **{
                k: v
                for k, v in dataclasses.asdict(how).items()
                if k not in NOT_RECORDED and (v or k not in ("template_arguments", "quantize"))
            },
            "seconds": time.monotonic() - began,
            "warnings": warnings,
            "private_files": [f"{_scores(Path(), role).as_posix()}/" for role in collected],
            "versions": record.versions(),
        },
    )


def _less_fluent(benchmark: Benchmark, collected: Mapping[str, table.Collected]) -> list[str]:
    """A warning where the model's answers are no language any more, and the target's were."""
    if benchmark.score_parts is None or "target" not in collected:
        return []
    before, after = (fluency.means(collected[role], benchmark.score_parts.forget) for role in ("target", "model"))
    return fluency.less_fluent(before, after)


def with_defaults(how: EvaluationOptions, benchmark: Benchmark) -> EvaluationOptions:
    """``how`` with the benchmark's defaults for what the user leaves out."""
    if how.backend == "vllm" and find_spec("vllm") is None:
        raise InputError("the backend vllm is not installed: pip install 'expunge[vllm]', or leave the backend out")
    if how.quantize:
        from expunge.models import quantize

        quantize.check(how.quantize)
    if how.limit is not None and how.limit < 1:
        raise InputError(f"limit must be at least 1, not {how.limit}")
    template = benchmark.chat_template if how.chat_template is None else how.chat_template
    return dataclasses.replace(how, max_length=how.max_length or benchmark.max_length, chat_template=template)


def check_folder(out: str | Path, *, inputs: Mapping[str, Any] | None = None, overwrite: bool = False) -> Path:
    """The folder ``out``; raises InputError as :func:`expunge.outputs.check`."""
    return outputs.check(out, LAYOUT, inputs=inputs, overwrite=overwrite)


def figures_of(
    benchmark: Benchmark,
    collected: Mapping[str, table.Collected],
    own_metrics: Mapping[str, custom.Metric] | None = None,
) -> dict[str, list[Figure]]:
    """The figures of each model of ``collected``: the others' are also compared with the retrained one's.

    After them come the fluency of the answers to forget questions and the scores, where the benchmark says what they are
    made of, and the user's ``own_metrics``.
    """
    retrained, parts = collected.get("retrained"), benchmark.score_parts
    scored = scores.figures(parts, collected) if parts else {}
    return {
        role: [
            *benchmark.score(c, None if role == "retrained" else retrained),
            *(fluency.figures(c, parts.forget) if parts else ()),
            *scored.get(role, ()),
            *custom.figures(own_metrics or {}, c),
        ]
        for role, c in collected.items()
    }


def rescore(named: Callable[[str], Benchmark], out: str | Path) -> list[Figure]:
    """Recompute the figures of ``out`` from the stored scores and answers, and write them; no model, no torch.

    ``named`` finds a benchmark by its name or file, as :func:`expunge.benchmarks.named` does.
    """
    folder = Path(out)
    facts = read(folder)
    if str(facts.get("benchmark")).startswith(LM_EVAL):
        raise InputError(
            f"{folder}: there is nothing to rescore, lm-evaluation-harness scored the model as it asked it"
        )
    benchmark = named(facts.get("defined_in") or str(facts.get("benchmark")))
    collected = {role: table.read(_scores(folder, role)) for role in ("model", *BESIDE) if facts.get(role)}
    return write(folder, figures_of(benchmark, collected, custom.metrics(facts.get("metrics"))), facts)


def read(folder: str | Path) -> dict[str, Any]:
    """The content of ``figures.json`` in an evaluation's folder."""
    file = Path(folder) / FIGURES
    if not file.exists():
        raise InputError(f"{file}: there are no figures; give the folder of `expunge bench`")
    content = files.read_json(file, description="record", remedy="give the folder of `expunge bench`")
    return record.check_schema(content, file, unnamed=1)


def limited(probes: Sequence[Probe], limit: int | None) -> list[Probe]:
    """The probes of the first ``limit`` rows of each part."""
    return [p for p in probes if limit is None or p.index < limit]


def _scores(folder: Path, role: str) -> Path:
    return folder / SCORES if role == "model" else folder / SCORES / role


def write(folder: Path, figures: Mapping[str, Sequence[Figure]], facts: Mapping[str, Any]) -> list[Figure]:
    """Write figures.json: ``figures`` are the model's, ``beside`` holds those of the others; returns the model's."""
    figure_lists = {
        "figures": to_json(figures["model"]),
        "beside": {w: to_json(figures[w]) for w in BESIDE if w in figures},
    }
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / FIGURES, {"schema": record.SCHEMA, **facts, "expunge": __version__, **figure_lists})
    return list(figures["model"])
