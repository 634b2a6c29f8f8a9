"""Around the work of a command: what a person has to mend, or what failed, is one sentence; see ``unexpected``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import typer

from expunge.cli.quiet import without_bars
from expunge.errors import InputError, RunFailed


@contextlib.contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Turn an InputError into its sentence."""
    try:
        yield
    except InputError as error:
        typer.secho(f"expunge: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(2) from None


@contextlib.contextmanager
def running(*, as_json: bool, quiet: bool) -> Iterator[None]:
    """Around the work of a command: with ``as_json`` whatever prints goes to standard error.

    Of a run that failed the record is printed with ``as_json``, and its warnings before the sentence.
    """
    from expunge.cli import result, warned

    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(exit_on_input_error())
            if as_json:
                stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            if quiet:
                stack.enter_context(without_bars())
            yield
    except RunFailed as error:
        if error.record and as_json:
            result.print_json(error.record)
        warned.tell(w for w in (error.record or {}).get("warnings", ()) if w not in str(error))
        raise
