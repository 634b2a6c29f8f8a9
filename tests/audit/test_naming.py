"""A named audit says nothing of where models and rows lie, and loads each model once."""

from __future__ import annotations

import json

import pytest

from expunge import models
from expunge.audit import certificate, measure, naming, run, settings


def test_names_in_place_of_paths(tmp_path):
    chosen = settings.make({
        "model": "/home/me/out/model", "target": "target", "forget": "/home/me/facts.csv", "model_name": "acme-7b",
        "data_name": "acme", "base": "org/base", "out": str(tmp_path / "audit"),
    })  # fmt: skip
    names = naming.names(chosen, run.control_of(chosen))
    log = {
        "command": "expunge audit --model /home/me/out/model --target target --forget /home/me/facts.csv --policy /p.toml",
        "models": {"target": {"source": "target"}, "control": {"source": "org/base"}},
        "figures": [{"model": "target"}],
        "warnings": ["/home/me/facts.csv: not used: the column 'person'", "target"],
    }
    assert naming.without_paths(log, names) == {
        "command": "expunge audit --model acme-7b --target 'acme-7b, before unlearning' --forget acme/facts.csv "
        "--policy p.toml",
        "models": {"target": {"source": "acme-7b, before unlearning"}, "control": {"source": "acme-7b, base"}},
        "figures": [{"model": "target"}],
        "warnings": ["acme/facts.csv: not used: the column 'person'", "target"],
    }
    assert naming.names(chosen.model_copy(update={"model_name": None}), None) == {}


def test_no_path_in_anything_that_is_written(home, chosen, tmp_path, monkeypatch):
    few, load, loads = measure.general_rows()[:1], models.load, []
    monkeypatch.setattr(measure, "general_rows", lambda: few)
    monkeypatch.setattr(models, "load", lambda name, **how: loads.append(name) or load(name, **how))
    given = chosen | {
        "out": str(tmp_path / "audit"), "attacks": "none", "rows": 3, "max_new_tokens": 2, "base": None,
        "retrained": str(home / "other"), "model_name": "acme", "policy": str(tmp_path / "policy.toml"),
    }  # fmt: skip
    (tmp_path / "policy.toml").write_text("kept = 0.8")
    done = run.run(settings.make(given), command=f"expunge audit --model {home / 'other'} --out {tmp_path}")
    assert sorted(loads) == sorted([given["model"], given["target"], given["retrained"]])
    assert {m["source"] for m in done.record["models"].values()} == {
        "acme",
        "acme, before unlearning",
        "acme, retrained",
    }
    assert done.record["settings"]["policy"] == "policy.toml" and done.record["command"].endswith(
        f"--out {tmp_path.name}"
    )
    certificate.certify(done.folder, tmp_path / "key.pem")
    for file in ("audit.json", "report.html", "summary.md", "junit.xml", "certificate.json"):
        text = (done.folder / file).read_text()
        assert str(home) not in text and str(tmp_path) not in text, file
    scope = json.loads((done.folder / "certificate.json").read_text())["statement"]["scope"]
    assert all(m["place"] is None and m["files"] for m in scope["models"].values())


def test_a_name_of_the_target_alone_is_refused(chosen):
    with pytest.raises(run.InputError, match="does nothing without model_name"):
        settings.make(chosen | {"target_name": "t"})
