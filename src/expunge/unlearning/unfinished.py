"""An unfinished run in its folder: what it was made of, so that only the same command goes on from its checkpoint.

``OUT/unfinished`` holds the newest checkpoint of a run that is not finished.  Its ``expunge.json`` says the settings, the
fingerprints of data and model, the parts the run was carried out in, and what was measured before training.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from expunge import files, outputs, processes, record
from expunge.data import sources
from expunge.errors import InputError
from expunge.method import Method
from expunge.training import checkpoints, keeper, manifest, signals
from expunge.unlearning import describe
from expunge.unlearning.rows import Data
from expunge.unlearning.settings import Recipe

FOLDER = "unfinished"
# Settings that change no figure; data and model are known by their fingerprints, training arguments are compared as read.
FREE = {
    "model", "forget", "retain", "holdout", "keep_rows", "out", "title", "compare_name", "model_name", "data_name", "device",
    "overwrite", "trust_remote_code", "save_every", "fresh", "processes", "training", "optimizer", "optimizer_parameters",
    "method", "parameters", "push_to_hub", "hub_model_id", "hub_private_repo", "hub_token", "hub_revision",
}  # fmt: skip
# Training arguments that say how much is saved, logged or shown, or how a step's rows are cut up.
FREE_ARGUMENTS = {
    "output_dir", "run_name", "report_to", "project", "disable_tqdm", "resume_from_checkpoint", "use_cpu", "processes",
    "per_device_train_batch_size", "gradient_accumulation_steps", "ignore_data_skip", "fsdp", "fsdp_config",
    "restore_callback_states_from_checkpoint",
}  # fmt: skip
FREE_KINDS = ("save_", "logging_", "log_", "dataloader_", "trackio_", "hub_", "ddp_")


@dataclass(frozen=True)
class Unfinished:
    """A checkpoint to go on from; ``facts`` are what :func:`facts` said when it was saved."""

    place: Path
    facts: Mapping[str, Any]

    @property
    def step(self) -> int:
        """The optimizer steps that were done."""
        return manifest.step_of(self.place)


@dataclass
class Run:
    """A run as its checkpoints know it: ``parts`` before this one, what is known so far, and when this part began."""

    made_of: Mapping[str, Any]
    unfinished: Unfinished | None = None
    started: float = field(default_factory=time.monotonic)
    began: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat())
    known: dict[str, Any] = field(default_factory=dict)

    def parts(self) -> list[dict[str, Any]]:
        """When each part of the run began, after which step, the seconds it took (as far as it was saved), and in how many
        processes, where they were several.
        """
        before = list(self.unfinished.facts["parts"]) if self.unfinished else []
        step = self.unfinished.step if self.unfinished else 0
        now = {"began": self.began, "from_step": step, "seconds": time.monotonic() - self.started}
        return [*before, now | describe.shared()]

    def facts(self) -> dict[str, Any]:
        """What a checkpoint holds of the run."""
        return {"made_of": dict(self.made_of), "parts": self.parts(), "versions": record.versions(), **self.known}


def identity(settings: Recipe, method: Method, data: Data, args: Any) -> dict[str, Any]:
    """What decides the weights that come out, as JSON: two runs with the same one are the same run."""
    said = {
        "settings": settings.model_dump(exclude=FREE if settings.quantize else FREE | {"quantize"}),
        "method": {**describe.describe(method), "optimizer": asdict(method.optimizer) if method.optimizer else None},
        "training": _arguments(args, len(data.examples["forget"])),
        "data": {name: sources.fingerprint(rows) for name, rows in data.given.items()},
        "tokens": {name: _digest(rows) for name, rows in data.examples.items()},
    }
    for key in ("paper", "status", "summary"):
        said["method"].pop(key)
    result: dict[str, Any] = json.loads(json.dumps(files.strict(said), default=str))
    return result


def _arguments(args: Any, forget_rows: int) -> dict[str, Any]:
    chosen = describe.describe_training(args, args.max_steps)
    own = {k: v for k, v in chosen.items() if k not in FREE_ARGUMENTS and not k.startswith(FREE_KINDS)}
    rows = min(args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size, forget_rows)
    named = args.resume_from_checkpoint
    begin = {} if named in (None, True) or str(named).lower() == "true" else {"resume_from_checkpoint": named}
    return own | begin | {"rows a step": rows}


def _digest(rows: Any) -> str:
    total = hashlib.sha256()
    for row in rows:
        total.update(json.dumps([row.input_ids, row.labels]).encode())
    return f"sha256:{total.hexdigest()}"


# -- what is there --------------------------------------------------------------------------------------------------------
def find(folder: Path, made: Mapping[str, Any], settings: Recipe) -> Unfinished | None:
    """The newest whole checkpoint in ``folder`` that a run ``made`` of these things goes on from; None: it begins anew.

    Raises InputError where all that are there are of other settings or data, unless the run is to start over.
    """
    if settings.fresh:
        return None
    there = list(_candidates(folder))
    for one in there:
        if one.facts["made_of"] == made:
            return one
    if there and not settings.overwrite:
        what = next(_differences(there[0].facts["made_of"], made), "its settings are others")
        raise InputError(_other(folder, there[0], what))
    return None


def check_visible(unfinished: Unfinished | None, folder: Path) -> None:
    """Raise InputError, in all processes, where not all of them see the checkpoint that the main one goes on from."""
    step = unfinished.step if unfinished else None
    if not processes.agreed(processes.on_main(lambda: step) == step):
        raise InputError(
            f"not every process sees the checkpoints in {folder}; give an output folder that all machines share, or start "
            "over with --fresh (fresh=True)"
        )


def check_model(unfinished: Unfinished | None, fingerprint: str, folder: Path) -> None:
    """Raise InputError where the run that is gone on with began with another model."""
    if unfinished and unfinished.facts.get("model") != fingerprint:
        raise InputError(_other(folder, unfinished, "the model's weights are others"))


def _other(folder: Path, unfinished: Unfinished, what: str) -> str:
    return (
        f"{folder} holds an unfinished run, saved after step {unfinished.step}, and {what}; give the same settings to go "
        "on, start over with --fresh (fresh=True), or choose another output folder"
    )


def _candidates(folder: Path) -> Iterator[Unfinished]:
    """The whole checkpoints of runs in ``folder`` that are not finished, the newest first."""
    finished = set(map(_began, (folder / record.FILE, folder / record.FILE.replace(".json", ".previous.json"))))
    places = [*manifest.numbered(folder / FOLDER), *manifest.numbered(folder / "checkpoints")]
    for place in sorted(places, key=manifest.step_of, reverse=True):
        if not (manifest.is_whole(place) and checkpoints.has_optimizer(place)):
            continue
        try:
            facts = checkpoints.state_of(place).get("run", {})
        except InputError:
            continue
        if facts.get("parts") and facts.get("made_of") and facts["parts"][0]["began"] not in finished:
            yield Unfinished(place, facts)


def _began(file: Path) -> str | None:
    """When the run of a record began; None where there is none, or an older one."""
    try:
        parts = files.read_json(file, description="record", remedy="").get("parts")
    except InputError:
        return None
    return parts[0]["began"] if parts else None


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """What two of :func:`identity` have otherwise, in words; ``within``: the name of the table that the two are."""
    for key in sorted(old.keys() | new.keys(), key=lambda key: (key != "name", key)):  # a method's name says most
        a, b = old.get(key), new.get(key)
        if a == b:
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from _differences(a, b, key)
        elif within in ("data", "tokens"):
            yield f"the {key} set is another" if within == "data" else f"the {key} set's tokens are others"
        else:
            name = "method" if (within, key) == ("method", "name") else key
            yield f"{name} was {_short(a)} and is now {_short(b)}"


def _short(value: Any) -> str:
    text = "not given" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


# -- plan and end ---------------------------------------------------------------------------------------------------------
@contextmanager
def naming_saved_step(folder: Path) -> Iterator[None]:
    """A signal that comes between the steps is told with what is saved of the run in ``folder``."""
    try:
        yield
    except signals.Interrupted as error:
        if error.step is not None:
            raise
        newest = next(_candidates(folder), None)
        if newest is None:
            what = "interrupted before anything was saved; the same call starts over"
            raise signals.Interrupted(error.number, what) from None
        what = f"interrupted; the run is saved up to step {newest.step}"
        raise signals.Interrupted(error.number, what, step=newest.step) from None


def plan(folder: Path, settings: Recipe, run: Run) -> keeper.Plan:
    """When and where the trainer saves, and what the run adds."""
    return keeper.Plan(folder / FOLDER, settings.save_every, run.facts)


def begin(folder: Path, settings: Recipe) -> None:
    """Remove what nobody goes on from: half-written checkpoints, and with ``fresh`` those of the run's own."""
    if not outputs.main_process():
        return
    for inner in (FOLDER, "checkpoints"):
        manifest.sweep(folder / inner)
    if settings.fresh:
        discard(folder)


def discard(folder: Path) -> None:
    """Remove the checkpoints of the run's own, in one piece: half of them are never taken for whole."""
    place = folder / FOLDER
    if outputs.main_process() and place.is_dir():
        going = folder / f".{FOLDER}.{uuid.uuid4().hex[:12]}.old"
        place.rename(going)
        shutil.rmtree(going, ignore_errors=True)
