"""Lookup of figures in a record that may lack them, and formatting of numbers: the one place that formats.

A record may lack any part (a run without evaluation, an older writer), so everything is looked up with
``lookup`` or ``number``, and a missing or non-finite figure becomes a dash.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

DASH = "–"
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


# -- lookup --------------------------------------------------------------------------------------------------
def lookup(record: Any, *keys: str) -> Any:
    """record[key][key]…, or None as soon as something is missing."""
    for key in keys:
        record = record.get(key) if isinstance(record, Mapping) else None
    return record


def number(record: Any, *keys: str) -> float | None:
    """The finite number at that path, or None."""
    value = lookup(record, *keys)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def mappings(record: Any, key: str) -> list[Mapping[str, Any]]:
    """The dicts in the list at ``key``; an empty list if there is none."""
    items = lookup(record, key)
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list | tuple) else []


# -- numbers in words ----------------------------------------------------------------------------------------
def probability(value: float | None) -> str:
    """Two decimals, more for a small one: 0.82, 0.05, 0.0041, below 0.0001.

    >>> probability(0.8213), probability(0.0041), probability(3e-9), probability(0.0)
    ('0.82', '0.0041', 'below 0.0001', '0.00')
    """
    if value is None:
        return DASH
    if 0 < value < 1e-4:
        return "below 0.0001"
    return f"{value:.2f}" if value == 0 or value >= 0.00995 else f"{value:.2g}"


def percent(ratio: float | None) -> str:
    """A whole percentage that never rounds a loss away: 94 %, over 99 %, below 1 %.

    >>> percent(0.9432), percent(0.998), percent(0.002), percent(1.0), percent(1.04)
    ('94 %', 'over 99 %', 'below 1 %', '100 %', '104 %')
    """
    if ratio is None:
        return DASH
    if 0.995 <= ratio < 1:
        return "over 99 %"
    return "below 1 %" if 0 < ratio < 0.005 else f"{100 * ratio:.0f} %"


def cell(key: str, value: float | None) -> str:
    """A figure in a table: ``n`` as a whole number, others with three decimals, so that a column lines up."""
    if value is None:
        return DASH
    if key == "n":
        return count(value)
    return "<0.001" if 0 < value < 0.0005 else f"{value:.3f}"


def count(value: float | None) -> str:
    """A whole number with thin spaces between thousands: 134 515 008."""
    return DASH if value is None else f"{value:,.0f}".replace(",", "\u202f")


def scale(value: float | None, unit: str = "") -> str:
    """A large number with a decimal prefix: 134.5 M, 3.0 GB (decimal, 1 GB = 10^9 bytes)."""
    if value is None:
        return DASH
    for size, letter in ((1e12, "T"), (1e9, "G" if unit else "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f} {letter}{unit}"
    return f"{value:.0f} {unit}".strip()


def duration(seconds: float | None) -> str:
    """Seconds in words: 8.2 s, 2 min 3 s, 3 h 5 min."""
    if seconds is None or seconds < 0:
        return DASH
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    total = round(seconds)
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def day(created: Any) -> str:
    """An ISO time as a date in words: 21 November 2026, 08:00 UTC; anything else unchanged."""
    try:
        time = datetime.fromisoformat(str(created))
    except ValueError:
        return str(created)
    zone = "" if time.tzinfo is None else " UTC" if not time.utcoffset() else f" {time:%z}"
    return f"{time.day} {MONTHS[time.month - 1]} {time.year}, {time:%H:%M}{zone}"


def plain(value: Any) -> str:
    """Any setting as text: a string as it is, None as a dash, anything else as JSON."""
    if value is None:
        return DASH
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
