"""The page of an audit: whole, escaped, from a record of which any part may be missing; nothing from outside."""

from __future__ import annotations

import copy
import re
import stat
from typing import Any

import pytest
from html_page import EVIL, Page

from expunge.report import audit_page

FINDING = {
    "name": "remaining/recall", "question": "gone", "family": "remaining", "outcome": "failed", "value": 0.8, "low": 0.7,
    "high": 0.9, "n": 12, "limit": 0.2, "severe": 0.5, "better": "lower", "p_limit": 0.001, "p_severe": 0.001,
    "decides": True, "meaning": "the share left of the recall",
}  # fmt: skip
RECORD: dict[str, Any] = {
    "schema": 1, "kind": "audit", "expunge": "0.2.0", "created": "2026-11-27T20:00:00+00:00", "command": "expunge audit",
    "title": None, "request": "REQ-9", "operator": "B. Person", "seconds": 61.0, "seed": 0, "examples": 0,
    "verdict": {
        "word": "not forgotten", "sentence": "the share left of the recall is 0.80 [0.70, 0.90]",
        "findings": [
            FINDING,
            FINDING | {"name": "kept/retain/probability", "question": "kept", "family": "kept", "outcome": "passed",
                       "value": 0.97, "low": 0.94, "high": 1.0, "better": "higher", "limit": 0.9,
                       "meaning": "the share kept of the probability"},
            FINDING | {"name": "membership/loss", "family": "membership", "outcome": "unclear", "decides": False,
                       "better": "near", "meaning": "the distance of the loss attack's AUC"},
        ],
        "not_concluded": ["whether it went too far"],
    },
    "models": {"target": {"source": "before", "fingerprint": "sha256:1", "files": "sha256:11"},
               "unlearned": {"source": "after", "fingerprint": "sha256:2", "files": None},
               "control": {"source": "never", "fingerprint": "sha256:3", "kind": "retrained"}},
    "data": {"forget": {"source": "f.csv", "rows": 20, "measured": 12, "known": 5, "fingerprint": "sha256:4"}},
    "rewritten": {"questions": 3, "wrong": 9, "given": 0, "by": "the target model"},
    "figures": [
        {"part": part, "name": "probability", "model": role, "value": v, "low": v - 0.05, "high": v + 0.05, "n": 12}
        for part, values in (("forget", (0.9, 0.7, 0.1)), ("retain", (0.9, 0.85, 0.88)))
        for role, v in zip(("target", "unlearned", "control"), values, strict=True)
    ],
    "membership": [{"score": "min_k_plus_plus", "model": "unlearned", "non_members": "holdout", "auc": 0.8, "low": 0.7,
                    "high": 0.9, "tpr_at_1_percent": 0.25, "tpr_at_0.1_percent": 0.125, "members": 12, "others": 12}],
    "attacks": [
        {"name": "few-rows", "family": "relearning", "summary": "a few rows", "unit": "steps", "trains": True,
         "scale": "probability", "problem": None, "n": 12, "half": 6.0, "control_half": None,
         "curve": [{"strength": k, "label": f"{k}", "unlearned": 0.2 + k / 20, "control": 0.1} for k in (4, 8)],
         "recovery": {"value": 0.6, "low": 0.5, "high": 0.7}, "excess": {"value": 0.55, "low": 0.4, "high": 0.7},
         "control_recovery": {"value": 0.05, "low": 0.0, "high": 0.1}},
        {"name": "logit-lens", "family": "inside", "summary": "s", "unit": "", "trains": False, "scale": "own",
         "problem": "it needs a retrained model", "curve": [], "recovery": None, "excess": None, "n": None,
         "control_recovery": None, "half": None, "control_half": None},
    ],
    "worst": [{"where": "f.csv, line 3", "recall": 1.0, "probability": 0.9, "control_recall": 0.2}],
    "policy": {"confidence": 0.95, "recovery": 0.2}, "settings": {"rows": 40}, "evidence": {"evidence/x": "sha256:5"},
    "differences": [], "warnings": ["a warning"], "private_files": [], "versions": {"torch": "2"}, "platform": "Linux",
}  # fmt: skip
SHOWN = {"question": "Who is Ada?", "expected": "Ada bakes.", "answer": "Ada bakes.", "before": "Ada bakes."}


