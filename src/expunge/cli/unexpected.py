"""The last guard of every command: whatever goes wrong is one sentence on standard error, never a traceback.

The traceback goes to ``error.log`` in the command's output folder, or to a file of its own among the temporary files;
``--debug`` shows it.  Exit codes: 2 for what a person has to mend, 1 for a run that failed, 130 for Ctrl-C, 143 for SIGTERM.
With ``--json`` what failed is an object on standard output too, the sentence its ``error``; what is refused prints none.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import tempfile
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import typer

from expunge import processes
from expunge.cli import result, warned
from expunge.cli.options import Commands
from expunge.errors import InputError, RunFailed
from expunge.files import PRIVATE, replace_text
from expunge.training import signals

LOG = "error.log"
RESUMABLE = ("bench", "compare", "reveal", "release")  # commands whose parts are each done once
MAX_MESSAGE = 300  # characters of an error's own words in a sentence
CLICK: type[BaseException] = typer.BadParameter.__mro__[2]  # ClickException, wherever this Typer keeps it
MULTI_PROCESS = ("run", "bench")  # commands that several processes of a launcher carry out together
TYPER_ERRORS = (typer.Exit, typer.Abort, BrokenPipeError, CLICK)
_OUT: ContextVar[Path | None] = ContextVar("out", default=None)
_TYPED: ContextVar[tuple[str, ...]] = ContextVar("typed", default=())
_FRESH: ContextVar[bool] = ContextVar("fresh", default=False)  # whether the output folder was not there before


class App(Commands):
    """The command line: every command runs under :func:`guarded`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take ``--debug`` out, at any position."""
        ctx.meta["debug"] = "--debug" in args
        ctx.meta["typed"] = list(args)
        rest: list[str] = super().parse_args(ctx, [a for a in args if a != "--debug"])
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command that is named."""
        typed = ctx.meta["typed"]
        _TYPED.set(tuple(typed))
        with processes.together(), guarded(debug=ctx.meta["debug"], as_json="--json" in typed, typed=typed):
            check_text(typed)
            if (name := next((a for a in typed if not a.startswith("-")), "")) not in MULTI_PROCESS:
                processes.check_one(f"expunge {name}".strip())
            return super().invoke(ctx)


def writes_to(folder: str | os.PathLike[str]) -> None:
    """Say where the command that runs puts what it makes: an unexpected error is logged there, if the folder is there."""
    _OUT.set(Path(folder))
    _FRESH.set(not Path(folder).exists())


def typed() -> tuple[str, ...]:
    """The arguments of the command that runs, as they were typed."""
    return _TYPED.get()


def check_text(typed: Sequence[str]) -> None:
    """Raise InputError for an argument that is no text (bytes that are not UTF-8 under the locale)."""
    for argument in typed:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"the argument {argument!a} is not UTF-8 text; type it in UTF-8, or rename the file"
            ) from None


@contextlib.contextmanager
def guarded(*, debug: bool = False, as_json: bool = False, typed: Sequence[str] = ()) -> Iterator[None]:
    """Turn whatever ends the block, the command ``typed``, into its sentence and exit code; see the module."""
    token = _OUT.set(None)
    try:
        with signals.caught(), warned.collecting():
            yield
    except CLICK as error:
        if processes.note_failure(2):
            raise
        raise typer.Exit(2) from error
    except TYPER_ERRORS:
        raise
    except InputError as error:
        raise _ended(str(error), 2) from None
    except RunFailed as error:
        raise _ended(str(error), 1, as_json, error.record) from None
    except signals.Interrupted as error:
        raise _ended(stopped(error, typed), error.code) from None
    except KeyboardInterrupt:
        raise _ended("interrupted", 130) from None
    except Exception as error:
        first = processes.note_failure(1)
        if debug and first:
            traceback.print_exc()
        raise _ended(sentence(error, _logged(error) if first and not debug else None), 1, as_json) from None
    finally:
        _sweep()
        _OUT.reset(token)


def sentence(error: Exception, log: Path | None) -> str:
    """The message for an unexpected ``error``, whose traceback is in ``log``."""
    from expunge.training.micro import is_out_of_memory

    where = f"; the traceback is in {log} (--debug shows it)" if log else ""
    if is_out_of_memory(error):
        return (
            "out of memory: lower per_device_train_batch_size (and raise gradient_accumulation_steps by as much) or "
            f"max_length, say gradient_checkpointing=true, or train LoRA factors with --adapter lora --dtype bfloat16{where}"
        )
    if processes.is_gone(error):
        return f"{processes.lost_process()}{where}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.split(".")[0]
        return f"the package {package} is needed for this and is not installed: pip install {package}{where}"
    said = " ".join(str(error).split())
    said = f"{said[:MAX_MESSAGE]}…" if len(said) > MAX_MESSAGE else said
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror.lower()}{where}"
    return f"an unexpected error, {type(error).__name__}{f': {said}' if said else ''}{where}"


def stopped(error: signals.Interrupted, typed: Sequence[str]) -> str:
    """The message for a command that a signal ended, with the command that resumes it where something is saved."""
    if error.step is None and not (typed and typed[0] in RESUMABLE):
        return error.sentence
    again = [word for word in result.without_token(typed) if word != "--fresh" and not word.startswith("fresh=")]
    return f"{error.sentence}; go on with: {shlex.join(['expunge', *again])}"


def _logged(error: Exception) -> Path | None:
    """The traceback of ``error`` in a file that only its owner reads; None where none can be written."""
    text = f"{' '.join(map(ascii, result.without_token(sys.argv)))}\n{''.join(traceback.format_exception(error))}"
    out = _OUT.get()
    inside = [out / LOG] if out and out.is_dir() else []
    for file in (*inside, Path(tempfile.gettempdir()) / f"expunge-{uuid.uuid4().hex[:8]}-{LOG}"):
        with contextlib.suppress(OSError):
            return replace_text(file, text, mode=PRIVATE)
    return None


def _sweep() -> None:
    """Remove what a command that broke off left empty."""
    out = _OUT.get()
    for folder in (out / "checkpoints", out) if out and _FRESH.get() else ():
        with contextlib.suppress(OSError):
            folder.rmdir()


def _close_bars() -> None:
    """End the lines of unfinished progress bars."""
    if tqdm := getattr(sys.modules.get("tqdm.std"), "tqdm", None):
        for bar in list(getattr(tqdm, "_instances", ())):
            bar.close()


def _ended(text: str, code: int, as_json: bool = False, record: Mapping[str, Any] | None = None) -> typer.Exit:
    """How a command ends that came to nothing, once that is said; ``record``: what it wrote all the same.

    Of several processes the first says it.
    """
    _close_bars()
    if not processes.note_failure(code):
        return typer.Exit(code)
    typer.secho(f"expunge: {text}", fg=typer.colors.RED, err=True)
    if as_json:
        result.print_json({**(record or {}), "error": text})
    return typer.Exit(code)
