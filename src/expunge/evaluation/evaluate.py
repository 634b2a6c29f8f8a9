"""From a benchmark and a model to figures on disk; and from what is on disk to figures again, without a model.

A folder of results holds ``figures.json`` and ``scores/``: what the pass over the model found, and in ``scores/target/`` and
``scores/retrained/`` the same of the models beside it, where they were given.  What was collected of a model is also kept in
the user's cache under a key of the model's weights and of all that it was asked, so a model is run once however often it is
scored.
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
from expunge.evaluation import custom, table
from expunge.evaluation.benchmark import Benchmark, Figure, data_of, to_json
from expunge.evaluation.probe import How, Probe, fingerprint

FIGURES, SCORES = "figures.json", "scores"
LAYOUT = outputs.Layout(
    FIGURES,
    "figures of an earlier evaluation are here",
    entries=(
        "figures.json", "report.html", "scores/", "samples.json", "run/", "target/", "retrained/", "target-training/",
        "retrained-training/",
    ),
    evidence=("target/made.json", "retrained/made.json", "run/made.json", "run/run.json"),
)  # fmt: skip
HERE = ("device", "attn", "trust_remote_code")  # of how a model is asked, which change no figure
LM_EVAL = "lm-eval:"  # begins the name of what lm-evaluation-harness measured, see :mod:`expunge.evaluation.lm_eval`
BESIDE = ("target", "retrained")  # the models that ``model`` stands between
Asked: TypeAlias = dict[str, tuple[table.Collected, dict[str, Any]]]  # model -> what it said, and which model it was


def evaluate(
    benchmark: Benchmark,
    model: str,
    out: str | Path,
    *,
    data: str | Path | None = None,
    target: str | None = None,
    retrained: str | None = None,
    how: How | None = None,
    overwrite: bool = False,
    defined_in: str | None = None,
    names: Mapping[str, str] | None = None,
    about: Mapping[str, Any] | None = None,
    asked: Asked | None = None,
    metrics: Sequence[str] | None = None,
) -> list[Figure]:
    """Ask ``model`` what ``benchmark`` asks, write the folder ``out``, and return the model's figures.

    ``target`` (before unlearning) and ``retrained`` (never saw the forget set) are asked the same, and their figures stand
    beside the model's.  ``data``: a folder with the benchmark's files; without it they come from the Hub.  ``how.limit``
    takes the first rows of each part only, for a quick look.  ``defined_in``: the file of a user's own benchmark, for
    :func:`rescore`.  ``names``: path -> what the record calls it; ``about``: what else it says.  ``asked`` keeps what
    ``target`` and ``retrained`` said, by name, so several evaluations that ask the same ask them once.  ``metrics``: the
    user's own, see :mod:`expunge.evaluation.custom`.  Under several processes the main one writes and returns; the
    others return nothing.

    Raises InputError for what is wrong with the data before a model is loaded.
    """
    how = as_asked(how or How(), benchmark)
    own = custom.metrics(metrics)
    folder = check_folder(out, overwrite=overwrite)
    source = data_of(benchmark, data)
    probes = limited(benchmark.probes(source), how.limit)
    began = time.monotonic()
    from expunge.evaluation.collect import cached as asking  # torch, not before the data is in order

    given = {"model": model, "target": target, "retrained": retrained}
    kept: Asked = {} if asked is None else asked
    said = {}
    for who, name in given.items():
        if name:
            known = kept.get(name) if who in BESIDE else None
            said[who] = known or asking.collected(name, probes, how)
            if who in BESIDE:
                kept[name] = said[who]
    if not asking.is_main_process():
        return []
    found = {who: one for who, (one, _) in said.items()}
    shutil.rmtree(folder / SCORES, ignore_errors=True)  # of an earlier evaluation, perhaps beside other models
    for who, one in found.items():
        table.write(one, _scores(folder, who))
    warnings = [*source.warnings, *benchmark.warn(found["model"])]
    names = names or {}
    facts = {who: one | {"source": names.get(one["source"], one["source"])} for who, (_, one) in said.items()}
    return write(
        folder,
        figures_of(benchmark, found, own),
        {
            **(about or {}),
            **({"metrics": list(metrics)} if metrics else {}),
            "benchmark": benchmark.name,
            "defined_in": defined_in,
            "paper": benchmark.paper,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **{who: facts.get(who) for who in given},
            "data": {
                "source": names.get(str(data), str(data)) if data else sorted({s.hub for s in benchmark.sets if s.hub}),
                "fingerprint": fingerprint(probes),
                "left_out": list(source.absent),
            },
            **{k: v for k, v in dataclasses.asdict(how).items() if k not in HERE and (v or k != "template_arguments")},
            "seconds": time.monotonic() - began,
            "warnings": warnings,
            "private_files": [f"{_scores(Path(), who).as_posix()}/" for who in found],
            "versions": record.versions(),
        },
    )


def as_asked(how: How, benchmark: Benchmark) -> How:
    """``how`` with what the benchmark says where the user says nothing."""
    if how.backend == "vllm" and find_spec("vllm") is None:
        raise InputError("the backend vllm is not installed: pip install 'expunge[vllm]', or leave the backend out")
    if how.limit is not None and how.limit < 1:
        raise InputError(f"limit must be at least 1, not {how.limit}")
    template = benchmark.chat_template if how.chat_template is None else how.chat_template
    return dataclasses.replace(how, max_length=how.max_length or benchmark.max_length, chat_template=template)


def check_folder(out: str | Path, *, inputs: Mapping[str, Any] | None = None, overwrite: bool = False) -> Path:
    """The folder ``out``; raises InputError as :func:`expunge.outputs.check`."""
    return outputs.check(out, LAYOUT, inputs=inputs, overwrite=overwrite)


def figures_of(
    benchmark: Benchmark, found: Mapping[str, table.Collected], own: Mapping[str, custom.Metric] | None = None
) -> dict[str, list[Figure]]:
    """The figures of each model of ``found``: the retrained one's are its own, the others' are also beside it.

    Those of the user's ``own`` metrics come last.
    """
    retrained = found.get("retrained")
    return {
        who: [*benchmark.score(c, None if who == "retrained" else retrained), *custom.figures(own or {}, c)]
        for who, c in found.items()
    }


def rescore(named: Callable[[str], Benchmark], out: str | Path) -> list[Figure]:
    """Recompute the figures of ``out`` from what was collected, and write them again; no model, no torch.

    ``named`` finds a benchmark by its name or file, as :func:`expunge.benchmarks.named` does.
    """
    folder = Path(out)
    said = read(folder)
    if str(said.get("benchmark")).startswith(LM_EVAL):
        raise InputError(
            f"{folder}: there is nothing to rescore, lm-evaluation-harness scored the model as it asked it"
        )
    benchmark = named(said.get("defined_in") or str(said.get("benchmark")))
    found = {who: table.read(_scores(folder, who)) for who in ("model", *BESIDE) if said.get(who)}
    return write(folder, figures_of(benchmark, found, custom.metrics(said.get("metrics"))), said)


def read(folder: str | Path) -> dict[str, Any]:
    """What ``figures.json`` of an evaluation's folder says."""
    file = Path(folder) / FIGURES
    if not file.exists():
        raise InputError(f"{file}: there are no figures; give the folder of `expunge bench`")
    said = files.read_json(file, what="record", remedy="give the folder of `expunge bench`")
    return record.check_schema(said, file, unnamed=1)


def limited(probes: Sequence[Probe], limit: int | None) -> list[Probe]:
    """The probes of the first ``limit`` rows of each part."""
    return [p for p in probes if limit is None or p.index < limit]


def _scores(folder: Path, who: str) -> Path:
    return folder / SCORES if who == "model" else folder / SCORES / who


def write(folder: Path, figures: Mapping[str, Sequence[Figure]], said: Mapping[str, Any]) -> list[Figure]:
    """Write figures.json: ``figures`` are the model's, ``beside`` holds those of the others; returns the model's."""
    own = {"figures": to_json(figures["model"]), "beside": {w: to_json(figures[w]) for w in BESIDE if w in figures}}
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / FIGURES, {"schema": record.SCHEMA, **said, "expunge": __version__, **own})
    return list(figures["model"])
