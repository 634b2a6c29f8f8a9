"""Thresholds from a file stand over the built-in ones; what is no policy is refused in a sentence."""

from __future__ import annotations

import pytest

from expunge.audit import policy
from expunge.errors import InputError


def test_the_built_in_one_has_every_threshold():
    found = policy.read()
    assert set(policy.built_in()) == set(policy.Policy.model_fields)
    assert found.remaining < found.remaining_failed and found.damaged < found.kept


def test_a_file_stands_over_it(tmp_path):
    (tmp_path / "p.toml").write_text('remaining = 0.1\nrequire = ["remaining", "back"]\n')
    found = policy.read(str(tmp_path / "p.toml"))
    assert found.remaining == 0.1 and found.require == ("remaining", "back") and found.kept == policy.read().kept


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("remaning = 0.1", "remaining"),
        ("remaining = 2.0", "remaining"),
        ("remaining = 0.6", "must not be above"),
        ('require = ["all"]', "require"),
        ("remaining = ", "TOML"),
    ],
)
def test_what_is_none_is_refused(tmp_path, text, said):
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(InputError, match=said):
        policy.read(str(tmp_path / "p.toml"))


def test_a_file_that_is_not_there():
    with pytest.raises(InputError, match="no policy"):
        policy.read("nowhere.toml")
