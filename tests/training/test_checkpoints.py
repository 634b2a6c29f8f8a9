"""Checkpoints: where one is, and what it must hold."""

from __future__ import annotations

import json

import pytest

from expunge.combine import Bilevel, PrimalDual, WeightedSum
from expunge.errors import InputError
from expunge.training import checkpoints


@pytest.fixture
def place(tmp_path):
    """A checkpoint of a primal-dual run."""
    for name in ("optimizer.pt", "trainer_state.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "combiner.json").write_text(json.dumps(PrimalDual(multiplier=7.0).state_dict()))
    return tmp_path


@pytest.mark.parametrize("nothing", [None, False, "", "false", "None"])
def test_nothing_is_named(tmp_path, nothing):
    assert checkpoints.located(nothing, tmp_path) is None


def test_true_is_the_newest_and_a_path_is_itself(tmp_path):
    for n in (2, 10, 9):
        (tmp_path / f"checkpoint-{n}").mkdir()
    for true in (True, "true", "True"):
        assert checkpoints.located(true, tmp_path) == tmp_path / "checkpoint-10"
    assert checkpoints.located("some/where", tmp_path).parts == ("some", "where")
    for empty in (tmp_path / "checkpoint-2", tmp_path / "none", None):
        with pytest.raises(InputError, match="there is no checkpoint in"):
            checkpoints.located(True, empty)


def test_a_combiner_gets_the_state_of_the_checkpoint(place):
    combiner = PrimalDual()
    checkpoints.restore(combiner, place)
    assert combiner.state_dict() == PrimalDual(multiplier=7.0).state_dict()


def test_what_a_checkpoint_lacks_is_one_sentence(place):
    for combiner in (WeightedSum(), Bilevel()):  # nothing of theirs moves
        checkpoints.check(place, combiner)
    (place / "combiner.json").write_text('{"other": 1}')
    with pytest.raises(InputError, match="the state of another combiner, for it has no 'budget'"):
        checkpoints.check(place, PrimalDual())
    (place / "combiner.json").write_text("{")
    with pytest.raises(InputError, match=r"combiner\.json, line 1: not JSON"):
        checkpoints.check(place, PrimalDual())
    (place / "combiner.json").unlink()
    with pytest.raises(InputError, match=r"holds no combiner\.json, the state of PrimalDual"):
        checkpoints.check(place, PrimalDual())
    checkpoints.check(place, WeightedSum())
    (place / "trainer_state.json").write_text("")
    with pytest.raises(InputError, match=r"trainer_state\.json, line 1: not JSON"):
        checkpoints.check(place, WeightedSum())
    (place / "optimizer.pt").unlink()
    (place / "trainer_state.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds no optimizer\.pt, the optimizer's state \(save_only_model"):
        checkpoints.check(place, WeightedSum())
