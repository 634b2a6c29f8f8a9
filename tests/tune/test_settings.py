"""What a tuning takes of a run: not the paper's method in place of another, and no retain set that trials write unasked."""

from __future__ import annotations

import pytest
from tiny_tune import settings

from expunge.errors import InputError
from expunge.tune.settings import trial


def test_as_published_is_refused():
    with pytest.raises(InputError, match="as_published is not for a tuning"):
        settings(as_published=True)


def test_a_trial_writes_a_retain_set_only_where_that_is_asked_for():
    def written(**changes):
        chosen = settings(**changes)
        return trial(chosen, next(iter(chosen.methods)), {}, "out").self_retain

    assert written(retain=None) == 0 and written(retain=None, self_retain=7) == 7
    assert "self_retain" not in trial(settings(), next(iter(settings().methods)), {}, "out").model_fields_set
