"""From a benchmark and a model to figures on disk; and from what is on disk to figures again, without a model.

A folder of results holds ``figures.json``, ``scores/`` (what the pass over the model found) and, where a retrained model was
given, ``retrained/`` (the same of it).  What was collected of a model is also kept in the user's cache under a key of the
model's weights and of all that it was asked, so a model is run once however often it is scored.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge import __version__, record
from expunge.errors import InputError
from expunge.evaluation import table
from expunge.evaluation.benchmark import Benchmark, Figure, rows_of, to_json
from expunge.evaluation.probe import Probe, fingerprint

FORMAT = 1  # of what is collected: a new one makes older caches unread
FIGURES, SCORES, RETRAINED = "figures.json", "scores", "retrained"

Say = Callable[[str], None]


@dataclass(frozen=True)
class How:
    """What decides how a model is asked, besides the probes."""

    max_length: int = 512
    chat_template: bool = True
    limit: int | None = None
    device: str | None = None
    trust_remote_code: bool = False


def evaluate(
    benchmark: Benchmark,
    model: str,
    out: str | Path,
    *,
    data: str | Path | None = None,
    retrained: str | None = None,
    how: How | None = None,
    overwrite: bool = False,
) -> list[Figure]:
    """Ask ``model`` (and ``retrained``) what ``benchmark`` asks, write the folder ``out``, and return the figures.

    ``data``: a folder with the benchmark's files; without it they come from the Hub.  ``how.limit`` takes the first rows of
    each part only, for a quick look.  Raises InputError for what is wrong with the data before a model is loaded.
    """
    how = how or How()
    folder = Path(out)
    if (folder / FIGURES).exists() and not overwrite:
        raise InputError(f"{folder}: figures of an earlier evaluation are here; choose another folder, or --overwrite")
    probes = _limited(benchmark.probes(rows_of(benchmark, data)), how.limit)
    began = time.monotonic()
    found, facts = collected(model, probes, how)
    reference, reference_facts = collected(retrained, probes, how) if retrained else (None, None)
    figures = benchmark.score(found, reference)
    table.write(found, folder / SCORES)
    if reference is not None:
        table.write(reference, folder / RETRAINED)
    _write(
        folder,
        figures,
        {
            "benchmark": benchmark.name,
            "paper": benchmark.paper,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "model": facts,
            "retrained": reference_facts,
            "data": {"source": str(data or benchmark.home), "fingerprint": fingerprint(probes)},
            "limit": how.limit,
            "max_length": how.max_length,
            "chat_template": how.chat_template,
            "seconds": time.monotonic() - began,
            "versions": record.versions(),
        },
    )
    return figures


def rescore(benchmarks: dict[str, Benchmark], out: str | Path) -> list[Figure]:
    """Recompute the figures of ``out`` from what was collected, and write them again; no model, no torch."""
    folder = Path(out)
    said = read(folder)
    if said.get("benchmark") not in benchmarks:
        raise InputError(f"{folder / FIGURES}: {said.get('benchmark')!r} is no benchmark of this expunge")
    reference = table.read(folder / RETRAINED) if (folder / RETRAINED).is_dir() else None
    figures = benchmarks[said["benchmark"]].score(table.read(folder / SCORES), reference)
    _write(folder, figures, said)
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


def collected(name: str, probes: Sequence[Probe], how: How) -> tuple[table.Collected, dict[str, Any]]:
    """What the model ``name`` says to ``probes``, from the cache if it was asked before; and which model it was."""
    from expunge import models
    from expunge.gguf import cache_folder

    loaded = models.load(name, device=how.device, trust_remote_code=how.trust_remote_code)
    asked = [FORMAT, fingerprint(probes), loaded.fingerprint, how.max_length, how.chat_template]
    asked.append(hashlib.sha256(str(loaded.tokenizer.chat_template).encode()).hexdigest())
    folder = cache_folder() / "scores" / hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]
    facts = {"source": name, "fingerprint": loaded.fingerprint}
    if (folder / table.ANSWERS).exists():  # written last
        return table.read(folder), facts
    from tqdm.auto import tqdm

    from expunge.evaluation.collect import collect

    total = sum(len(p.texts) + bool(p.ask) for p in probes)
    with tqdm(total=total, desc=f"asking {os.path.basename(os.path.normpath(name))}", leave=False) as bar:
        found = collect(
            loaded.model,
            loaded.tokenizer,
            probes,
            max_length=how.max_length,
            chat_template=how.chat_template,
            progress=bar.update,
        )
    table.write(found, folder)
    return found, facts


def _limited(probes: Sequence[Probe], limit: int | None) -> list[Probe]:
    return [p for p in probes if limit is None or p.index < limit]


def _write(folder: Path, figures: Sequence[Figure], said: dict[str, Any]) -> None:
    whole = {**said, "expunge": __version__, "figures": to_json(figures)}
    record.replace_text(folder / FIGURES, json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
