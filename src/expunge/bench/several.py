"""One benchmark on several models, several at once where that is asked for: a folder for each, and one table.

``OUT/models/NAME`` is what ``expunge bench`` of that model writes.  ``OUT/models.json`` says the settings that all share and
then every model's figures.  The same call again does not repeat what is finished.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge import __version__, files, jobs, outputs, processes, record
from expunge.bench.run import names_of, ready, run
from expunge.bench.settings import Bench, make
from expunge.errors import InputError
from expunge.evaluation import evaluate
from expunge.models.tokenizer import load_tokenizer
from expunge.training import signals

FILE, MODELS = "models.json", "models"
LAYOUT = outputs.Layout(FILE, "figures of several models are here", entries=(FILE, f"{MODELS}/"))
# Settings that change no figure, or that each model has of its own.
FREE_OPTIONS = {"model", "model_name", "out", "overwrite", "jobs", "cluster"}
FREE_RUN_OPTIONS = {"processes", "device", "attn", "trust_remote_code", "save_every", "fresh"}


def make_each(values: Mapping[str, Any], where: str = "the benchmark run") -> dict[str, Bench]:
    """The settings of each of ``values["model"]``, a list, by the name of its folder; InputError as :func:`make`."""
    models = [str(model) for model in values["model"]]
    if twice := next((model for at, model in enumerate(models) if model in models[:at]), None):
        raise InputError(f"{where}: the model {twice} is given twice; leave out one")
    if values.get("model_name"):
        raise InputError(f"{where}: model_name names one model, and {len(models)} are given; leave it out")
    out = Path(str(values.get("out") or Bench.model_fields["out"].default))
    each = zip(folder_names(models), models, strict=True)
    return {name: make({**values, "model": model, "out": str(out / MODELS / name)}, where) for name, model in each}


def folder_names(models: Sequence[str]) -> list[str]:
    """A name for each model: the last part of its own, with as much before it as tells it from the others.

    >>> folder_names(["org/small", "runs/a/model", "runs/b/model/"])
    ['small', 'a-model', 'b-model']
    """
    parts = [[re.sub(r"[^A-Za-z0-9_.+-]", "_", part) for part in Path(model).parts if part != "/"] for model in models]

    def named(own: Sequence[str], at: int) -> str:
        tails = (own[-length:] for length in range(1, len(own) + 1))
        alone = (tail for tail in tails if sum(other[-len(tail) :] == tail for other in parts) == 1)
        return "-".join(next(alone, [*own, str(at + 1)]))

    return [named(own, at) for at, own in enumerate(parts)]


def run_each(
    settings: Mapping[str, Bench],
    *,
    command: str | None = None,
    tell: Callable[[str], Any] = lambda line: None,
    prepare: Callable[[], Any] | None = None,
) -> dict[str, Any]:
    """Carry out each of ``settings`` and return what ``models.json`` says; ``tell`` gets a line as each
    begins and ends.

    What goes wrong with one model is recorded as that one's, and the others go on.  ``prepare()``: see
    :func:`expunge.jobs.spread`.  Raises InputError for what a person has to mend before a model is loaded.
    """
    with signals.caught():
        folder, finished = ready_each(settings)
        first = next(iter(settings.values()))
        with outputs.claimed(folder, LAYOUT, overwrite=first.overwrite, resumable=True):
            shared = shared_settings(first)
            sources = {} if first.overwrite else (_read(folder) or {}).get("sources", {})
            sources |= {name: one.model for name, one in settings.items()}
            head = {"schema": record.SCHEMA, "expunge": __version__, "command": command}
            head |= {"settings": shared, "sources": sources}
            files.write_json(folder / FILE, head | {"models": []})
            found = _spread(settings, finished, command, tell, prepare)
            said = head | {"benchmark": first.benchmark, "models": [found[name] for name in settings]}
            files.write_json(folder / FILE, said)
    return said


def ready_each(settings: Mapping[str, Bench]) -> tuple[Path, set[str]]:
    """The folder of all, and the models whose figures are there, when all that needs no model is in order."""
    processes.check_one("a benchmark of several models", "start it without a launcher")
    first = next(iter(settings.values()))
    spread = jobs.Jobs(first.jobs, first.cluster)
    if (first.run.get("processes") or 1) > 1:
        raise InputError("--processes shares one model's questions; with several --model say --jobs N")
    jobs.check(spread, device=first.how.device)
    folder = Path(first.out).parent.parent
    inputs: dict[str, Any] = {f"model {name}": one.model for name, one in settings.items()}
    inputs |= {"data": first.data, "retrained model": first.retrained}
    outputs.check(folder, LAYOUT, inputs=inputs, overwrite=first.overwrite, resumable=True)
    earlier = None if first.overwrite else _read(folder)
    if earlier and earlier.get("settings") != shared_settings(first):
        old, new = earlier.get("settings") or {}, shared_settings(first)
        what = next(key for key in sorted({*old, *new}) if old.get(key) != new.get(key))
        raise InputError(
            f"{folder} holds figures of several models with another {what}; choose another --out, or --overwrite"
        )
    for name, source in ((earlier or {}).get("sources") or {}).items():
        if name in settings and settings[name].model != source:
            raise InputError(
                f"{folder / MODELS / name} is of the model {source}, not {settings[name].model}; choose another --out, or "
                "--overwrite"
            )
    finished = {name for name, one in settings.items() if earlier and _figures(one).get("figures")}
    for name, one in settings.items():
        if name not in finished:
            load_tokenizer(one.model, trust_remote_code=one.how.trust_remote_code)
            ready(one)
    return folder, finished


def planned_each(settings: Mapping[str, Bench]) -> dict[str, Any]:
    """What :func:`run_each` would do; raises InputError as it does, and writes nothing."""
    from expunge.bench.run import planned

    folder, finished = ready_each(settings)
    left = [one for name, one in settings.items() if name not in finished]
    first = planned(left[0]) if left else {"benchmark": next(iter(settings.values())).benchmark}
    return first | {
        "model": [one.model for one in settings.values()],
        "out": str(folder),
        **({"finished": sorted(finished)} if finished else {}),
    }


def shared_settings(one: Bench) -> dict[str, Any]:
    """What decides the figures of every model, as JSON."""
    whole = one.model_dump(exclude=FREE_OPTIONS)
    whole["run"] = {key: value for key, value in whole["run"].items() if key not in FREE_RUN_OPTIONS}
    whole["how"] = {key: value for key, value in whole["how"].items() if key not in FREE_RUN_OPTIONS}
    result: dict[str, Any] = json.loads(json.dumps(whole, default=str))
    return result


def _spread(
    settings: Mapping[str, Bench],
    finished: set[str],
    command: str | None,
    tell: Callable[[str], Any],
    prepare: Callable[[], Any] | None,
) -> dict[str, dict[str, Any]]:
    first = next(iter(settings.values()))
    found: dict[str, dict[str, Any]] = {}

    def tasks() -> Iterator[jobs.Task]:
        for at, (name, one) in enumerate(settings.items(), 1):
            tell(f"{at} of {len(settings)}  {name}{', which is there already' if name in finished else ''}")
            if name in finished:
                found[name] = _said(name, one, _figures(one))
            else:
                yield jobs.Task(name, _carry_out, (one, command))

    spread = jobs.limited(jobs.Jobs(first.jobs, first.cluster), len(settings) - len(finished))
    try:
        with contextlib.closing(jobs.spread(tasks(), spread, device=first.how.device, prepare=prepare)) as ended:
            for done in ended:
                one = settings[done.name]
                found[done.name] = _said(done.name, one, done.value or {}) | (
                    {"done": False, "said": done.error} if done.error else {}
                )
                if done.trace and Path(one.out).is_dir():
                    files.replace_text(Path(one.out) / "error.log", done.trace, mode=files.PRIVATE)
                what = f"failed: {done.error}" if done.error else "done"
                tell(f"   {len(found)} of {len(settings)} done: {done.name}  {done.seconds:.1f} s  {what}")
    except KeyboardInterrupt as error:
        raise signals.within(error, f"{len(found)} of {len(settings)} models are finished") from None
    return found


def _carry_out(one: Bench, command: str | None) -> dict[str, Any]:
    with signals.caught():
        return run(one, command=command)


def _said(name: str, one: Bench, said: Mapping[str, Any]) -> dict[str, Any]:
    """A model in ``models.json``."""
    model = said.get("model") or {}
    return {
        "name": name,
        "source": names_of(one).get(one.model, one.model),
        "folder": f"{MODELS}/{name}",
        "done": bool(said),
        "fingerprint": model.get("fingerprint"),
        "seconds": said.get("seconds"),
        "figures": said.get("figures") or [],
        "warnings": [*(said.get("warnings") or []), *((said.get("unlearning") or {}).get("warnings") or [])],
    }


def _figures(one: Bench) -> dict[str, Any]:
    """What the figures in a model's folder say; nothing where there are none."""
    folder = Path(one.out)
    return evaluate.read(folder) if (folder / evaluate.FIGURES).exists() else {}


def _read(folder: Path) -> dict[str, Any] | None:
    if not (folder / FILE).exists():
        return None
    return files.read_json(folder / FILE, description="record", remedy="choose another --out, or --overwrite")
