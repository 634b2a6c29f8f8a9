"""Settings: what a finished run says need not be said again; what does not fit is one sentence."""

from __future__ import annotations

import json

import pytest

from expunge.audit import settings
from expunge.errors import InputError


@pytest.fixture
def run_of(tmp_path, monkeypatch):
    """A folder that a run wrote, as far as its record says."""
    monkeypatch.chdir(tmp_path)
    for name in ("forget.csv", "retain.csv"):
        (tmp_path / name).write_text("question,answer\na,b\n")
    folder = tmp_path / "unlearned"
    (folder / "model").mkdir(parents=True)
    (tmp_path / "target").mkdir()
    said = {
        "schema": 1,
        "model": {"source": "target"},
        "output": {"path": "model"},
        "data": {
            "forget": {"source": "forget.csv"},
            "retain": {"source": "retain.csv"},
            "holdout": {"source": "gone.csv"},
        },
        "reading": {"columns": {"question": "a"}, "max_length": 99, "template": None},
    }
    (folder / "run.json").write_text(json.dumps(said))
    return folder


@pytest.mark.parametrize("model", ["unlearned", "unlearned/model"])
def test_a_run_names_what_is_left_out(run_of, model):
    found = settings.make({"model": model})
    assert found.model == "unlearned/model"
    assert (found.target, found.forget, found.retain, found.holdout) == ("target", "forget.csv", "retain.csv", None)
    assert found.columns == {"question": "a"} and found.max_length == 99 and not found.chat_template
    assert found.run == "unlearned"


def test_what_is_given_stands_over_the_run(run_of):
    found = settings.make({"model": "unlearned", "target": "other", "max_length": 7})
    assert (found.target, found.max_length) == ("other", 7)


def test_the_model_of_the_level_is_the_control(run_of):
    said = json.loads((run_of / "run.json").read_text())

    def base(**given):
        return settings.make({"model": "unlearned", **given}).base

    for level, found in (("target", "target"), ("owner/name", "owner/name"), ("./gone", None), (None, None)):
        (run_of / "run.json").write_text(json.dumps(said | {"level": {"source": "model", "model": level}}))
        assert base() == found
        assert base(base="mine") == "mine" and base(retrained="target") is None


def test_a_folder_beside_a_run_is_not_of_it(run_of):
    (run_of / "checkpoints").mkdir()
    assert settings.run_folder("unlearned/checkpoints") is None
    assert settings.run_folder("nowhere") is None and settings.run_folder("") is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model": "m"}, "target is missing"),
        ({"model": "m", "target": "t"}, "forget is missing"),
        ({"model": "m", "target": "t", "forget": "f", "rows": 1}, "rows"),
        ({"model": "m", "target": "t", "forget": "f", "dtype": "float8"}, "dtype"),
        ({"model": "m", "target": "t", "forget": "f", "attacks": " , "}, "attacks is empty"),
        ({"model": "m", "target": "t", "forget": "f", "fail_unless": "never"}, "fail_unless"),
    ],
)
def test_what_does_not_fit(values, said):
    with pytest.raises(InputError, match=said):
        settings.make(values)


def test_pairs():
    assert settings.override({"rows": 3}, ["rows=20"])["rows"] == "20"
    with pytest.raises(InputError, match="did you mean 'rows'"):
        settings.override({}, ["row=2"])
    with pytest.raises(InputError, match="no setting 'run'"):
        settings.override({}, ["run=x"])
