"""What gives the level at which some methods end, that of a model that never saw the forget rows.

In this order: a model, the one that was named (``--level``) or the base of an adapter that is unlearned; holdout rows;
answers that the start model makes up itself.  A model is calibrated on holdout rows, else on a few such answers
(:mod:`expunge.unlearning.calibrate`), and reads rows to keep first where that helps it
(:mod:`expunge.unlearning.in_context`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from expunge.data.example import Row
from expunge.errors import InputError
from expunge.method import Method
from expunge.models.check import check_files
from expunge.models.locate import adapter_base, resolve
from expunge.models.tokenizer import load_tokenizer
from expunge.unlearning.rows import Data
from expunge.unlearning.settings import Recipe

Source = Literal["model", "model and holdout", "holdout", "alternates"]


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


def source_of(settings: Recipe) -> Source:
    """What gives the level of a run."""
    if model_of(settings) is None:
        return "alternates" if settings.holdout is None else "holdout"
    return "model" if settings.holdout is None else "model and holdout"


def described(settings: Recipe) -> dict[str, str | None]:
    """What a record says of it."""
    return {"source": source_of(settings), "model": model_of(settings)}


def check(settings: Recipe, method: Method, tokenizer: Any, forget: Sequence[Row]) -> None:
    """Raise InputError where ``method`` reads a level and nothing gives one that fits, or where it reads none."""
    if not method.reads_level:
        if settings.level is not None:
            raise InputError(
                f"level does nothing under {method.name}; leave it out, or choose a method that ends there, such as "
                "blur_level"
            )
        return
    name = model_of(settings)
    if name is None:
        if settings.holdout is None and any(row.prompt is None for row in forget):
            raise InputError(
                f"{method.name} ends where a model that never saw the forget rows would be, and of plain texts nothing here "
                "says where; name a model with --level (a retrained one, or the one before fine-tuning), or give rows of "
                "the same kind that the model never saw with --holdout"
            )
        return
    check_files(resolve(name), trust_remote_code=settings.trust_remote_code)
    other = load_tokenizer(name, trust_remote_code=settings.trust_remote_code)
    if other.get_vocab() != tokenizer.get_vocab():
        raise InputError(
            f"level: {name} has another vocabulary than {settings.model}, so their probabilities of a token cannot be "
            "compared; name a model with the same tokenizer"
        )


def loader(
    settings: Recipe, method: Method, load: Callable[[str], Any], data: Data, target: Any, folder: Path
) -> tuple[Any, list[str]]:
    """What gives the levels of the forget rows' tokens; None for a method that reads none.  And what is to be warned of.

    ``target``: what :func:`expunge.models.load.load` gave of the model that is unlearned.
    """
    if not method.reads_level:
        return None, []
    name, source = model_of(settings), source_of(settings)
    from expunge.training.cached import CachedLevel
    from expunge.unlearning import calibrate, in_context, unseen

    warnings: list[str] = []
    own, rows, unsure = data.examples["forget"], data.examples.get("holdout"), None
    tokenizer, pad = target.tokenizer, target.tokenizer.pad_token_id
    if name is not None:
        held = calibrate.as_sure if rows is None else calibrate.calibrated
        others = unseen.few_made_up(data, target, settings, folder) if rows is None else rows
        kept = () if settings.retain is None else data.examples.get("retain", ())
        template = settings.chat_template and bool(getattr(tokenizer, "chat_template", None))
        marks = in_context.marks(tokenizer, [*own, *(rows or ()), *kept], template=template)
        return held(load(str(name)).model, target.model, own, others, pad, kept, marks), []
    if rows is None:
        rows, warnings = unseen.made_up(data, target, settings, folder)
    of = unseen.logp_and_entropy(target.model, rows, pad)
    if source == "holdout":
        unsure = calibrate.uncertainty(unseen.explained(rows, of), [values[:, 0] for values in of], len(own))
    return CachedLevel({"forget": unseen.levels(own, rows, of)}, unsure), warnings
