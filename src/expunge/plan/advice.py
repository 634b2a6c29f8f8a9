"""What to change where a run does not fit: the first of an ordered list of changes that makes it fit."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expunge.plan.setup import Setup
from expunge.settings import ALIASES
from expunge.unlearning.settings import Recipe

CARDS = (2, 4, 8, 16, 32, 64)
# Options of `expunge plan` alone -> whether a value follows.
PLAN_OPTIONS = {
    "--memory": True, "--probe": False, "--no-probe": False, "--rate": True, "--rows": True, "--row-tokens": True,
    "--answer-tokens": True, "--json": False, "--quiet": False, "--dry-run": False,
}  # fmt: skip


@dataclass(frozen=True)
class Change:
    """Settings to give beside those of a run: recipe keys as ``options``, training arguments as ``pairs``."""

    options: Mapping[str, Any]
    pairs: Mapping[str, Any]

    def of(self, settings: Recipe) -> Recipe:
        """``settings`` with them."""
        return settings.model_copy(update={**self.options, "training": {**settings.training, **self.pairs}})


def changes(settings: Recipe, how: Setup, *, cards: int | None) -> Iterator[list[Change]]:
    """The changes to try, what costs least first; each with its numbers of rows, most first.

    A smaller micro-batch, with as many more of them a step; gradient checkpointing; LoRA, in bfloat16; a base in 4 bits;
    then the run as it is, and with LoRA, in shards over more cards (at most ``cards``; None: any number).
    """
    light: dict[str, Any] = {}
    if settings.adapter is None:
        light["adapter"] = "lora"
    if settings.dtype == "float32" and settings.loaded == "float32" and not settings.merge:
        light["dtype"] = "bfloat16"
    stages: list[dict[str, Any]] = [{}, light] if light else [{}]
    if how.gpu and not how.quantize and "quantize" in Recipe.model_fields:
        stages.append({**light, "quantize": "nf4"})
    if not how.sharded:
        for stage in stages:
            for more in (False,) if how.checkpointing else (False, True):
                yield _with_rows(stage, {"gradient_checkpointing": True} if more else {}, how, how.processes)
    if not how.gpu:
        return
    config = {"version": 2, "activation_checkpointing": True}
    for stage in stages[:2]:
        for n in (n for n in CARDS if n > how.processes or (n == how.processes and not how.sharded)):
            if cards is None or n <= cards:
                pairs = {"fsdp": "full_shard", "fsdp_config": config}
                off = {"gradient_checkpointing": False} if "gradient_checkpointing" in settings.training else {}
                yield _with_rows({**stage, "processes": n}, {**pairs, **off}, how, n)


def _with_rows(options: Mapping[str, Any], pairs: Mapping[str, Any], how: Setup, processes: int) -> list[Change]:
    """The change with each number of rows a micro-batch that cuts the optimizer step into equal parts, most first."""
    total, out = how.step_rows, []
    for rows in range(min(how.rows, total), 0, -1):
        if total % (rows * processes) == 0:
            numbers = {
                "per_device_train_batch_size": rows,
                "gradient_accumulation_steps": total // (rows * processes),
            }
            out.append(Change(options, {**pairs, **numbers}))
    return out


def first_that_fits(groups: Iterator[list[Change]], fits: Callable[[Change], bool]) -> Change | None:
    """The first change that ``fits``, with the most rows; a group whose smallest micro-batch does not is left at once."""
    for group in groups:
        if group and fits(group[-1]):
            return next(change for change in group if change is group[-1] or fits(change))
    return None


# -- the command ------------------------------------------------------------------------------------------------------------
def command(typed: Sequence[str], change: Change) -> str:
    """The command that was ``typed`` as `expunge run`, with ``change``; it can be pasted into a shell.

    >>> command(["plan", "--model", "m", "--memory", "24GB", "batch_size=8"],
    ...         Change({"adapter": "lora"}, {"per_device_train_batch_size": 2}))
    'expunge run --model m --adapter lora per_device_train_batch_size=2'
    """
    options = {f"--{key.replace('_', '-')}": str(value) for key, value in change.options.items()}
    drop = {**PLAN_OPTIONS, **dict.fromkeys(options, True)}
    kept: list[str] = []
    words = iter(typed[1:])
    for word in words:
        name, equals, _ = word.partition("=")
        if name in drop:
            if drop[name] and not equals:
                next(words, None)
        elif not (equals and (ALIASES.get(name, name) in change.pairs or name in change.options)):
            kept.append(word)
    added = [word for pair in options.items() for word in pair]
    return shlex.join(["expunge", "run", *kept, *added, *(f"{k}={_value(v)}" for k, v in change.pairs.items())])


def _value(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool | Mapping) else str(value)
