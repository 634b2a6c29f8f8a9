"""Files and folders: an output checked, written whole or not at all, JSON read, fingerprints, the cache folder."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from expunge.errors import InputError

PathLike: TypeAlias = str | os.PathLike[str]
PRIVATE, ORDINARY = 0o600, 0o666  # the mode of a new file: for its owner alone, or what the umask leaves
_APPENDING = threading.Lock()


# -- outputs --------------------------------------------------------------------------------------------------------------
def check_folder(
    out: PathLike, *, marker: str = "", overwrite: bool = False, existing: str = "an earlier result is here"
) -> Path:
    """The folder ``out``, which need not exist yet; nothing is touched.

    Raises InputError if ``out`` is empty, if a file is in the way, or if ``marker``, the file that makes a folder a
    finished result, is in it and ``overwrite`` is false; the message then calls it ``existing``.
    """
    if not os.fspath(out).strip():
        raise InputError("the output folder is an empty text; name one, such as --out unlearned")
    folder = Path(out)
    try:
        blocking = next((p for p in (folder, *folder.parents) if os.path.lexists(p) and not p.is_dir()), None)
        finished = bool(marker) and (folder / marker).exists()
    except OSError as error:  # a name too long, a loop of links
        raise InputError(f"{folder} cannot be written to: {reason(error)}; choose another output folder.") from None
    if blocking:
        raise InputError(f"{blocking}: a file of that name is in the way; choose another output folder.")
    if finished and not overwrite:
        raise InputError(f"{folder}: {existing}; choose another folder, or allow it with --overwrite (overwrite=True).")
    return folder


def check_file(file: PathLike) -> Path:
    """The output file ``file``; raises InputError where it cannot be written because of its folder or its name."""
    if not os.fspath(file).strip():
        raise InputError("the output file is an empty text; name one, such as --out figures.json")
    path = Path(file)
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path} cannot be written: there is no such folder")
    if path.is_dir():
        raise InputError(f"{path} cannot be written: it is a folder")
    return path


def is_foreign(folder: Path, markers: Iterable[str]) -> bool:
    """Whether ``folder`` exists and is neither an empty folder nor one that holds a file named in ``markers``."""
    occupied = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    return occupied and not any((folder / marker).is_file() for marker in markers)


def reason(error: OSError) -> str:
    """The system's message for ``error``, in lower case, as part of a sentence."""
    return (error.strerror or "an error").lower()


# -- writing --------------------------------------------------------------------------------------------------------------
@contextmanager
def replacing_file(file: Path, *, mode: int = ORDINARY) -> Iterator[Path]:
    """A new file beside ``file`` to write into; it takes the name ``file`` when the block ends without an error."""
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def replace_text(file: Path, text: str, *, mode: int = ORDINARY) -> Path:
    """Write ``text`` to ``file`` in one piece: a temporary file beside it, flushed to disk, then renamed over
    it.

    A lone surrogate, which UTF-8 cannot hold, becomes its backslash escape (what JSON writes for it).
    """
    with replacing_file(file, mode=mode) as temporary:
        temporary.write_bytes(_encoded(text))
    return file


