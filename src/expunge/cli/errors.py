"""How the command line tells a person what to mend: one sentence on standard error, exit code 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from expunge.errors import InputError


@contextmanager
def told() -> Iterator[None]:
    """Turn an InputError into its sentence."""
    try:
        yield
    except InputError as error:
        typer.secho(f"expunge: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(2) from None
