"""What a trial is worth: the formula by hand, figures, functions of the user's, and what cannot be scored."""

from __future__ import annotations

import math

import pytest

from expunge.errors import InputError
from expunge.tune import objective
from expunge.tune.objective import Axes

AXES = Axes("forget/probability", "retain/probability")


def figures(forget, retain):
    values = {"forget": forget, "retain": retain}
    return [{"part": part, "name": "probability", "value": v} for part, v in values.items() if v is not None]


LEVEL = figures(0.2, 0.6)


def scored(forget, retain, reference=LEVEL, axes=AXES, spec=None):
    record = objective.record_of(figures(forget, retain), figures(0.8, 0.5), reference)
    return objective.score(record, axes, objective.named(spec, axes))


def test_the_harmonic_mean_of_both_shares():
    half_way = scored(0.5, 0.4)  # F = 0.3 / 0.6, K = 0.4 / 0.5
    assert (half_way.forgotten, half_way.retained) == (pytest.approx(0.5), pytest.approx(0.8))
    assert half_way.value == pytest.approx(2 * 0.5 * 0.8 / 1.3)
    assert scored(0.2, 0.5).value == scored(0.2, 0.7).value == 1  # at the level; better than before is no better
    assert scored(0.9, 0.5).value == scored(0.2, 0.0).value == scored(0.0, 0.5).value == 0
    assert scored(0.1, 0.5).forgotten == pytest.approx(0.5)  # too far below the level


def test_without_a_reference_forgetting_goes_to_nothing_and_without_utility_it_is_all():
    assert scored(0.0, 0.5, reference=None).value == 1
    assert scored(0.2, 0.5, reference=None).forgotten == pytest.approx(0.75)
    alone = scored(0.5, None, axes=Axes("forget/probability", None))
    assert alone.value == alone.forgotten == pytest.approx(0.5) and alone.retained is None


def test_a_missing_figure_is_no_score():
    assert scored(None, 0.5).value is None and scored(0.5, None).value is None
    assert scored(math.nan, 0.5).value is None


def test_a_figure_or_a_function_of_the_user_takes_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert scored(0.5, 0.4, spec="retain/probability").value == 0.4
    (tmp_path / "mine.py").write_text(
        "def gap(record):\n"
        "    value = {w: {f['part']: f['value'] for f in of or ()} for w, of in record.items()}\n"
        "    return 1 - abs(value['figures']['forget'] - value['reference']['forget'])\n"
        "def broken(record):\n    raise ValueError('Ada lives in Oru')\n"
    )
    own = scored(0.5, 0.4, spec="mine.py:gap")
    assert own.value == pytest.approx(0.7) and own.forgotten == pytest.approx(0.5)
    with pytest.raises(InputError, match=r"the objective mine.py:broken failed: ValueError in line 5$"):
        scored(0.5, 0.4, spec="mine.py:broken")


def test_what_cannot_be_scored_is_refused():
    target, level = figures(0.8, 0.5), figures(0.9, 0.5)
    with pytest.raises(InputError, match="there is nothing to forget"):
        objective.check(None, AXES, target, level)
    with pytest.raises(InputError, match="needs a reference model"):
        objective.check(None, Axes("forget/probability", None, "higher"), target, None)
    with pytest.raises(InputError, match="nothing is there to keep"):
        objective.check(None, AXES, figures(0.8, 0.0), LEVEL)
    with pytest.raises(InputError, match=r"no figure 'forget/probabilty', did you mean 'forget/probability'"):
        objective.check("forget/probabilty", AXES, target, LEVEL)
    objective.check(None, AXES, target, LEVEL)
    objective.check("forget/probability", AXES, target, level)  # another objective needs no such model
    assert scored(0.5, 0.4, reference=level).value is None
    assert scored(0.5, 0.4, reference=level, spec="retain/probability").value == 0.4
