"""Hush what the libraries below say on every load and step, so that a person sees expunge's own lines."""

from __future__ import annotations

import logging as plain
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def quiet() -> None:
    """No progress bars for reading weights, no library warnings; errors still show.  For the command line only."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    plain.getLogger("lm_eval").setLevel(plain.ERROR)
    warnings.filterwarnings("ignore", module=r"(torch|transformers|peft|accelerate)\b.*")


@contextmanager
def without_bars() -> Iterator[None]:
    """No progress bar of anything in this process, and none of the lines that are written above bars."""
    from tqdm.std import tqdm

    make, write = tqdm.__init__, vars(tqdm)["write"]

    def disabled(self: Any, *values: Any, **options: Any) -> None:
        make(self, *values, **{**options, "disable": True})

    tqdm.__init__, tqdm.write = disabled, lambda *_, **__: None
    try:
        yield
    finally:
        tqdm.__init__, tqdm.write = make, write


def hush_without_bars() -> None:
    """:func:`quiet`, and no progress bars from now on: for a process that is one of several jobs."""
    quiet()
    without_bars().__enter__()
