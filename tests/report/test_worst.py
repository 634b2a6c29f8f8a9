"""Of an audit's attacks the one that a figure names: by hand."""

from __future__ import annotations

from expunge.record import complete
from expunge.record_types import AuditRecord
from expunge.report.worst import worst


def of(**attacks):
    """Name -> (value, low, high) of the excess, or of the recovery where it is a pair of that and None."""
    said = [
        {
            "name": name,
            "recovery": dict(zip(("value", "low", "high"), recovery, strict=True)),
            "excess": None if excess is None else dict(zip(("value", "low", "high"), excess, strict=True)),
        }
        for name, (recovery, excess) in attacks.items()
    ]
    return worst(complete(AuditRecord, {"attacks": said}))


def test_the_greatest_share_of_those_that_are_told():
    probe, few = ((1.2, 0.3, 1.8), (1.2, 0.28, 1.75)), ((0.4, 0.3, 0.5), (0.23, 0.1, 0.4))
    prefill = ((0.9, 0.8, 1.0), (0.11, 0.0, 0.3))
    assert of(probe=probe, few=few, prefill=prefill) == (0.23, 0.1, 0.4, "few"), "1.47 wide: from nothing to all"
    assert of(few=few, exact=((0.5, None, None), None)) == (0.5, None, None, "exact"), "no interval, no control"
    assert of(few=few, edge=((0.0, 0.0, 0.0), (0.3, -0.25, 0.75))) == (0.23, 0.1, 0.4, "few"), "as wide as the scale"


def test_a_wide_one_where_there_is_no_other_and_none_of_none():
    wide = ((0.4, 0.0, 1.7), (0.4, 0.0, 1.67))
    assert of(probe=wide, untold=((None, None, None), None)) == (0.4, 0.0, 1.67, "probe")
    assert of() is None
