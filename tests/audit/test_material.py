"""Rows: which are measured, which the attacker has, and which retain rows a run did not train on."""

from __future__ import annotations

import json

import pytest

from expunge.audit import material, settings
from expunge.data.chat import question
from expunge.errors import InputError


def write(path, n: int, start: int = 0, **more: str) -> str:
    rows = [{"question": f"q {i}?", "answer": f"answer {i}."} | {k: v.format(i) for k, v in more.items()}
            for i in range(start, start + n)]  # fmt: skip
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


@pytest.fixture
def values(tmp_path, tiny_model):
    return {"model": str(tiny_model), "target": str(tiny_model), "forget": write(tmp_path / "f.jsonl", 12)}


def test_measured_and_known_rows_are_apart(values):
    found = material.read(settings.make(values | {"rows": 6}), apart=True)
    assert len(found.forget) == 6 and len(found.known) == 3
    assert not {r.answer for r in found.forget} & {r.answer for r in found.known}
    whole = material.read(settings.make(values))
    assert len(whole.forget) == 12 and whole.known == []


def test_questions_in_other_words_come_from_their_column(tmp_path, values):
    source = write(tmp_path / "p.jsonl", 4, paraphrased_question="say {}?", perturbed_answer="wrong {}.")
    found = material.read(settings.make(values | {"forget": source, "rows": 2}))
    assert [(r.question, r.wrong, r.given) for r in found.rewritten] == [
        ("say 1?", ("wrong 1.",), True),
        ("say 3?", ("wrong 3.",), True),
    ]
    assert question(found.asked_otherwise()[1]) == "say 3?" and found.wrong


def test_retain_rows_that_a_run_kept_apart_are_the_ones_measured(tmp_path, values):
    retain, out = write(tmp_path / "r.jsonl", 20, 100), tmp_path / "run"
    (out / "model").mkdir(parents=True)

    def said(**data):
        sources = {"forget": {"source": values["forget"]}, "retain": {"source": retain}, **data}
        record = {
            "schema": 1,
            "model": {"source": values["target"]},
            "output": {"path": "model"},
            "data": sources,
            "seed": 3,
        }
        (out / "run.json").write_text(json.dumps(record))
        chosen = settings.make({"model": values["model"], "target": values["target"], "forget": values["forget"],
                                "retain": retain})  # fmt: skip
        return material.read(chosen.model_copy(update={"run": str(out)}))

    from expunge.training import utility

    apart = said(keep_rows={"source": retain})
    assert apart.trained_on is False and not apart.warnings
    assert [r.answer for r in apart.retain] == [f"answer {100 + i}." for i in utility.split(20, 3)[1]]
    trained = said()
    assert trained.trained_on is True


def test_a_row_that_is_in_both_sets_is_refused(values):
    with pytest.raises(InputError, match="retain set"):
        material.read(settings.make(values | {"retain": values["forget"]}))


def test_one_row_is_too_few(tmp_path, values):
    with pytest.raises(InputError, match="at least 2"):
        material.read(settings.make(values | {"forget": write(tmp_path / "one.jsonl", 1)}))
