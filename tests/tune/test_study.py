"""The trials in their SQLite file: drawn alike whether or not it is closed in between, gone on with, and pruned."""

from __future__ import annotations

import sqlite3

import pytest

from expunge.tune import study
from expunge.tune.space import Choices, Range
from expunge.tune.study import STARTUP, Study

SPACE = {"lr": Range(1e-5, 1e-3, True), "n": Range(1, 9), "kind": Choices(("a", 0.5))}


def worth(choice):
    return 1 - abs(choice["n"] - 6) / 9


def carried_out(it, n):
    for _ in range(n):
        one = it.ask()
        it.tell(one.number, "finished", worth(one.choice), {"state": "finished"})
    return {number: result["choice"] for number, result in it.results().items()}


def test_a_study_that_is_opened_again_draws_what_it_would_have_drawn(tmp_path):
    whole = carried_out(Study(tmp_path / "a.db", "npo", SPACE), STARTUP + 2)
    for n in (2, STARTUP):  # among the random trials, and where TPE has begun
        study.forget_opened()
        again = carried_out(Study(tmp_path / "b.db", "npo", SPACE), n)
    assert again == whole and len({str(c) for c in whole.values()}) > STARTUP
    assert all(isinstance(c["n"], int) and 1 <= c["n"] <= 9 and c["kind"] in ("a", 0.5) for c in whole.values())
    other = carried_out(Study(tmp_path / "a.db", "npo-2", SPACE, seed=1), 2)
    assert other[0] != whole[0]


def test_the_first_trial_is_the_method_as_it_is(tmp_path):
    it = Study(tmp_path / "a.db", "npo", SPACE)
    it.first({"lr": 1e-1, "n": 3, "kind": "b", "elsewhere": 1})
    first = it.ask()
    assert (first.number, first.choice["lr"], first.choice["n"]) == (0, 1e-3, 3) and first.choice["kind"] in ("a", 0.5)
    it.tell(0, "finished", 1.0, {})
    it.first({"lr": 1e-4})
    assert it.begun() == 1 and it.ask().number == 1


def test_a_trial_that_was_broken_off_is_handed_out_again_and_a_failed_one_is_not(tmp_path):
    it = Study(tmp_path / "a.db", "npo", SPACE)
    lost, failed, bad = it.ask(), it.ask(), it.ask()
    it.tell(failed.number, "failed", None, {"state": "failed"})
    it.tell(bad.number, "failed", 0.0, {"state": "failed"})
    study.forget_opened()
    again = Study(tmp_path / "a.db", "npo", SPACE)
    assert again.interrupted() == [lost] and again.begun() == 3
    assert sorted(again.results()) == [failed.number, bad.number]


def test_the_median_of_earlier_trials_prunes(tmp_path):
    it = Study(tmp_path / "a.db", "npo", SPACE, prune=True)
    for value in range(STARTUP):
        one = it.ask()
        assert not it.report(one.number, 4, value / 10)  # too few yet
        it.tell(one.number, "finished", value / 10, {})
    good, poor = it.ask(), it.ask()
    assert not it.report(good.number, 4, 0.25) and it.report(poor.number, 4, 0.15)  # the median is 0.2
    it.tell(poor.number, "pruned", None, {"state": "pruned", "steps": 4})
    assert it.results()[poor.number]["intermediate"] == [{"step": 4, "value": 0.15}]
    assert it.study.get_trials()[poor.number].state.name == "PRUNED"  # not a value that TPE learns from as such
    never = Study(tmp_path / "b.db", "npo", SPACE)
    for value in (3, 2, 1, 3, 2, 1, 0):
        one = never.ask()
        assert not never.report(one.number, 4, value)
        never.tell(one.number, "finished", value, {})


def test_several_processes_write_into_one_file(tmp_path):
    """A write of another connection is waited for, not refused."""
    import threading

    it = Study(tmp_path / "a.db", "npo", SPACE)
    one = it.ask()
    with sqlite3.connect(tmp_path / "a.db", check_same_thread=False) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.3, other.rollback)
        timer.start()
        it.tell(one.number, "finished", 0.5, {"state": "finished"})
        timer.join()
    assert it.results()[0]["state"] == "finished"


def test_without_optuna_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(study, "find_spec", lambda name: None)
    with pytest.raises(study.InputError, match=r"needs optuna and sqlalchemy: pip install 'expunge\[tune\]'"):
        study.check_installed()
