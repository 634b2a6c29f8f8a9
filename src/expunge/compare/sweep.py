"""The runs of a comparison, several at once where that is asked for; each goes on by itself from where it was killed."""

from __future__ import annotations

import contextlib
import gc
import re
import shutil
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge import bench, jobs, outputs, record
from expunge.bench.run import Ready, SharedResults
from expunge.compare import describe
from expunge.compare.settings import Compare, Trial
from expunge.data.example import Row
from expunge.errors import InputError, RunFailed
from expunge.evaluation import evaluate
from expunge.training import signals


def sweep(
    settings: Compare,
    found: Sequence[Trial],
    of: Mapping[str, Ready],
    done: Collection[str],
    shared: SharedResults,
    *,
    command: str | None,
    folder: Path,
    tell: Callable[[str], Any],
    prepare: Callable[[], Any] | None = None,
) -> list[dict[str, Any]]:
    """What the record says of every run, in the order of ``found``; those that are ``done`` are only read.

    ``seen`` holds what target and retrained model answered; what is measured of the target by the first run is kept for
    those that begin after it.
    """
    spread = jobs.limited(settings.spread, sum(trial.name not in done for trial in found))
    apart = jobs.is_spread(spread)
    records: dict[str, dict[str, Any]] = {}

    def tasks() -> Iterator[jobs.Task]:
        for at, trial in enumerate(found, 1):
            there = trial.name in done
            tell(f"{at} of {len(found)}  {trial.name}{', which is there already' if there else ''}")
            if there:
                records[trial.name], _ = carry_out(trial, of[trial.name], shared, command, folder, settings.keep, True)
            else:
                it = None if apart else of[trial.name]
                yield jobs.Task(trial.name, carry_out, (trial, it, shared, command, folder, settings.keep))

    by_name = {trial.name: trial for trial in found}
    device = found[0].settings.how.device
    try:
        with contextlib.closing(jobs.spread(tasks(), spread, device=device, prepare=prepare)) as ended:
            for one in ended:
                trial = by_name[one.name]
                if one.error is None:
                    records[one.name], measured = one.value
                    shared.measured.update(measured)
                else:
                    text = clean(one.error, of[one.name])
                    records[one.name] = describe.failed(trial, of[one.name], text, folder)
                tell(
                    f"   {len(records)} of {len(found)} done: {line(records[one.name], settings.figures, one.seconds)}"
                )
    except KeyboardInterrupt as error:
        raise signals.within(error, f"{len(records)} of {len(found)} runs are finished") from None
    return [records[trial.name] for trial in found]


def carry_out(
    trial: Trial,
    it: Ready | None,
    shared: SharedResults,
    command: str | None,
    out: Path,
    keep: str,
    done: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the record says of a run, which is carried out unless it is ``done``, and what was measured of the target.

    ``it``: the run, None in another process, where it is made ready again.
    """
    with signals.caught():
        it = it or bench.ready(trial.settings)
        with contextlib.nullcontext() if done else outputs.claimed(it.folder, evaluate.LAYOUT, overwrite=True):
            said = _record(it, trial, shared, command, out, done)
        _thin(it.folder / "run" / "model", keep)
        release_memory()
        return said, dict(shared.measured)


def line(said: Mapping[str, Any], figures: Sequence[str], seconds: float) -> str:
    """A run in one line: its name, seconds and figures, or why it failed.

    >>> figure = {"part": "forget", "name": "rouge", "value": 0.25}
    >>> line({"name": "npo-seed0", "done": True, "figures": [figure]}, ["forget/rouge"], 61.4)
    'npo-seed0  61 s  forget/rouge 0.25'
    >>> line({"name": "npo-seed0", "done": False, "said": "no memory", "figures": []}, ["forget/rouge"], 0.44)
    'npo-seed0  0.4 s  failed: no memory'
    """
    values = {f"{f['part']}/{f['name']}": f["value"] for f in said["figures"]}
    shown = [f"{name} {values[name]:.3g}" for name in figures if values.get(name) is not None]
    took = f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return "  ".join([str(said["name"]), took, *(shown if said["done"] else [f"failed: {said['said']}"])])


# -- one run --------------------------------------------------------------------------------------------------------------
def _record(
    it: Ready, trial: Trial, shared: SharedResults, command: str | None, out: Path, done: bool
) -> dict[str, Any]:
    try:
        if not done:  # or an earlier run's figures stand beside new weights where this one breaks off
            (it.folder / evaluate.FIGURES).unlink(missing_ok=True)
        said = evaluate.read(it.folder) if done else bench.carry_out(it, command=command, shared=shared)
        return describe.run(trial, it, said, record.read(it.folder / "run"), out)
    except Exception as error:  # one method's trouble is not the others'
        return describe.failed(trial, it, sentence(error, it), out)


def sentence(error: Exception, it: Ready) -> str:
    """What went wrong, in one line without paths of this machine and without data."""
    return in_one_line(error, bench.names_of(it.settings), it.rows)


def in_one_line(error: Exception, names: Mapping[str, str], rows: Mapping[str, Sequence[Row]]) -> str:
    """:func:`sentence` of a run on ``rows``; ``names``: path -> what is written in its place."""
    text = scrubbed((str(error).strip() or "no reason given").splitlines()[0], names, rows)
    if isinstance(error, InputError | RunFailed):
        return text
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}, line {last.lineno}: {text}"


def clean(text: str, it: Ready) -> str:
    """``text`` without paths of this machine, and without data."""
    return scrubbed(text, bench.names_of(it.settings), it.rows)


def scrubbed(text: str, names: Mapping[str, str], rows: Mapping[str, Sequence[Row]]) -> str:
    """``text`` without paths of this machine, and without an answer of ``rows``; ``names`` as :func:`in_one_line`."""
    for place, name in names.items():
        text = text.replace(place, name)
    text = re.sub(r"(?<![\w.])/(?:[^\s/:,;'\"]+/)+", "", text)[:300]
    if any(r.answer and r.answer in text for given in rows.values() for r in given):
        return "its message quotes the data"
    return text


def _thin(weights: Path, keep: str) -> None:
    """Remove what is not to be kept of an unlearned model's weights."""
    adapter = (weights / "adapter_config.json").exists()
    if weights.is_dir() and (keep == "none" or (keep == "adapters" and not adapter)):
        shutil.rmtree(weights)


def release_memory() -> None:
    """Free what the last run held, trainer and model in their circles of references."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
