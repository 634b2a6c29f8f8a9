"""The commands on a finished audit as they are typed: exit codes, and what they print."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from expunge.cli import app


def call(*words: str):
    return CliRunner().invoke(app, list(words))


@pytest.fixture
def few(monkeypatch):
    from expunge.audit import measure

    rows = measure.general_rows()[:2]
    monkeypatch.setattr(measure, "general_rows", lambda: rows)


def test_an_audit_as_it_is_typed(home, chosen, few, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = [f"--{k}={v}" for k, v in chosen.items() if k not in ("attacks", "max_new_tokens", "out")]
    done = call(
        "audit", *words, "--attacks", "none", "--max-new-tokens=2", "--no-rewrite", "--out=a", "--fail-unless=partly"
    )
    assert done.exit_code == 1 and "Verdict: cannot be told" in done.stdout and "Is it gone?" in done.stdout
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "audit.json", "evidence", "junit.xml", "report.html", "summary.md",
    ]  # fmt: skip
    plan = call("audit", *words, "--attacks", "none", "--out=b", "--dry-run")
    assert plan.exit_code == 0 and "Nothing was written." in plan.stdout and not (tmp_path / "b").exists()
    assert call("audit", *words, "--attacks", "nonsense", "--out=b").exit_code == 2


def test_certify_and_verify(audited, tmp_path):
    pytest.importorskip("cryptography")
    shutil.copytree(audited.folder, tmp_path / "a")
    folder, key = str(tmp_path / "a"), str(tmp_path / "k.pem")
    made = call("certify", folder, "--key", key)
    assert made.exit_code == 0 and "made the key" in made.stdout and "valid until" in made.stdout
    good = call("verify", folder, "--key", key)
    assert good.exit_code == 0 and good.stdout.rstrip().endswith("valid")
    (tmp_path / "a" / "summary.md").write_text("other")
    bad = call("verify", folder, "--json")
    said = json.loads(bad.stdout)
    assert bad.exit_code == 1 and said["valid"] is False and said["problems"] == ["summary.md has changed"]
