"""Hush what the libraries below say on every load and step, so that a person sees expunge's own lines."""

from __future__ import annotations

import logging as plain
import warnings


def quiet() -> None:
    """No progress bars for reading weights, no library warnings; errors still show.  For the command line only."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    plain.getLogger("lm_eval").setLevel(plain.ERROR)
    warnings.filterwarnings("ignore", module=r"(torch|transformers|peft|accelerate)\b.*")
