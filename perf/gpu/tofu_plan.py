"""What ``perf.gpu.tofu`` does, as values: the pieces of work, what each waits for, and the record of each that is done."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from expunge import bench, compare, files, lock, record
from expunge.bench import Ready
from expunge.compare import Compare, Trial
from expunge.data.sources import load_rows
from expunge.errors import InputError
from perf.gpu import tofu_halves as halves

RECIPE = Path(__file__).with_name("tofu.toml")
NAME = "smollm2-135m"
FILES = (
    "forget10", "retain90", "forget10_perturbed", "retain_perturbed", "real_authors_perturbed", "world_facts_perturbed",
    "holdout10",
)  # fmt: skip
NOTICE = "LICENSE*"
ASKED = {"trial": "choice", "chosen": "report"}  # kind of run -> half of the rows that it is asked about
TAUGHT = {"target": ("forget10", "retain90"), "retrained": ("retain90",)}
TEACH = {
    "num_train_epochs": 5,
    "learning_rate": 5e-4,
    "per_device_train_batch_size": 32,
    "gradient_accumulation_steps": 1,
    "lr_scheduler_type": "linear",
}
ON_GPU = {"bf16": True, "optim": "adamw_torch_fused"}  # of all training


@dataclass(frozen=True)
class Plan:
    """``values``: the recipe of the trials; ``training``: what all training is given besides; ``rows``: of each file, None
    for all; ``most``: trials of a method, None for the whole grid; ``max_new_tokens``: of an answer.
    """

    out: Path
    data: Path
    model: str = NAME
    values: Mapping[str, Any] = field(default_factory=dict)
    teach: Mapping[str, Any] = field(default_factory=lambda: TEACH)
    training: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    rows: int | None = None
    most: int | None = None
    max_new_tokens: int = 200

    @property
    def rows_folder(self) -> Path:
        """Where the rows are read from."""
        return self.out / "rows"

    def settings(self, place: str, **changes: Any) -> Compare:
        """The comparison in the folder ``place``: the recipe's, with ``changes``."""
        values = {**self.values, **changes}
        training = {**values.get("training", {}), **self.training, "disable_tqdm": True}
        models = {"model": str(self.out / "target"), "retrained": str(self.out / "retrained")}
        named = {f"{who}_name": f"{NAME} taught TOFU, {who}" for who in TAUGHT}
        return compare.make(
            values
            | {"training": training, "data": str(self.rows_folder), "data_name": "TOFU", "out": str(self.out / place)}
            | {**models, "model_name": named["target_name"], "retrained_name": named["retrained_name"]},
            str(RECIPE.name),
        )

    @cached_property
    def trials(self) -> list[Trial]:
        """Every method's trials, with the recipe's seed."""
        found = compare.trials(self.settings("trials"))
        of = {
            label: [t for t in found if t.label == label][: self.most]
            for label in dict.fromkeys(t.label for t in found)
        }
        return [trial for trials in of.values() for trial in trials]

    def chosen(self, labels: Mapping[str, Mapping[str, Any]]) -> Compare:
        """The comparison of each label's chosen run, with all seeds."""
        return self.settings(
            "chosen", methods={k: self._fixed(k, run["choice"]) for k, run in labels.items()}, seeds=list(self.seeds)
        )

    def _fixed(self, label: str, choice: Mapping[str, Any]) -> dict[str, Any]:
        table = {k: v for k, v in self.values["methods"][label].items() if k != "grid"}
        rate = {k: v for k, v in choice.items() if k == "learning_rate"}
        own = {k: v for k, v in choice.items() if k not in rate}
        return {"method": label, **table, **own, "training": {**table.get("training", {}), **rate}}


@dataclass(frozen=True)
class Piece:
    """Work that is done whole or not at all; ``kind``: teach, ask, trial or chosen; ``key``: what decides its outcome."""

    kind: str
    name: str
    key: str
    trial: Trial | None = field(default=None, compare=False)

    @property
    def stem(self) -> str:
        """Its name among files."""
        return f"{self.kind}-{self.name}-{self.key}"


def pieces(plan: Plan) -> list[Piece]:
    """All that can be named so far, in the order in which it is done: the chosen runs follow their method's trials."""
    taught = [
        Piece("teach", who, _key(_model_key(plan), plan.teach, plan.training, _hashes(plan, of)))
        for who, of in TAUGHT.items()
    ]
    made = [read(plan, piece) for piece in taught]
    if not all(made):
        return taught
    start = _key(*(said["output"] for said in made if said), _hashes(plan, FILES), _asked_key(plan))
    asked = [Piece("ask", f"{who}-{which}", start) for which in ASKED.values() for who in ("retrained", "target")]
    tried = [_of(trial, "trial", start) for trial in plan.trials]
    labels = chosen(plan, tried)
    runs = compare.trials(plan.chosen(labels)) if labels else []
    runs = sorted(runs, key=lambda trial: plan.seeds.index(trial.seed))  # every method's first seed before second ones
    return [*taught, *asked[:2], *tried, *asked[2:], *(_of(trial, "chosen", start) for trial in runs)]


def ready(plan: Plan, trial: Trial) -> Ready:
    """A run of which all is in order; its rows are checked where they become tokens."""
    rows = {
        k: load_rows(plan.rows_folder / f"{name}.json") for k, name in (("forget", "forget10"), ("retain", "retain90"))
    }
    return bench.ready(trial.settings, rows=rows)


