"""Of an audit's attacks the one that brings most back, for a figure or a line that has room for one."""

from __future__ import annotations

from expunge.record_types import AuditRecord

SCALE = 1.0  # from nothing to all that was lost: an interval as wide as that tells nothing
Attack = tuple[float, float | None, float | None, str]  # value, low, high, name


def worst(record: AuditRecord) -> Attack | None:
    """The attack with the greatest share brought back, beyond the control where there is one; None of an audit without one.

    Those with an interval as wide as the scale, from nothing to all, are passed over where there are others: of many
    attacks the one that is known worst would be named too often.
    """
    found = [
        (e["value"], e["low"], e["high"], a["name"] or "")
        for a in record["attacks"]
        if (e := a["excess"] or a["recovery"]) and e["value"] is not None
    ]
    told = [a for a in found if a[1] is None or a[2] is None or a[2] - a[1] < SCALE]
    return max(told or found, key=lambda a: (a[0], a[3]), default=None)
