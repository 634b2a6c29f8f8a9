"""Output folders: what may be written into is checked before anything is loaded; one process at a time works in a folder."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge import files, lock, processes
from expunge.errors import InputError
from expunge.files import PathLike, check_folder, read_json, reason

IGNORED = (
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
    ".directory",
    ".gitkeep",
    ".gitignore",
    ".nfs*",
    "lost+found",
    "error.log",
)
LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{12}(\.old|\.tmp)?")  # of files.replacing and files.replacing_file
OF_WEIGHTS = ("model", "target", "retrained")  # folders that are replaced whole
WEIGHTS = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.tiktoken", "*.py", "merges.txt", "vocab.txt", "spiece.*")
RECORDS = (
    "run.json",
    "figures.json",
    "compare.json",
    "tune.json",
    "reveal.json",
    "guard.json",
    "audit.json",
)  # of finished results
OF_A_RECORD = {"schema", "expunge", "figures", "made_of", "settings", "best_model_checkpoint"}
ELSEWHERE = "choose another output folder"


@dataclass(frozen=True)
class Layout:
    """What a command writes into its folder.

    ``marker``: the file that makes the folder a finished result, ``existing``: how that is said.  ``entries``: patterns of
    the names that the command writes, those of folders with a ``/``.  ``evidence``: patterns of JSON files by which an
    unfinished result is known to be one.
    """

    marker: str
    existing: str
    entries: tuple[str, ...]
    evidence: tuple[str, ...] = ()


# -- checks ---------------------------------------------------------------------------------------------------------------
def check(
    out: PathLike,
    layout: Layout,
    *,
    inputs: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    resumable: bool = False,
) -> Path:
    """The folder ``out``, which need not exist yet; nothing is touched.

    Raises InputError if ``out`` is, holds or lies in one of ``inputs`` (what it is -> where it is; what is not on this disk
    is no matter), if it holds anything that expunge did not write, if it cannot be written to, or if a finished result is
    there and ``overwrite`` is false; a ``resumable`` command checks that itself.
    """
    if not main_process():
        return path_of(out)
    folder = check_folder(path_of(out))
    check_apart(folder, inputs or {})
    with _refusing_paths(folder):
        if not resumable:
            check_folder(folder, marker=layout.marker, overwrite=overwrite, existing=layout.existing)
        _check_entries(folder, layout, overwrite=overwrite)
        _check_writable(folder)
    return folder


def path_of(out: PathLike) -> Path:
    """``out`` with ``~`` as the home folder; raises InputError for an empty text and for what no system takes as a path."""
    text = os.fspath(out)
    if not text.strip():
        check_folder(text)
    if "\0" in text:
        raise InputError(f"{text!r} is no path: it holds a null character; {ELSEWHERE}")
    return files.expanded(text)


def check_apart(folder: Path, inputs: Mapping[str, Any]) -> None:
    """Raise InputError if ``folder`` is, holds or lies in one of ``inputs``, links followed or not."""
    with_bases = [(what, path) for what, place in inputs.items() for path in _local(place)]
    with _refusing_paths(folder):
        for what, path in with_bases:
            if relation := _relation(folder, path):
                raise InputError(
                    f"{folder}: the output folder {relation} the {what} {path}, which expunge never writes over; {ELSEWHERE}"
                )


def check_file(file: PathLike) -> Path:
    """The output file ``file``; raises InputError where it cannot be written, or holds what expunge did not write."""
    path = files.check_file(path_of(file))
    if path.is_file() and path.stat().st_size and not _is_record(path):
        raise InputError(f"{path} holds what expunge did not write and will not replace; name another file")
    return path


def check_space(folder: Path, needed: int | None, what: str = "") -> None:
    """Raise InputError where less than ``needed`` bytes are free (None: nobody knows); ``what`` says more of them."""
    if needed is None:
        return
    free = shutil.disk_usage(_nearest(folder)).free
    if free < needed:
        raise InputError(
            f"{folder}: about {_amount(needed)} will be written and {_amount(free)} are free there{what}; "
            f"free some space, or {ELSEWHERE}"
        )


def main_process() -> bool:
    """Whether this process, of those that a launcher started, is the one that writes."""
    return processes.is_main()


def _local(place: Any) -> list[Path]:
    """The files and folders of an input: where it is, if on this disk, and of an adapter its base's folder."""
    if not isinstance(place, str | os.PathLike) or not os.fspath(place).strip():
        return []
    with contextlib.suppress(OSError, ValueError, InputError):
        path = files.expanded(place)
        if path.exists():
            return [path, *_base(path)]
    return []


def _base(path: Path) -> list[Path]:
    file = path / "adapter_config.json"
    if not file.is_file():
        return []
    name = read_json(file, description="adapter's settings", remedy="restore it").get("base_model_name_or_path")
    return [p for p in (path / str(name), Path(str(name))) if name and p.is_dir()][:1]


def _relation(folder: Path, path: Path) -> str | None:
    outs, ins = ({Path(os.path.abspath(p)), Path(os.path.realpath(p))} for p in (folder, path))
    if any(_same(o, i) for o in outs for i in ins):
        return "is"
    if any(_same(o, parent) for o in outs for i in ins for parent in i.parents):
        return "holds"
    if path.is_dir() and any(_same(parent, i) for i in ins for o in outs for parent in o.parents):
        return "lies in"
    return None


def _same(a: Path, b: Path) -> bool:
    try:
        return os.path.samefile(a, b)
    except OSError:
        return a == b


