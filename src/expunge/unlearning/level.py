"""The model that gives the level at which some methods end: one that never saw the forget rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from expunge.errors import InputError
from expunge.method import Method
from expunge.models.check import check_files
from expunge.models.locate import adapter_base, resolve
from expunge.models.tokenizer import load_tokenizer
from expunge.unlearning.settings import Recipe


def model_of(settings: Recipe) -> str | None:
    """The name of the model that gives the level: the one that was named, or the base of the adapter that is unlearned."""
    if settings.level is not None:
        return settings.level
    try:
        source = resolve(settings.model)
    except (InputError, TypeError):  # a model in memory
        return None
    if source.kind != "adapter":
        return None
    base, _ = adapter_base(Path(source.location))
    return base.base or base.location


def check(settings: Recipe, method: Method, tokenizer: Any) -> None:
    """Raise InputError where ``method`` reads a level and no model gives one that fits, or where it reads none."""
    if not method.reads_level:
        if settings.level is not None:
            raise InputError(
                f"level does nothing under {method.name}; leave it out, or choose a method that ends there, such as "
                "blur_level"
            )
        return
    name = model_of(settings)
    if name is None:
        raise InputError(
            f"{method.name} ends where a model that never saw the forget rows would be; name one with --level: a retrained "
            "model, or the one before fine-tuning"
        )
    check_files(resolve(name), trust_remote_code=settings.trust_remote_code)
    other = load_tokenizer(name, trust_remote_code=settings.trust_remote_code)
    if other.get_vocab() != tokenizer.get_vocab():
        raise InputError(
            f"level: {name} has another vocabulary than {settings.model}, so their probabilities of a token cannot be "
            "compared; name a model with the same tokenizer"
        )


def loader(settings: Recipe, method: Method, load: Callable[[str], Any]) -> Callable[[], Any] | None:
    """What gives the model when it is asked; None for a method that reads none."""
    if not method.reads_level:
        return None
    name = model_of(settings)
    assert name is not None
    return lambda: load(name).model
