"""What Python gives a run that no file and no command line can: a model, a tokenizer and callbacks in memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from expunge.errors import InputError
from expunge.unlearning.settings import Recipe


@dataclass(frozen=True)
class PythonInputs:
    """A model or None, a tokenizer or None (then they are the recipe's), and callbacks of ``transformers.Trainer``."""

    model: Any = None
    tokenizer: Any = None
    callbacks: tuple[Any, ...] = ()

    def load(self, settings: Recipe, device: Any = None) -> Any:
        """A copy of the model as :func:`expunge.models.load` would give it, on ``device``; None where there is none."""
        if self.model is None:
            return None
        import torch

        from expunge import models
        from expunge.models.in_memory import check_base, from_memory

        dtype = getattr(torch, settings.loaded)
        own = from_memory(self.model, self.tokenizer, dtype=dtype, device=device)
        if settings.attn:
            own.model.set_attn_implementation(settings.attn)
        if settings.adapter and not settings.merge:
            check_base(own, models.load(own.source, dtype=dtype, trust_remote_code=settings.trust_remote_code))
        return own


NO_INPUTS = PythonInputs()


@contextlib.contextmanager
def one_display() -> Iterator[None]:
    """Without transformers' own bars for reading and writing weights, so that a run shows one bar at a time."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextlib.contextmanager
def with_gradients() -> Iterator[None]:
    """With gradients, whatever the caller switched off."""
    import torch

    with torch.inference_mode(False), torch.enable_grad():
        yield


def from_python(
    model: Any, tokenizer: Any, callbacks: Any, settings: Mapping[str, Any]
) -> tuple[dict[str, Any], PythonInputs]:
    """``settings`` with the model's name, and what is in memory; raises InputError for what is none of its kind."""
    from transformers import TrainerCallback

    settings = {key: _plain(value) for key, value in settings.items()}
    callbacks = callbacks if isinstance(callbacks, list | tuple) else [] if callbacks is None else [callbacks]
    for one in callbacks:
        if not isinstance(one, TrainerCallback) and not (isinstance(one, type) and issubclass(one, TrainerCallback)):
            raise InputError(f"callbacks holds a {type(one).__name__}; give objects of transformers.TrainerCallback")
    if isinstance(model, str | os.PathLike):
        name, own = os.fspath(model), None
    else:
        from expunge.models import in_memory

        if not in_memory.is_model(model):
            raise InputError(
                f"model is a {type(model).__name__}; give a name, a folder, or a model of transformers or PEFT"
            )
        in_memory.check(model, adapter=bool(settings.get("adapter")) and not settings.get("merge"))
        name, own = in_memory.name_of(model), model
    trusted = bool(settings.get("trust_remote_code", False))
    if tokenizer is None and own is None:
        return {**settings, "model": name}, PythonInputs(callbacks=tuple(callbacks))
    from expunge.models.in_memory import tokenizer_of

    found = tokenizer_of(tokenizer, model, trust_remote_code=trusted)
    return {**settings, "model": name}, PythonInputs(own, found, tuple(callbacks))


def _plain(value: Any) -> Any:
    """A number format or a device of torch's as its name."""
    import torch

    return str(value).removeprefix("torch.") if isinstance(value, torch.dtype | torch.device) else value
