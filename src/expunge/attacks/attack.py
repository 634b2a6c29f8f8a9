"""What an attack is: a function from a subject and a measure to a curve of what is known of each forget row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from expunge.data.example import Row

Array = NDArray[np.float64]
Family = Literal["relearning", "weights", "asking", "sampling", "inside"]


@dataclass(frozen=True)
class Subject:
    """A model under attack, and what the attacker has.

    ``forget``: the rows whose knowledge is measured (n of them); ``known``: other rows to forget, which the attacker has
    and which are not measured; ``retain``, ``unrelated``: rows that were not to be forgotten, and text of any other kind.
    ``target``: the model before unlearning; ``retrained``: one that never saw the rows; None where there is none.
    ``chat_template``: conversations in the tokenizer's template, or as plain lines; None: if the tokenizer has one.
    ``answers``: what ``model`` answered already, by prompt, so that attacks on one subject ask nothing twice.
    An attack leaves ``model`` as it was.
    """

    model: Any
    tokenizer: Any
    forget: Sequence[Row]
    known: Sequence[Row] = ()
    retain: Sequence[Row] = ()
    unrelated: Sequence[Row] = ()
    target: Any = None
    retrained: Any = None
    seed: int = 0
    chat_template: bool | None = None
    answers: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def templated(self) -> bool:
        """Whether conversations are rendered in the tokenizer's chat template."""
        has = bool(getattr(self.tokenizer, "chat_template", None))
        return has if self.chat_template is None else self.chat_template


Measure = Callable[[Any], Array]
"""Of a model, how much it knows of each of ``Subject.forget``: (n,), from 0 (nothing) to 1 (by heart)."""


@dataclass(frozen=True)
class Point:
    """What is known (n,) at one ``strength`` of an attack (steps, share of weights, samples), which ``label`` names.

    ``by_seed`` (seeds, n): of a random attack with several seeds, whose mean ``known`` is.
    """

    strength: float
    label: str
    known: Array = field(repr=False)
    by_seed: Array | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Attack:
    """A named attack.  ``unit`` is that of the strength; ``trains``: weights are trained, which takes its time;
    ``needs``: fields of the subject without which it cannot be run; ``random``: another seed gives other points.
    """

    name: str
    family: Family
    summary: str
    run: Callable[[Subject, Measure], list[Point]]
    unit: str = ""
    trains: bool = False
    needs: tuple[str, ...] = ()
    random: bool = False
