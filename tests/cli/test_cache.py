"""``expunge cache`` as a person meets it."""

from __future__ import annotations

import json
import os
import time

import pytest
from typer.testing import CliRunner

from expunge.cli import app


def call(*args):
    return CliRunner().invoke(app, ["cache", *args])


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path))
    for name, days in (("a", 1), ("b", 40)):
        (tmp_path / "scores" / name).mkdir(parents=True)
        (tmp_path / "scores" / name / "answers.parquet").write_bytes(b"x" * 1000)
        then = time.time() - days * 86400
        os.utime(tmp_path / "scores" / name, (then, then))
    return tmp_path


def test_list_and_clear(place):
    done = call()
    assert done.exit_code == 0 and "2 entries, 2.0 KB" in done.stdout and str(place) in done.stdout
    value = json.loads(call("--json").stdout)
    assert [round(e["days"]) for e in value["entries"]] == [1, 40] and value["removed"] == 0
    assert "1 entries would go" in call("--clear", "--older-than", "30d", "--dry-run").stdout
    assert "1 entries are gone" in call("--clear", "--older-than", "30d").stdout
    assert (place / "scores" / "a").exists() and not (place / "scores" / "b").exists()
    assert json.loads(call("--clear", "--keep", "5GB", "--json").stdout)["removed"] == 0
    assert json.loads(call("--clear", "--json").stdout)["removed_bytes"] == 1000
    assert "0 entries, 0 B" in call().stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--older-than", "30d"], "add --clear"),
        (["--clear", "--older-than", "soon"], "'soon' is no age"),
        (["--clear", "--keep", "much"], "'much' is no size"),
    ],
)
def test_bad_input_is_one_sentence(place, args, said):
    done = call(*args)
    assert done.exit_code == 2 and said in done.stderr and done.stderr.strip().count("\n") == 0
    assert len(list((place / "scores").iterdir())) == 2
