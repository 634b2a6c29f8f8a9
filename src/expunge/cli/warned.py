"""Warnings of a command: what the library logs and what a record holds, each once, on standard error at the end."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import typer

from expunge import processes

_LOGGED: ContextVar[list[str] | None] = ContextVar("logged", default=None)


class _Keep(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message for the end."""
        if (logged := _LOGGED.get()) is not None:
            logged.append(record.getMessage())


@contextmanager
def collected() -> Iterator[None]:
    """Keep what expunge logs as a warning; what :func:`tell` has not told by the end is told then."""
    logger, handler = logging.getLogger("expunge"), _Keep(logging.WARNING)
    token = _LOGGED.set([])
    handler.addFilter(lambda record: record.name.startswith("expunge."))
    spread, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
        tell()
    except BaseException:
        tell()
        raise
    finally:
        logger.removeHandler(handler)
        logger.propagate = spread
        _LOGGED.reset(token)


def together(warnings: Iterable[str] = ()) -> list[str]:
    """``warnings`` and what was logged, each once."""
    return list(dict.fromkeys([*(_LOGGED.get() or []), *warnings]))


def tell(warnings: Iterable[str] = ()) -> None:
    """Print :func:`together` on standard error, a line each; of several processes the main one does."""
    for warning in together(warnings) if processes.is_main() else ():
        typer.echo(f"expunge: warning: {warning}", err=True)
    if (logged := _LOGGED.get()) is not None:
        logged.clear()