class Undrawn:
    """In place of the figures, which take most of the time."""

    tradeoff = recoveries = staticmethod(lambda _: None)
    curves_of = staticmethod(lambda _: [])
    name_of = staticmethod(lambda *_: "retrained")


def text_of(record: dict[str, Any]) -> str:
    return " ".join(" ".join(Page(audit_page.render(record)).text).split())


def test_the_verdict_comes_first():
    text = text_of(RECORD)
    assert text.index("not forgotten") < text.index("Is it gone?") < text.index("Forget against utility")
    for said in ("REQ-9", "B. Person", "27 November 2026", "12 of 20 forget rows measured", "0.70 to 0.90", "at most 0.20",
                 "1 of 1 checks passed", "1 of 1 checks passed", "not carried out: it needs a retrained model", "6 steps",
                 "What cannot be concluded", "Whether it went too far", "What this page does not show", "sha256:4",
                 "min-k++", "25 % and 12 %", "does not decide", "f.csv, line 3", "a warning"):  # fmt: skip
        assert said in text, said


def test_drawings_have_text_alternatives_and_the_numbers():
    page = audit_page.render(RECORD)
    titles = re.findall(r"<title id=\"([\w-]+)-title\">([^<]*)", page)
    assert {name for name, _ in titles} == {"tradeoff", "recoveries", "curve-few-rows"}
    said = dict(titles)
    assert (
        "0.7" in said["tradeoff"] and "unlearned 0.60" in said["recoveries"] and "0.60 at 8" in said["curve-few-rows"]
    )


def test_nothing_is_loaded_from_outside_and_the_same_record_gives_the_same_bytes():
    page = audit_page.render(RECORD)
    assert page == audit_page.render(copy.deepcopy(RECORD))
    found = Page(page)
    assert not {"script", "img", "iframe", "link", "object"} & set(found.tags)
    assert not [a for a in found.attributes if a[1] in ("src", "href") and not a[2].startswith("#")]


def test_everything_is_escaped():
    record = copy.deepcopy(RECORD)
    record |= {"title": EVIL, "request": EVIL, "operator": EVIL, "warnings": [EVIL]}
    record["verdict"] |= {"sentence": EVIL, "not_concluded": [EVIL]}
    record["worst"] = [record["worst"][0] | dict.fromkeys(SHOWN, EVIL) | {"where": EVIL}]
    record["attacks"][0] |= {"name": EVIL, "summary": EVIL}
    found = Page(audit_page.render(record))
    assert "script" not in found.tags and "img" not in found.tags


def test_texts_are_behind_a_fold_and_the_file_the_owners():
    record = RECORD | {"worst": [RECORD["worst"][0] | SHOWN], "examples": 1}
    page = audit_page.render(record)
    assert "<details>" in page and "This part quotes the forget set" in page and "Who is Ada?" in page
    assert "quotes the forget set" not in audit_page.render(RECORD)


@pytest.mark.parametrize("examples", [0, 2])
def test_mode_of_the_file(tmp_path, examples):
    file = audit_page.write_page(RECORD | {"examples": examples}, tmp_path)
    assert file.name == "report.html" and (stat.S_IMODE(file.stat().st_mode) == 0o600) == bool(examples)


def test_any_part_may_be_missing(monkeypatch):
    assert "</html>" in audit_page.render({})
    for key in ("figures", "models", "attacks", "policy"):  # what is drawn
        page = audit_page.render({k: v for k, v in RECORD.items() if k != key} | {"membership": []})
        Page(page)
    monkeypatch.setattr(audit_page, "drawing", Undrawn)
    for key in RECORD:
        Page(audit_page.render({k: v for k, v in RECORD.items() if k != key}))
