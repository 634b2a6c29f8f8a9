"""How the command line tells a person what to mend: one sentence on standard error, exit code 2."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import typer

from expunge.cli.quiet import without_bars
from expunge.errors import InputError


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
    """:func:`exit_on_input_error`, around the work of a command: with ``as_json`` whatever prints goes to standard error."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(exit_on_input_error())
        if as_json:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        if quiet:
            stack.enter_context(without_bars())
        yield
