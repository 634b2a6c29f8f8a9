"""The thresholds of a verdict: ``policy.toml``, a built-in one or the user's."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from expunge import files
from expunge.errors import InputError
from expunge.settings import checked

FILE = "policy.toml"
Share = Field(gt=0, lt=1)
Family = Literal["remaining", "kept", "fluency", "membership", "equivalence", "back"]


class Policy(BaseModel):
    """What each threshold means is said in the built-in ``policy.toml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    confidence: float = Share
    alpha: float = Share
    target_knows: float = Share
    control_knows: float = Share
    remaining: float = Share
    remaining_failed: float = Share
    equivalence_margin: float = Share
    membership_margin: float = Share
    kept: float = Share
    damaged: float = Share
    fluency: float = Share
    fluency_damaged: float = Share
    recovery: float = Share
    recovered: float = Share
    require: tuple[Family, ...]


@cache
def built_in() -> dict[str, Any]:
    """The thresholds of the built-in file."""
    return tomllib.loads(resources.files("expunge.audit").joinpath(FILE).read_text(encoding="utf-8"))


def read(path: str | None = None) -> Policy:
    """The policy in ``path``, whose thresholds stand over the built-in ones; the built-in one without a path.

    Raises InputError for a file that is none, a threshold that there is not, and limits in the wrong order.
    """
    values = dict(built_in())
    where = "the built-in policy"
    if path is not None:
        where = str(path)
        values |= _parsed(files.expanded(path))
    policy = checked(Policy, values, where)
    for mild, severe in (("remaining", "remaining_failed"), ("recovery", "recovered"), ("damaged", "kept"),
                         ("fluency_damaged", "fluency")):  # fmt: skip
        if getattr(policy, mild) > getattr(policy, severe):
            raise InputError(
                f"{where}: {mild} = {getattr(policy, mild)} must not be above {severe} = {getattr(policy, severe)}"
            )
    return policy


def _parsed(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file}: there is no policy; give a TOML file, such as a copy of the built-in one") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{file} is no policy in TOML: {' '.join(str(error).split())}") from None
