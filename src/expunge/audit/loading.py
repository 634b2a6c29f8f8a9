"""Models of an audit in memory, for as long as a block lasts."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from expunge import models, processes
from expunge.audit import material
from expunge.audit.settings import Audit


@contextmanager
def loaded(name: str, settings: Audit) -> Iterator[models.Loaded]:
    """The model ``name``, let go at the end of the block."""
    import torch

    one = models.load(
        name,
        dtype=getattr(torch, settings.dtype),
        device=settings.device or processes.device(),
        trust_remote_code=settings.trust_remote_code,
    )
    material.use(one.tokenizer, settings)
    try:
        yield one
    finally:
        del one
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextmanager
def beside(needed: Sequence[str], settings: Audit) -> Iterator[dict[str, Any]]:
    """The models that an attack needs besides its own: ``target`` and ``retrained``, those of ``needed`` that are given."""
    places = {"target": settings.target, "retrained": settings.retrained}
    with ExitStack() as stack:
        yield {n: stack.enter_context(loaded(str(places[n]), settings)).model for n in needed if places[n]}
