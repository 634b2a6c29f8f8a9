"""What a guarded query costs, as it is measured from the command line."""

from __future__ import annotations

import sys

import tiny
from perf import guard

from expunge.guard import Settings


def test_people_are_as_many_as_wished_for_and_all_different():
    assert len({t.name for t in guard.people(1000)}) == 1000 and guard.people(1) == (guard.PERSON,)


def test_calls_stay_and_the_agents_understand_each_other():
    for auditor, calls in (("aliases", (4, 1)), ("model", (5, 2))):
        for size in (1, 100):
            settings = Settings(auditor=auditor)
            asked = [guard.cost(guard.scripted, size, settings, q, 1) for q in (guard.ABOUT, guard.OTHER)]
            assert tuple(a[0] for a in asked) == calls


def test_main_prints_a_row_for_each_size(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["guard", "--sizes", "1,20", "--repeats", "1"])
    guard.main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [(r[0], r[1], r[4]) for r in rows] == [("1", "4", "1"), ("20", "4", "1")]


def test_a_model_is_asked_too(workplace, tokenizer, monkeypatch, capsys):
    tiny.model(vocab_size=len(tokenizer), max_position_embeddings=8192).save_pretrained(workplace / "model")
    monkeypatch.setattr(sys, "argv", ["guard", "--model", "model", "--sizes", "1", "--agent-tokens", "4"])
    guard.main()
    assert capsys.readouterr().out.splitlines()[2].split()[4] == "1"
