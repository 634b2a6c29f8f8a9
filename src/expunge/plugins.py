"""Code from outside the library: a Python file of the user's, or the entry points of an installed package.

A package offers a method, a loss, a combiner, a metric, a scorer or a benchmark in the entry-point group
``expunge.methods``, ``expunge.losses``, ``expunge.combiners``, ``expunge.metrics``, ``expunge.scorers`` or
``expunge.benchmarks``.  It is imported when a name is used that the library
does not define itself, or when all are listed.  A file is run like any program: give only files that you trust.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from expunge import files
from expunge.errors import InputError, nearest

Kind = Literal["method", "loss", "combiner", "metric", "scorer", "benchmark", "objective"]
GROUPS: dict[Kind, str] = {
    "method": "expunge.methods",
    "loss": "expunge.losses",
    "combiner": "expunge.combiners",
    "metric": "expunge.metrics",
    "scorer": "expunge.scorers",
    "benchmark": "expunge.benchmarks",
}


def names(kind: Kind) -> list[str]:
    """The names that installed packages register for ``kind``; nothing is imported."""
    return sorted({point.name for point in importlib.metadata.entry_points(group=GROUPS[kind])})


def offered(kind: Kind, name: str) -> Any:
    """The object that an installed package registers as ``name``; None if none does.  InputError if loading it fails."""
    for point in importlib.metadata.entry_points(group=GROUPS[kind], name=name):
        package = point.dist.name if point.dist else point.module
        try:
            return point.load()
        except InputError:
            raise
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            raise InputError(f"the {kind} {name} of the package {package} cannot be loaded: {message}") from error
    return None


def is_file(spec: str) -> bool:
    """Whether ``spec`` has the form ``FILE.py:NAME`` (or ``FILE.py``); the file need not exist.

    >>> is_file("mine.py:loss"), is_file("mine.py"), is_file("npo")
    (True, True, False)
    """
    return bool(re.search(r"\.py(:\w*)?$", spec))


def of_file(kind: Kind, spec: str) -> tuple[Any, Path]:
    """The object at ``FILE.py:NAME``, and the file; InputError if there is no such function, file or name."""
    path, _, name = spec.rpartition(":") if not spec.endswith(".py") else (spec, "", "")
    file = files.expanded(path)
    if not name:
        raise InputError(f"the {kind} {spec!r} names no function; write {path.rstrip(':')}:FUNCTION")
    if not file.is_file():
        raise InputError(f"there is no file {path} for the {kind} {spec}")
    module = run(file)
    value = getattr(module, name, None)
    allows_objects = kind in ("loss", "combiner")  # an Objective, a Combiner
    if not callable(value) and (not allows_objects or value is None):
        functions = [n for n in vars(module) if callable(getattr(module, n)) and not n.startswith("_")]
        raise InputError(f"{path} has no function {name!r}{nearest(name, functions)}")
    return value, file


def run(file: Path) -> ModuleType:
    """The module of ``file``, executed; a file that does not parse is never run."""
    try:
        ast.parse(file.read_bytes(), filename=str(file))
    except (SyntaxError, ValueError) as error:
        location = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise InputError(f"{file}{location}: not Python") from error
    spec = importlib.util.spec_from_file_location(f"expunge_plugin_{file.stem}", file)
    assert spec is not None and spec.loader is not None  # it ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        message = f": {error}" if isinstance(error, ImportError) else ""
        raise InputError(f"{file} cannot be run: {type(error).__name__}{line(error, file)}{message}") from error
    return module


def line(error: BaseException, file: Path) -> str:
    """`` in line N``: where in ``file`` the error arose, to end a message; never the error's text, which may quote data."""
    number, step = 0, error.__traceback__
    while step is not None:
        if Path(step.tb_frame.f_code.co_filename).resolve() == file.resolve():
            number = step.tb_lineno
        step = step.tb_next
    return f" in line {number}" if number else ""
