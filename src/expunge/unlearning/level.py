"""What gives the level at which some methods end, that of a model that never saw the forget rows.

In this order: the model that was named (``--level``); holdout rows (:mod:`expunge.unlearning.unseen`); the base of an
adapter that is unlearned.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from expunge.errors import InputError
from expunge.method import Method
from expunge.models.check import check_files
from expunge.models.locate import adapter_base, resolve
from expunge.models.tokenizer import load_tokenizer
from expunge.unlearning.rows import Data
from expunge.unlearning.settings import Recipe

Source = Literal["model", "holdout"]


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


def source_of(settings: Recipe) -> Source | None:
    """What gives the level of a run; None where nothing does."""
    if settings.level is None and settings.holdout is not None:
        return "holdout"
    return None if model_of(settings) is None else "model"


def described(settings: Recipe) -> dict[str, str | None]:
    """What a record says of it."""
    source = source_of(settings)
    return {"source": source, "model": model_of(settings) if source == "model" else None}


def check(settings: Recipe, method: Method, tokenizer: Any) -> None:
    """Raise InputError where ``method`` reads a level and nothing gives one that fits, or where it reads none."""
    if not method.reads_level:
        if settings.level is not None:
            raise InputError(
                f"level does nothing under {method.name}; leave it out, or choose a method that ends there, such as "
                "blur_level"
            )
        return
    if settings.level is not None and settings.holdout is not None:
        raise InputError(
            f"{method.name} ends at one level, that of the model {settings.level} or that of the holdout rows; leave out "
            "level, or holdout"
        )
    source, name = source_of(settings), model_of(settings)
    if source == "holdout":
        return
    if name is None:
        raise InputError(
            f"{method.name} ends where a model that never saw the forget rows would be; name one with --level (a retrained "
            "model, or the one before fine-tuning), or give rows of the same kind that the model never saw with --holdout"
        )
    check_files(resolve(name), trust_remote_code=settings.trust_remote_code)
    other = load_tokenizer(name, trust_remote_code=settings.trust_remote_code)
    if other.get_vocab() != tokenizer.get_vocab():
        raise InputError(
            f"level: {name} has another vocabulary than {settings.model}, so their probabilities of a token cannot be "
            "compared; name a model with the same tokenizer"
        )


def loader(settings: Recipe, method: Method, load: Callable[[str], Any], data: Data, target: Any) -> Any:
    """What gives the model when it is called, or the levels of the forget rows' tokens; None for a method that reads none.

    ``target``: what :func:`expunge.models.load.load` gave of the model that is unlearned.
    """
    if not method.reads_level:
        return None
    if source_of(settings) == "holdout":
        from expunge.training.cached import CachedLogp
        from expunge.unlearning import unseen

        rows = data.examples["holdout"]
        logp = unseen.token_logp(target.model, rows, target.tokenizer.pad_token_id)
        return CachedLogp({"forget": unseen.levels(data.examples["forget"], rows, logp)})
    name = model_of(settings)
    assert name is not None
    return lambda: load(name).model
