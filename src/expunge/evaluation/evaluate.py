"""From a benchmark and a model to figures on disk; and from what is on disk to figures again, without a model.

A folder of results holds ``figures.json``, ``scores/`` (what the pass over the model found) and, where a retrained model was
given, ``retrained/`` (the same of it).  What was collected of a model is also kept in the user's cache under a key of the
model's weights and of all that it was asked, so a model is run once however often it is scored.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import shutil
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from expunge import __version__, record
from expunge.errors import InputError
from expunge.evaluation import table
from expunge.evaluation.benchmark import Benchmark, Figure, data_of, to_json
from expunge.evaluation.probe import How, Probe, fingerprint

FIGURES, SCORES, RETRAINED = "figures.json", "scores", "retrained"
LM_EVAL = "lm-eval:"  # begins the name of what lm-evaluation-harness measured, see :mod:`expunge.evaluation.lm_eval`


def evaluate(
    benchmark: Benchmark,
    model: str,
    out: str | Path,
    *,
    data: str | Path | None = None,
    retrained: str | None = None,
    how: How | None = None,
    overwrite: bool = False,
    defined_in: str | None = None,
) -> list[Figure]:
    """Ask ``model`` (and ``retrained``) what ``benchmark`` asks, write the folder ``out``, and return the figures.

    ``data``: a folder with the benchmark's files; without it they come from the Hub.  ``how.limit`` takes the first rows of
    each part only, for a quick look.  ``defined_in``: the file of a user's own benchmark, for :func:`rescore`.  Under
    several processes the main one writes and returns; the others return nothing.

    Raises InputError for what is wrong with the data before a model is loaded.
    """
    how = _as_asked(how or How(), benchmark)
    folder = claim(out, overwrite)
    source = data_of(benchmark, data)
    probes = _limited(benchmark.probes(source), how.limit)
    began = time.monotonic()
    from expunge.evaluation import asking  # torch, not before the data is in order

    found, facts = asking.collected(model, probes, how)
    reference, reference_facts = asking.collected(retrained, probes, how) if retrained else (None, None)
    if not asking.is_main_process():
        return []
    figures = benchmark.score(found, reference)
    table.write(found, folder / SCORES)
    if reference is not None:
        table.write(reference, folder / RETRAINED)
    else:
        shutil.rmtree(folder / RETRAINED, ignore_errors=True)  # of an earlier evaluation; rescoring would read it
    write(
        folder,
        figures,
        {
            "benchmark": benchmark.name,
            "defined_in": defined_in,
            "paper": benchmark.paper,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "model": facts,
            "retrained": reference_facts,
            "data": {
                "source": str(data) if data else sorted({s.hub for s in benchmark.sets if s.hub}),
                "fingerprint": fingerprint(probes),
                "left_out": list(source.absent),
            },
            **{k: v for k, v in dataclasses.asdict(how).items() if k not in ("device", "trust_remote_code")},
            "seconds": time.monotonic() - began,
            "versions": record.versions(),
        },
    )
    return figures


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
    reference = table.read(folder / RETRAINED) if (folder / RETRAINED).is_dir() else None
    figures = benchmark.score(table.read(folder / SCORES), reference)
    write(folder, figures, said)
    return figures


def read(folder: str | Path) -> dict[str, Any]:
    """What ``figures.json`` of an evaluation's folder says."""
    file = Path(folder) / FIGURES
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file}: there are no figures; give the folder of `expunge bench`") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{file}, line {error.lineno}: not JSON ({error.msg})") from None


def claim(out: str | Path, overwrite: bool) -> Path:
    """The folder ``out``; InputError if figures are in it that may not be written over."""
    folder = Path(out)
    if (folder / FIGURES).exists() and not overwrite:
        raise InputError(f"{folder}: figures of an earlier evaluation are here; choose another folder, or --overwrite")
    return folder


def write(folder: Path, figures: Sequence[Figure], said: dict[str, Any]) -> None:
    """``figures.json`` of ``folder``: the figures, and before them what is ``said`` of how they came about."""
    whole = {**said, "expunge": __version__, "figures": to_json(figures)}
    folder.mkdir(parents=True, exist_ok=True)
    record.replace_text(folder / FIGURES, json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _as_asked(how: How, benchmark: Benchmark) -> How:
    """``how`` with what the benchmark says where the user says nothing."""
    if how.backend == "vllm" and find_spec("vllm") is None:
        raise InputError("the backend vllm is not installed: pip install 'expunge[vllm]', or leave the backend out")
    template = benchmark.chat_template if how.chat_template is None else how.chat_template
    return dataclasses.replace(how, max_length=how.max_length or benchmark.max_length, chat_template=template)


def _limited(probes: Sequence[Probe], limit: int | None) -> list[Probe]:
    return [p for p in probes if limit is None or p.index < limit]
