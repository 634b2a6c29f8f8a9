"""Warnings of a command: what the library logs and what a record holds, each once, on standard error at the end."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import typer

from expunge import processes

_LOGGED: ContextVar[list[str] | None] = ContextVar("logged", default=None)


class _CollectingHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message for the end."""
        if (logged := _LOGGED.get()) is not None:
            logged.append(record.getMessage())


@contextmanager
def collecting() -> Iterator[None]:
    """Keep what expunge logs as a warning; what :func:`print_all` has not printed by the end is printed then."""
    logger, handler = logging.getLogger("expunge"), _CollectingHandler(logging.WARNING)
    token = _LOGGED.set([])
    handler.addFilter(lambda record: record.name.startswith("expunge."))
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
        print_all()
    except BaseException:
        print_all()
        raise
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        _LOGGED.reset(token)


def unique(warnings: Iterable[str] = ()) -> list[str]:
    """``warnings`` and what was logged, each once."""
    return list(dict.fromkeys([*(_LOGGED.get() or []), *warnings]))


def print_all(warnings: Iterable[str] = ()) -> None:
    """Print :func:`unique` on standard error, a line each; of several processes the main one does."""
    for warning in unique(warnings) if processes.is_main() else ():
        typer.echo(f"expunge: warning: {warning}", err=True)
    if (logged := _LOGGED.get()) is not None:
        logged.clear()
