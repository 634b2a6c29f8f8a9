"""What is searched: of each method its numeric parameters, the learning rate and the steps, unless the user says otherwise.

A range is written LOW:HIGH, LOW:HIGH:log, or VALUE,VALUE,…; the user with ``--search``, the author of a method with
``@method(search={"beta": "0.01:1:log", "max_multiplier": None})``, None for what is not worth a search.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args, get_type_hints

import annotated_types
from pydantic.fields import FieldInfo

from expunge.compare.settings import BUDGET_ARGUMENTS
from expunge.errors import InputError, nearest
from expunge.method import Entry, validate
from expunge.settings import ALIASES
from expunge.training.arguments import check_range, parse
from expunge.training.arguments import names as training_names

AROUND = 10.0  # a default's range reaches from a tenth of it to ten times as much
FEWEST = 8  # an eighth of the budget's steps is the least that a trial takes
OPEN = 0.01  # of the width: how far a range keeps from a bound that is excluded
STEPS, RATE = "max_steps", "learning_rate"
FORM = "write KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=VALUE,VALUE,… (lr=1e-5:1e-3:log)"


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included, integers where both are; ``log``: evenly in their logarithms."""

    low: float
    high: float
    log: bool = False

    def __str__(self) -> str:
        return f"{self.low:.6g}:{self.high:.6g}{':log' * self.log}"

    @property
    def whole(self) -> bool:
        """Whether its numbers are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


@dataclass(frozen=True)
class Choices:
    """One of ``values``."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.values))


Space: TypeAlias = Mapping[str, Range | Choices]


def split(pairs: Mapping[str, str], methods: Mapping[str, Entry]) -> dict[str, dict[str, str]]:
    """Label -> key -> the range as it was written: that of LABEL.KEY before that of KEY; InputError for a key of no method.

    A key is a parameter of a method or a training argument, which every method takes.
    """
    out: dict[str, dict[str, str]] = {label: {} for label in methods}
    for key, text in sorted(pairs.items(), key=lambda pair: "." in pair[0]):
        label, dot, name = key.partition(".")
        name = ALIASES.get(name if dot else key, name if dot else key)
        if dot and label not in methods:
            raise InputError(f"search: {key} names no method of these: {', '.join(methods)}")
        takers = [label] if dot else list(methods)
        takers = [it for it in takers if name in methods[it].defaults or name in training_names()]
        if not takers:
            known = [*(k for it in methods.values() for k in it.defaults), *training_names()]
            raise InputError(
                f"search: {key} is no parameter of {label if dot else ' or '.join(methods)} and no training argument"
                f"{nearest(name, known)}"
            )
        if name in BUDGET_ARGUMENTS and (name != STEPS or dot):
            raise InputError(
                f"search: {key} would give trials unequal budgets; set it for all (key=value), or search "
                "max_steps=LOW:HIGH, whose HIGH is every method's budget"
            )
        for it in takers:
            out[it][name] = text
    return out


def read(key: str, text: str, entry: Entry) -> Range | Choices:
    """The range that ``text`` is for ``key``, a parameter of the method or a training argument, with its type and bounds."""
    parts = text.split(":")
    if len(parts) == 1:
        return Choices(tuple(dict.fromkeys(_value(key, v.strip(), entry) for v in text.split(","))))
    if len(parts) > 3 or (len(parts) == 3 and parts[2] != "log"):
        raise InputError(f"search: {key}={text} is no range; {FORM}")
    low, high = (_value(key, v.strip(), entry) for v in parts[:2])
    for value in (low, high):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"search: {key}={text}: {value!r} is no number; {FORM}")
    if not low < high:
        raise InputError(f"search: {key}={text}: {low} is not below {high}; {FORM}")
    if len(parts) == 3 and low <= 0:
        raise InputError(f"search: {key}={text}: a logarithmic range begins above 0, not at {low}")
    return Range(low, high, len(parts) == 3)


