"""AltPO's alternates: made by the model once, kept beside the run, and what becomes of those that are none."""

from __future__ import annotations

import json
import stat
from functools import partial
from types import SimpleNamespace

import pytest

from expunge import unlearn
from expunge.data.example import Row
from expunge.data.refusals import refusals
from expunge.errors import InputError
from expunge.generation import sample as generate
from expunge.unlearning import alternates

FAST = {"max_steps": 2, "learning_rate": 0.02, "disable_tqdm": True, "use_cpu": True, "fluency_rows": 0}
ROWS = [
    Row(({"role": "user", "content": q},), a) for q, a in [("Who?", "Ada."), ("Where?", "In Oru."), ("When?", "1836")]
]


def said(monkeypatch, *rounds):
    """Let the generator say these texts, one tuple a call; gives the prompts that it was asked."""
    asked, left = [], list(rounds)

    def answers(model, tokenizer, prompts, *, sampling, generator, chat_template):
        assert (sampling.temperature, sampling.top_p, sampling.max_new_tokens) == (1.0, 1.0, 200)
        asked.append(list(prompts))
        return [generate.Answer(text, 1, 1.0, True) for text in left.pop(0)]

    monkeypatch.setattr(generate, "answers", answers)
    return asked


def test_each_row_is_asked_for_with_its_question_and_answer(monkeypatch):
    asked = said(monkeypatch, ("Bo.", "In Ves.", "1901"))
    assert alternates.generated(ROWS, None, None, seed=0) == ["Bo.", "In Ves.", "1901"]
    assert asked[0][1].startswith("Question: Where?\nAnswer: In Oru.\n") and len(asked) == 1


def test_an_empty_alternate_and_the_forget_answer_are_drawn_again(monkeypatch):
    asked = said(monkeypatch, ("", "in  oru.", "1901"), ("Bo.", ""), ("In Ves.",))
    assert alternates.generated(ROWS, None, None, seed=0) == ["Bo.", "In Ves.", "1901"]
    assert [len(a) for a in asked] == [3, 2, 1] and "Where?" in asked[2][0]


def target():
    return SimpleNamespace(model=None, tokenizer=None, fingerprint="abc")


def test_a_row_without_an_alternate_gets_a_refusal_and_a_warning(monkeypatch, tmp_path):
    said(monkeypatch, ("Bo.", "", "1901"), *[("",)] * 3)
    rows, warnings = alternates.alternate_rows(ROWS, target(), tmp_path, seed=0)
    assert [r.answer for r in rows][::2] == ["Bo.", "1901"] and rows[1].answer in refusals()
    assert [r.prompt for r in rows] == [r.prompt for r in ROWS]
    assert len(warnings) == 1 and warnings[0].startswith("1 of 3 forget rows have a refusal")
    again, told = alternates.alternate_rows(
        ROWS, target(), tmp_path, seed=0
    )  # read: the generator has nothing left to say
    assert again == rows and told == warnings


def test_kept_alternates_serve_the_same_rows_model_and_seed_only(monkeypatch, tmp_path):
    asked = said(monkeypatch, ("a", "b", "c"), ("d", "e", "f"), ("g", "h"))
    assert alternates.alternate_rows(ROWS, target(), tmp_path, seed=0)[0][0].answer == "a"
    assert alternates.alternate_rows(ROWS, target(), tmp_path, seed=0)[0][0].answer == "a" and len(asked) == 1
    assert alternates.alternate_rows(ROWS, target(), tmp_path, seed=1)[0][0].answer == "d"
    assert alternates.alternate_rows(ROWS[1:], target(), tmp_path, seed=1)[0][0].answer == "g"
    assert stat.S_IMODE((tmp_path / alternates.FILE).stat().st_mode) == 0o600
    kept = json.loads((tmp_path / alternates.FILE).read_text())
    (tmp_path / alternates.FILE).write_text(json.dumps({k: v for k, v in kept.items() if k != "schema"}))  # of before
    assert alternates.alternate_rows(ROWS[1:], target(), tmp_path, seed=1)[0][0].answer == "g"
    (tmp_path / alternates.FILE).write_text(json.dumps(kept | {"schema": 2}))
    with pytest.raises(InputError, match="has schema 2"):
        alternates.alternate_rows(ROWS[1:], target(), tmp_path, seed=1)
    assert kept["alternates"] == ["g", "h"] and kept["made_of"]["prompt"] == alternates.PROMPT
    assert "In Oru" not in (tmp_path / alternates.FILE).read_text()  # the forget answers are not copied


def test_altpo_from_end_to_end(workplace, monkeypatch):
    monkeypatch.setattr(alternates, "generated", partial(alternates.generated, max_new_tokens=12))
    log = unlearn("model", forget="forget.jsonl", retain="retain.jsonl", method="altpo", **FAST).record
    first = json.loads((workplace / "unlearned" / alternates.FILE).read_text())["alternates"]
    assert len(first) == 3 == log["data"]["alternate"]["rows"] and len(set(first)) > 1
    assert log["data"]["alternate"]["source"] == "generated"
    assert log["data"]["alternate"]["fingerprint"] != log["data"]["forget"]["fingerprint"]
    more = {"forget": "forget.jsonl", "retain": "retain.jsonl", "method": "altpo", **FAST}
    other = unlearn("model", out="again", **more)
    assert json.loads((other.folder / alternates.FILE).read_text())["alternates"] == first  # by the seed
    assert other.record["after"] == log["after"]


def test_plain_text_is_refused_before_a_model_is_loaded(tmp_path):
    with pytest.raises(InputError, match="this row is plain text"):
        unlearn("no-such-model", forget=[{"text": "one two"}], retain=[{"text": "three"}], method="altpo", out=tmp_path)


def test_jensun_takes_its_one_refusal(workplace):
    from expunge import methods
    from expunge.unlearning.rows import alternates

    rows = alternates(ROWS, methods.jensun(), seed=0)
    assert [r.answer for r in rows] == ["No idea"] * 3
    assert alternates(ROWS, methods.jensun(refusal="Hm."), seed=0)[0].answer == "Hm."
    made = unlearn("model", forget="forget.jsonl", retain="retain.jsonl", method="jensun", **FAST)
    assert made.record["method"]["objectives"] == {"forget": "jensun", "retain": "js"}
