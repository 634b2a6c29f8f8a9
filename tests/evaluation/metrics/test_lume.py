"""LUME's terms and score, on cases worked by hand."""

from __future__ import annotations

import math

import pytest

from expunge.errors import InputError
from expunge.evaluation.metrics import lume

NAN = math.nan


def lume_rows():
    """Of each split and task one sc row (four words) and two qa rows, all answered in full."""
    return [
        {"id": f"{split}{task}{kind}", "split": split, "task": task, "output": text, "generation": text}
        for split in ("forget", "retain")
        for task in ("Task1", "Task2", "Task3")
        for kind, text in (("sc1", "one two three four"), ("qa0", "Ada"), ("qa1", "Bo"))
    ]


@pytest.mark.usefixtures("scorer")
def test_lume_terms():
    """All answered in full: retain terms 1, forget terms 0.  Three of four words of forget Task1's sentence: 1 - 3/4.
    Of retain Task2's two questions one answered as " ADA ", one with a word too many: 1/2.  The stem counts in sc rows."""
    rows = lume_rows()
    terms = lume.lume_terms(rows)
    assert tuple(terms) == lume.LUME_TERMS
    assert terms == {name: float(name.startswith("retain")) for name in lume.LUME_TERMS}
    change = {
        "forgetTask1sc1": "one three four",
        "retainTask2qa0": " ADA ",
        "retainTask2qa1": "Bo it is",
        "retainTask3sc1": "ones two three four",
        "retainTask3qa0": "",
    }
    terms = lume.lume_terms([r | {"generation": change.get(r["id"], r["generation"])} for r in rows])
    assert terms["forget_Task1_regurgitation"] == pytest.approx(1 / 4)
    assert terms["retain_Task2_knowledge"] == pytest.approx(1 / 2)
    assert terms["retain_Task3_regurgitation"] == 1
    assert terms["retain_Task3_knowledge"] == 1 / 2  # an empty answer is empty, not "nan"


def test_lume_scores():
    """Eleven 1 and one 1/2: 12 / 13.  One 0: 0.  AUC 0.8 and 0.2: 1 - 2 * 0.3.  (0.9 + 0.6 + 0.3) / 3 = 0.6."""
    terms = dict.fromkeys(lume.LUME_TERMS, 1.0)
    assert len(terms) == 12
    assert lume.lume_aggregate(terms | {"forget_Task2_knowledge": 0.5}) == pytest.approx(12 / 13)
    assert lume.lume_aggregate(terms | {"forget_Task2_knowledge": 0.0}) == 0
    assert [lume.lume_mia_final(a) for a in (0.8, 0.2, 0.5, 1)] == pytest.approx([0.4, 0.4, 1, 0])
    assert lume.lume_final(0.9, 0.6, 0.3) == pytest.approx(0.6)
    with pytest.raises(InputError, match="lacks retain_Task3_knowledge"):
        lume.lume_aggregate(dict.fromkeys(lume.LUME_TERMS[:-1], 1.0))
    with pytest.raises(InputError, match=r"auc must lie between 0 and 1, not 1\.2"):
        lume.lume_mia_final(1.2)
    with pytest.raises(InputError, match=r"mmlu must lie between 0 and 1, not 44\.3"):
        lume.lume_final(0.5, 0.5, 44.3)
    with pytest.raises(InputError, match="mia must"):
        lume.lume_final(0.5, NAN, 0.4)
    with pytest.raises(InputError, match="aggregate must"):
        lume.lume_final(-1, 0.5, 0.4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": "a-qx1"}, "does not end with sc or qa and a digit"),
        ({"task": "Task4"}, "task 'Task4'"),
        ({"split": "holdout"}, "split 'holdout'"),
        (
            {"generation": NAN},
            "output and generation of row x-sc1 must be texts",
        ),
        ({"id": "forgetTask1sc1"}, "row forgetTask1sc1 of the forget split is there twice"),
    ],
)
def test_lume_rows_that_are_none(change, says):
    row = {"id": "x-sc1", "split": "forget", "task": "Task1", "output": "one", "generation": "one"}
    with pytest.raises(InputError, match=says):
        lume.lume_terms([*lume_rows(), row | change])


def test_lume_needs_all_twelve_terms():
    rows = [r for r in lume_rows() if "Task2" not in r["task"] or r["split"] == "retain"]
    with pytest.raises(InputError, match=r"none for forget_Task2_regurgitation, forget_Task2_knowledge$"):
        lume.lume_terms(rows)
    with pytest.raises(InputError, match="row 0 has no output, generation"):
        lume.lume_terms([{"id": "xsc1", "split": "forget", "task": "Task1"}])