def of(
    entry: Entry,
    *,
    given: Mapping[str, Any],
    training: Mapping[str, Any],
    search: Mapping[str, str],
    rate: float | None,
    steps: int,
) -> dict[str, Range | Choices]:
    """What is searched of a method: what ``search`` says, and the method's own ranges for what nobody ``given`` a value.

    ``rate``: the learning rate that the method has without a search, None where a run finds its own; ``steps``: the
    budget.  A parameter that is given, or a training argument in ``training``, stays as it is; InputError where ``search``
    names it, too.
    """
    for key in search:
        if key in given or (key in training and key != STEPS):
            raise InputError(
                f"search: {key} has the value {({**training, **given})[key]}; leave out that or its search"
            )
    space = {key: found for key, found in _own(entry) if key not in given}
    if rate is not None and RATE not in training:
        space[RATE] = Range(rate / AROUND, rate * AROUND, log=True)
    if not {STEPS, "num_train_epochs"} & training.keys() and steps > 1:
        space[STEPS] = Range(max(1, steps // FEWEST), steps, log=True)
    return space | {key: read(key, text, entry) for key, text in search.items()}


def clipped(value: Any, among: Range | Choices) -> Any:
    """``value`` where it is in a range or the nearest end, or one of the choices; None where it is none.

    >>> clipped(5, Range(1, 3)), clipped(0.5, Choices((0.1, 0.5))), clipped(2, Choices((1,)))
    (3, 0.5, None)
    """
    if isinstance(among, Choices):
        return value if value in among.values else None
    return min(max(value, among.low), among.high) if isinstance(value, int | float) else None


# -- a method's own -------------------------------------------------------------------------------------------------------
def _own(entry: Entry) -> Iterator[tuple[str, Range | Choices]]:
    """The ranges of a method's parameters: its author's, else those of its signature."""
    hints = get_type_hints(inspect.unwrap(entry.make), include_extras=True)
    for key, default in entry.defaults.items():
        if key in entry.search:
            if (text := entry.search[key]) is not None:
                yield key, read(key, text, entry)
        elif (found := around(default, hints[key])) is not None:
            yield key, found


def around(default: Any, hint: Any = float) -> Range | None:
    """The range of a number with this default and annotation; None for one that is 0 or negative without two bounds.

    Between its bounds where it has two, else from a tenth of the default to ten times as much, as far as the bound goes.

    >>> str(around(0.5)), str(around(8, int)), around(True), around(None), around(0.0)
    ('0.05:5:log', '1:80:log', None, None, None)
    """
    if isinstance(default, bool) or not isinstance(default, int | float):
        return None
    whole = isinstance(default, int)
    low, high = _bounds(hint, whole)
    if math.isfinite(low) and math.isfinite(high):
        return Range(low, high) if low < high else None
    if default <= 0:
        return None
    low, high = max(low, default / AROUND), min(high, default * AROUND)
    if whole:
        low, high = max(1, math.ceil(low)), math.floor(high)
    return Range(low, high, log=True) if low < high else None


def _bounds(hint: Any, whole: bool) -> tuple[float, float]:
    """The least and the greatest number that an annotation allows, ±inf where it says nothing."""
    low, high, open_low, open_high = -math.inf, math.inf, False, False
    for one in _constraints(hint):
        if isinstance(one, annotated_types.Ge | annotated_types.Gt):
            low = float(getattr(one, "ge", None) if isinstance(one, annotated_types.Ge) else one.gt)  # type: ignore[arg-type]
            open_low = isinstance(one, annotated_types.Gt)
        elif isinstance(one, annotated_types.Le | annotated_types.Lt):
            high = float(getattr(one, "le", None) if isinstance(one, annotated_types.Le) else one.lt)  # type: ignore[arg-type]
            open_high = isinstance(one, annotated_types.Lt)
    if whole:
        ends = (low + open_low, high - open_high)
        return tuple(int(end) if math.isfinite(end) else end for end in ends)  # type: ignore[return-value]
    if not (math.isfinite(low) and math.isfinite(high)):
        return low, high
    return low + OPEN * (high - low) * open_low, high - OPEN * (high - low) * open_high


def _constraints(hint: Any) -> Iterator[Any]:
    """The constraints of an annotation, those inside a union included."""
    for one in getattr(hint, "__metadata__", ()):
        yield from one.metadata if isinstance(one, FieldInfo) else [one]
    for inner in get_args(hint):
        yield from _constraints(inner)


def _value(key: str, text: str, entry: Entry) -> Any:
    """``text`` as a value of the parameter or training argument ``key``."""
    if not text:
        raise InputError(f"search: {key} has an empty value; {FORM}")
    if key in entry.defaults:
        return validate(entry.name, {key: None if text.lower() == "none" else text})[key]
    value = parse(key, text)
    check_range(key, value)
    return value
