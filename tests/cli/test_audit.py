"""The commands around an audit as they are typed: exit codes, JSON, and a run that ends with one."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from expunge.cli import app
from expunge.errors import InputError

RUN = ["run", "--model", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl", "--method", "grad_diff",
       "--out", "o", "max_steps=1", "use_cpu=true", "batch_size=2", "--fluency-rows=0", "--save-every=never"]  # fmt: skip


def call(*words: str):
    return CliRunner().invoke(app, list(words))


@pytest.fixture
def few(monkeypatch):
    from expunge.audit import measure

    rows = measure.general_rows()[:2]
    monkeypatch.setattr(measure, "general_rows", lambda: rows)


def test_a_run_ends_with_an_audit_that_can_fail_it(workplace, audits, few):
    """A model of random weights knows nothing, so nothing can be told, which is not forgotten."""
    done = call(*RUN, "--json", "--fail-unless", "forgotten")
    said = json.loads(done.stdout)
    assert done.exit_code == 1 and said["audit"]["verdict"] == "cannot be told"
    assert "the verdict is cannot be told" in done.stderr
    record = json.loads((workplace / "o" / "audit" / "audit.json").read_text())
    assert record["run"]["method"] == "grad_diff" and record["data"]["forget"]["measured"] == 3
    assert any("the run trained on the retain rows" in line for line in record["verdict"]["not_concluded"])
    compared = call("report", "o", "o/audit", "--out", "side.html", "--json")
    rows = json.loads(compared.stdout)["rows"]
    assert [r["Verdict"] for r in rows] == ["cannot be told"] * 2 and [r["Method"] for r in rows] == ["grad_diff"] * 2
    assert "cannot be told" in (workplace / "side.html").read_text()
    again = call("report", "o/audit")
    assert again.exit_code == 0 and (workplace / "o" / "audit" / "report.html").exists()


def test_what_goes_wrong_with_the_audit_is_a_warning_and_the_run_is_whole(workplace, audits, monkeypatch):
    from expunge.audit import quick

    def fails(*_, **__):
        raise RuntimeError("no memory left.\nmore")

    monkeypatch.setattr(quick, "audit", fails)
    done = call(*RUN)
    assert done.exit_code == 0 and (workplace / "o" / "run.json").exists()
    assert "the run is whole, its audit is not: no memory left; try expunge audit --model o" in done.stderr


def test_without_the_packages_of_an_audit_a_run_ends_as_it_did(audits, monkeypatch, tmp_path):
    import importlib.util

    from expunge.cli import auditing

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "scipy" else find(name))
    assert auditing.after(None, tmp_path) is None
    with pytest.raises(InputError, match=r"expunge\[audit\]"):
        auditing.check(True, "forgotten", None)


def test_what_is_wanted_of_no_audit_is_refused_before_the_run(workplace):
    for words, said in (
        (("--no-audit", "--fail-unless", "forgotten"), "--no-audit was given"),
        (("--fail-unless", "gone"), "forgotten or partly, not 'gone'"),
    ):
        done = call(*RUN, *words)
        assert done.exit_code == 2 and said in done.stderr and not (workplace / "o").exists()


@pytest.mark.parametrize("words", [("certify", "nowhere"), ("verify", "nowhere"), ("report", "nowhere"), ("audit",)])
def test_what_is_not_there(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call(*words)
    assert done.exit_code == 2 and done.stderr.strip()