def _check_entries(folder: Path, layout: Layout, *, overwrite: bool) -> None:
    """Raise InputError for what expunge did not write: always where it would be replaced, else unless ``overwrite``."""
    if not folder.is_dir():
        return
    ours = is_expunge_output(folder, layout)
    if not ours and (other := _other_result(folder)):
        raise InputError(f"{folder} holds {other}, a result of another command of expunge; {ELSEWHERE}")
    for entry in sorted(folder.iterdir()):
        if _ignored(entry.name, layout):
            continue
        own = _entry_of(entry.name, layout)
        if own is None:
            if ours or overwrite:
                continue
            raise InputError(
                f"{folder} holds {entry.name}, which expunge did not write; {ELSEWHERE}, or allow it with --overwrite "
                "(overwrite=True), which replaces only what expunge wrote"
            )
        if not ours or entry.is_symlink() or entry.is_dir() != own.endswith("/"):
            raise _foreign(folder, f"{entry.name}{'/' * entry.is_dir()}")
        if entry.name in OF_WEIGHTS and (other := _other_than_weights(entry)):
            raise _foreign(folder, f"{entry.name}/{other}")


def _other_than_weights(folder: Path) -> str | None:
    """The first name in a folder of weights that is not of a model, an adapter or a tokenizer."""
    names = sorted(p.name for p in folder.iterdir())
    return next((n for n in names if not any(fnmatch.fnmatchcase(n, p) for p in (*WEIGHTS, *IGNORED))), None)


def _foreign(folder: Path, name: str) -> InputError:
    return InputError(f"{folder} holds {name}, which expunge did not write and will not replace; {ELSEWHERE}")


def is_expunge_output(folder: Path, layout: Layout) -> bool:
    """Whether ``folder`` holds a result of this layout, finished or not."""
    if lock.is_left(folder):
        return True
    patterns = (layout.marker, str(_previous(Path(layout.marker))), *layout.evidence)
    return any(_is_record(file) for pattern in patterns for file in folder.glob(pattern))


def _other_result(folder: Path) -> str | None:
    return next((name for name in RECORDS if _is_record(folder / name)), None)


def _is_record(file: Path) -> bool:
    try:
        return bool(OF_A_RECORD & read_json(file, description="record", remedy="").keys())
    except InputError:
        return False


def _entry_of(name: str, layout: Layout) -> str | None:
    return next((p for p in layout.entries if fnmatch.fnmatchcase(name, p.rstrip("/"))), None)


def _ignored(name: str, layout: Layout) -> bool:
    return name == lock.FILE or any(fnmatch.fnmatchcase(name, p) for p in IGNORED) or _is_leftover(name, layout)


def _is_leftover(name: str, layout: Layout) -> bool:
    match = LEFTOVER.fullmatch(name)
    return match is not None and _entry_of(match["name"], layout) is not None


def _check_writable(folder: Path) -> None:
    place = _nearest(folder)
    if not os.access(place, os.W_OK | os.X_OK):
        fixed = hasattr(os, "statvfs") and os.statvfs(place).f_flag & os.ST_RDONLY
        why = "the file system is read-only" if fixed else "permission denied"
        raise InputError(f"{place} cannot be written to: {why}; {ELSEWHERE}")


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(p for p in (folder, *folder.absolute().parents) if p.is_dir())


def _amount(n: int) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n} {unit}"
        n = round(n / 1000)
    return f"{n} TB"


@contextmanager
def _refusing_paths(folder: Path) -> Iterator[None]:
    """A path that the system refuses (a name too long, a loop of links) as a sentence."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{folder} cannot be written to: {reason(error)}; {ELSEWHERE}") from None


# -- one process at a time ------------------------------------------------------------------------------------------------
@contextmanager
def claimed(out: PathLike, layout: Layout, *, overwrite: bool = False, resumable: bool = False) -> Iterator[Path]:
    """The folder ``out``, made if it is not there, for this process alone; raises InputError as :func:`check`.

    What a killed process left half-written is removed.  Folders that were made here and are empty in the end go away.
    """
    folder = check(out, layout, overwrite=overwrite, resumable=resumable)
    if not main_process():
        yield folder
        return
    new = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = lock.acquire(folder)
    except OSError as error:
        _remove_empty(new)
        raise InputError(f"{folder} cannot be written to: {reason(error)}; {ELSEWHERE}") from None
    try:
        if not resumable:
            check_folder(folder, marker=layout.marker, overwrite=overwrite, existing=layout.existing)
        sweep(folder, layout)
        yield folder
    finally:
        _remove_empty_within(folder, layout)
        entries = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
        lock.release(held, keep=layout.marker not in entries and bool(entries - {lock.FILE}))
        _remove_empty(new)


def retire(folder: Path, layout: Layout) -> None:
    """Rename an earlier ``NAME.json`` to ``NAME.previous.json``, so that it does not describe the weights that follow."""
    file = folder / layout.marker
    if file.exists():
        os.replace(file, _previous(file))


def reinstate(folder: Path, layout: Layout) -> None:
    """Take back :func:`retire`."""
    file = folder / layout.marker
    if not file.exists() and _previous(file).exists():
        with contextlib.suppress(OSError):
            os.replace(_previous(file), file)


def sweep(folder: Path, layout: Layout) -> None:
    """Remove what killed processes left half-written; the caller holds the lock."""
    for entry in folder.iterdir():
        if _is_leftover(entry.name, layout):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def _previous(file: Path) -> Path:
    return file.with_suffix(".previous.json")


def _remove_empty_within(folder: Path, layout: Layout) -> None:
    """Remove the folders of ``layout`` that nothing was written into."""
    for name in (e.rstrip("/") for e in layout.entries if e.endswith("/")):
        for inner, *_ in os.walk(folder / name, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(inner)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