def chosen(plan: Plan, tried: list[Piece]) -> dict[str, Mapping[str, Any]]:
    """Label -> its best trial, of the methods all of whose trials are done."""
    found = [(piece, read(plan, piece)) for piece in tried if piece.trial]
    open_ = {piece.trial.label for piece, said in found if said is None and piece.trial}
    return compare.best(
        [said["run"] for _, said in found if said and said["run"]["label"] not in open_], halves.CHOSEN_BY
    )


def waits(plan: Plan, piece: Piece, all_: list[Piece]) -> bool:
    """Whether the retrained model has to be asked first: figures stand beside its own."""
    if piece.kind == "teach" or piece.name.startswith("retrained-"):
        return False
    which = piece.name.split("-")[1] if piece.kind == "ask" else ASKED[piece.kind]
    return any(not is_done(plan, p) for p in all_ if (p.kind, p.name) == ("ask", f"retrained-{which}"))


def _of(trial: Trial, kind: str, start: str) -> Piece:
    return Piece(kind, trial.name, _key(start, trial.settings.method, trial.settings.run), trial)


def _asked_key(plan: Plan) -> str:
    return _key(plan.max_new_tokens, Path(halves.__file__).read_text(encoding="utf-8"))


def _hashes(plan: Plan, names: Iterable[str]) -> list[str]:
    return [files.sha256_file(plan.rows_folder / f"{name}.json") for name in names]


def _model_key(plan: Plan) -> str:
    return files.sha256_folder(plan.model, "*.safetensors") if Path(plan.model).is_dir() else plan.model


def _key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]


# -- records --------------------------------------------------------------------------------------------------------------
def place(plan: Plan, piece: Piece) -> Path:
    """The file of a piece's record."""
    return plan.out / "pieces" / f"{piece.stem}.json"


def read(plan: Plan, piece: Piece) -> dict[str, Any] | None:
    """The record of a piece that is done; None where it is not.  Weights that are gone have to be taught again."""
    file = place(plan, piece)
    weights = plan.out / piece.name / "made.json"
    if not file.exists() or (piece.kind == "teach" and not weights.exists()):
        return None
    said = record.check_schema(
        files.read_json(file, description="record", remedy="remove it, and it is made again"), file
    )
    if piece.kind == "teach":
        now = files.read_json(weights, description="record", remedy="remove it, and it is made again")
        return said if said["output"] == now["output"] else None
    return said


def is_done(plan: Plan, piece: Piece) -> bool:
    """Whether a piece need not be done."""
    return read(plan, piece) is not None


def write(plan: Plan, piece: Piece, said: Mapping[str, Any]) -> None:
    """Write the record of a piece, whole or not at all."""
    file = place(plan, piece)
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(file, {"schema": record.SCHEMA, "kind": piece.kind, "name": piece.name, **said})


@contextlib.contextmanager
def claimed(plan: Plan, piece: Piece) -> Iterator[bool]:
    """Whether the piece is this process's to do; a process that dies gives it back."""
    folder = plan.out / "claims" / piece.stem
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held = lock.acquire(folder)
    except InputError:
        yield False
        return
    try:
        yield not is_done(plan, piece)
    finally:
        lock.release(held, keep=False)
        with contextlib.suppress(OSError):
            folder.rmdir()


# -- rows -----------------------------------------------------------------------------------------------------------------
def pack(folder: Path, file: Path) -> Path:
    """The files of ``folder`` that are read, and its licence, as a ``.tar.xz``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing_file(file) as temporary, tarfile.open(temporary, "w:xz") as packed:
        for found in _sources(folder):
            packed.add(found, found.name)
    return file


def unpack(plan: Plan) -> Plan:
    """``plan`` with its rows in ``out/rows``, from the folder or the ``.tar.xz`` that ``plan.data`` is; the first ``rows``.

    Raises InputError where a file is missing, or where ``out`` holds other rows.
    """
    there = plan.rows_folder
    with tempfile.TemporaryDirectory() as scratch:
        source, made = plan.data, files.private_folder(Path(scratch) / "rows")
        if source.is_file():
            source = Path(scratch) / "packed"
            with tarfile.open(plan.data) as packed:
                packed.extractall(source, filter="data")
        for file in _sources(source):
            text = file.read_text(encoding="utf-8")
            lines = text if file.suffix != ".json" else "".join(f"{line}\n" for line in _lines(text)[: plan.rows])
            (made / file.name).write_text(lines, encoding="utf-8")
        if not there.exists():
            files.private_folder(plan.out)
            with files.replacing(there, keep_existing=True) as new:
                shutil.copytree(made, new, dirs_exist_ok=True)
        if files.sha256_folder(made, "*.json") != files.sha256_folder(there, "*.json"):
            raise InputError(f"{plan.out} holds what was made of other rows; choose another --out")
    return replace(plan, data=there)


def _sources(folder: Path) -> list[Path]:
    found = [folder / f"{name}.json" for name in FILES]
    for file in found:
        if not file.is_file():
            raise InputError(f"{folder} lacks {file.name}; it should hold {', '.join(f'{n}.json' for n in FILES)}")
    return [*found, *sorted(folder.glob(NOTICE))]


def _lines(text: str) -> list[str]:
    """The rows of a file, a JSON object a line, or an array."""
    if text.lstrip().startswith("["):
        return [json.dumps(row, ensure_ascii=False) for row in json.loads(text)]
    return [line for line in text.splitlines() if line.strip()]
