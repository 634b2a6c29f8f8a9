"""JUnit and Markdown of an audit: a failure where a check decides and did not pass, and no text of the rows."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from expunge.audit import summary

CHECK = {"name": "remaining/recall", "question": "gone", "family": "remaining", "value": 0.1, "low": 0.0, "high": 0.2,
         "n": 9, "limit": 0.2, "severe": 0.5, "better": "lower", "decides": True, "meaning": "the share <left>"}  # fmt: skip


def record(word: str, *outcomes: str, decides: bool = True) -> dict:
    found = [CHECK | {"outcome": o, "name": f"c{k}", "decides": decides} for k, o in enumerate(outcomes)]
    return {"created": "2026-11-27T20:00:00+00:00", "policy": {"confidence": 0.9}, "models": {}, "data": {},
            "verdict": {"word": word, "sentence": "because", "findings": found, "not_concluded": ["this"]}}  # fmt: skip


@pytest.mark.parametrize(
    ("word", "outcomes", "failures", "skipped"),
    [
        ("forgotten", ("passed", "passed"), 0, 0),
        ("partly", ("partly", "passed"), 2, 0),
        ("not forgotten", ("failed", "unclear"), 2, 1),
        ("cannot be told", ("unclear",), 0, 2),
    ],
)
def test_junit(word, outcomes, failures, skipped):
    suite = ElementTree.fromstring(summary.junit(record(word, *outcomes)).split("\n", 1)[1])
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == (
        str(1 + len(outcomes)), str(failures), str(skipped),
    )  # fmt: skip
    assert len(suite.findall("testcase/failure")) == failures and len(suite.findall("testcase/skipped")) == skipped


def test_what_does_not_decide_is_no_failure():
    suite = ElementTree.fromstring(summary.junit(record("forgotten", "failed", decides=False)).split("\n", 1)[1])
    assert suite.get("failures") == "0" and suite.get("skipped") == "1"


def test_markdown():
    text = summary.markdown(record("partly", "partly"))
    assert (
        text.startswith("# Audit: partly")
        and "| ~ partly | the share <left> | 0.10 | 0.00 to 0.20 | ≤ 0.20 | 9 |" in text
    )
    assert "90 % interval" in text and "- This." in text


def test_lines_say_the_worst_of_each_question():
    found = summary.lines(record("partly", "passed", "partly", "unclear"))
    assert "1 of 3 checks passed; partly" in found[0] and found[2].endswith("not asked")