def write_json(file: Path, value: Any, *, mode: int = ORDINARY) -> Path:
    """Write ``value`` as strict JSON in one piece; for NaN and other values without a JSON form see :func:`strict`.

    Raises TypeError if a value cannot be written as JSON; an earlier file then stays as it was.
    """
    return replace_text(
        file, json.dumps(strict(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n", mode=mode
    )


def write_lines(file: Path, rows: Iterable[Mapping[str, Any]], *, mode: int = ORDINARY) -> Path:
    """Write ``rows`` as JSONL in one piece."""
    return replace_text(file, "".join(map(json_line, rows)), mode=mode)


def append_line(file: Path, row: Mapping[str, Any], *, mode: int = ORDINARY) -> None:
    """Add ``row`` to a JSONL file, flushed to disk, in one write: lines of several threads or processes do not mix.

    A last line without a line break gets one first.
    """
    with _APPENDING, _appendable(file, mode) as descriptor:
        broken = b"" if _ends_a_line(descriptor) else b"\n"
        os.write(descriptor, broken + _encoded(json_line(row)))
        _flush(descriptor)


def check_appendable(file: Path, *, mode: int = ORDINARY) -> None:
    """Make ``file`` if it is not there, for :func:`append_line`; raises OSError where it cannot be written."""
    with _appendable(file, mode):
        pass


def cut_unfinished_line(file: Path) -> None:
    """Remove a last line that has no line break: :func:`append_line` was interrupted while writing it."""
    if not file.exists():
        return
    with open(file, "rb+") as stream:
        text = stream.read()
        if not text.endswith(b"\n"):
            stream.truncate(text.rfind(b"\n") + 1)


def json_line(row: Mapping[str, Any]) -> str:
    """``row`` as one line of strict JSON."""
    return json.dumps(strict(row), ensure_ascii=False, allow_nan=False) + "\n"


def strict(value: Any) -> Any:
    """The value as strict JSON: NaN and infinity as None, tuples as lists, numpy scalars and paths as plain values."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # a numpy or torch scalar
        return strict(value.item())
    return value


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


@contextmanager
def _appendable(file: Path, mode: int) -> Iterator[int]:
    descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, mode)
    try:
        if mode == PRIVATE:
            os.chmod(file, mode)  # the file may have existed with another mode
        yield descriptor
    finally:
        os.close(descriptor)


def _ends_a_line(descriptor: int) -> bool:
    try:
        if os.lseek(descriptor, 0, os.SEEK_END) == 0:
            return True
        os.lseek(descriptor, -1, os.SEEK_END)
    except OSError:  # a pipe or a terminal
        return True
    return os.read(descriptor, 1) == b"\n"


def _flush(descriptor: int) -> None:
    with suppress(OSError):  # of a pipe
        os.fsync(descriptor)


# -- reading --------------------------------------------------------------------------------------------------------------
def read_list(file: Path, *, description: str, remedy: str) -> list[Any]:
    """The JSON list in ``file``; raises InputError as :func:`read_json`."""
    value = _parsed(file, description, remedy)
    if not isinstance(value, list):
        raise InputError(f"{file}: the {description} is not a JSON list; {remedy}")
    return value


def read_json(file: Path, *, description: str, remedy: str) -> dict[str, Any]:
    """The JSON object in ``file``; NaN and infinity, which strict JSON does not allow, are read as None.

    Raises InputError with one sentence if the file is missing, unreadable, not UTF-8, not JSON (with the line) or no
    object: the ``description`` of the file, and the ``remedy``.
    """
    value = _parsed(file, description, remedy)
    if not isinstance(value, dict):
        raise InputError(f"{file}: the {description} is not a JSON object and names no schema; {remedy}")
    return value


def _parsed(file: Path, description: str, remedy: str) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{file}: there is no {description}; {remedy}") from None
    except OSError as error:
        raise InputError(f"{file}: the {description} cannot be read ({reason(error)}); {remedy}") from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: the {description} is not UTF-8 text; {remedy}") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{file}, line {error.lineno}: not JSON ({error.msg}, column {error.colno}); {remedy}"
        ) from None
    except RecursionError:
        raise InputError(f"{file}, line 1: not JSON (nested too deeply); {remedy}") from None


# -- folders and fingerprints ---------------------------------------------------------------------------------------------
@contextmanager
def replacing(folder: Path, *, keep_existing: bool = False) -> Iterator[Path]:
    """A new sibling folder to write into; it takes the name ``folder`` when the block ends without an error.

    Readers of ``folder`` see the old content or the new one, never half of it.  With ``keep_existing`` a
    folder that another process finished first is left as it is.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}")
    fresh.mkdir()
    try:
        yield fresh
        if folder.exists() and not keep_existing:
            old = folder.with_name(f"{fresh.name}.old")
            folder.rename(old)
            try:
                fresh.rename(folder)
            except OSError:
                old.rename(folder)
                raise
            shutil.rmtree(old, ignore_errors=True)
            return
        try:
            fresh.rename(folder)
        except OSError:  # not empty: another process was first
            if not (keep_existing and folder.is_dir()):
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def expanded(path: PathLike) -> Path:
    """``path`` with ``~`` and ``~NAME`` as the home folder; raises InputError where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        first = Path(path).parts[0]
        raise InputError(
            f"{os.fspath(path)}: there is no home folder {first}; write it in full, or ./{first} for a file of that name"
        ) from None


def private_folder(folder: Path) -> Path:
    """Make ``folder`` if it is not there; its owner alone may look into it (mode 700)."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(OSError):  # another user's, or a file system without modes
        os.chmod(folder, 0o700)
    return folder


def sha256_file(path: PathLike) -> str:
    """``sha256:<hex>`` of a file's bytes."""
    with open(path, "rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_folder(path: PathLike, pattern: str = "**/*") -> str:
    """``sha256:<hex>`` over the files of a folder that match a glob pattern: sorted names, and each one's
    bytes.

    A name is the path inside the folder, with ``/``; the folder's own location does not matter, a renamed
    file does. Raises InputError if nothing matches.
    """
    folder = Path(path)
    files = {file.relative_to(folder).as_posix(): file for file in folder.glob(pattern) if file.is_file()}
    if not files:
        raise InputError(f"{folder}: no file matches {pattern}; there is nothing to fingerprint.")
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name}\0{sha256_file(files[name])}\n".encode())
    return "sha256:" + total.hexdigest()


def cache_folder() -> Path:
    """``$EXPUNGE_CACHE``, else ``$XDG_CACHE_HOME/expunge``, else ``~/.cache/expunge``."""
    if own := os.environ.get("EXPUNGE_CACHE"):
        return expanded(own)
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "expunge"
