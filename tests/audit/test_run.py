"""One small audit from rows to record, and what is refused before a model is loaded."""

from __future__ import annotations

import json
import stat

import numpy as np
import pytest

from expunge import models, record
from expunge.audit import describe, measure, run, settings
from expunge.errors import InputError
from expunge.evaluation import table
from expunge.record_types import AuditRecord


def test_the_record_is_whole(audited):
    log = json.loads((audited.folder / "audit.json").read_text())
    made = record.complete(AuditRecord, log)
    assert set(log) == {k for k, v in made.items()} and log == describe.read(audited.folder)
    assert log["kind"] == "audit" and log["schema"] == 1 and log["request"] == "REQ-1"
    assert set(log["models"]) == {"target", "unlearned", "control"} and log["models"]["control"]["kind"] == "base"
    assert (
        log["data"]["forget"]["rows"] == 7
        and log["data"]["forget"]["measured"] == 6
        and log["data"]["forget"]["known"] == 1
    )
    assert all(m["files"].startswith("sha256:") for m in log["models"].values())


def test_evidence_is_the_owners_alone_and_what_the_record_names(audited):
    assert set(audited.record["evidence"]) == {f"evidence/{r}/{f}.parquet" for r in ("target", "unlearned", "control")
                                               for f in ("scores", "answers")}  # fmt: skip
    for name, digest in audited.record["evidence"].items():
        file = audited.folder / name
        assert describe.sha256_file(file) == digest and stat.S_IMODE(file.stat().st_mode) == 0o600


def test_no_text_of_the_rows_without_examples(audited):
    for name in ("audit.json", "report.html", "summary.md", "junit.xml"):
        text = (audited.folder / name).read_text()
        assert "lives in" not in text and "Where does" not in text, name


def test_figures_are_those_of_the_evidence(audited):
    """By a plain loop over what was written down."""
    for role in ("target", "unlearned"):
        found = table.read(audited.folder / "evidence" / role)
        rows = sorted((s for s in found.scores if (s.part, s.variant) == ("forget", "answer")), key=lambda s: s.index)
        mean = np.mean([np.exp(np.mean(s.logp, dtype=np.float64)) for s in rows])
        said = next(
            f
            for f in audited.record["figures"]
            if (f["part"], f["name"], f["model"]) == ("forget", "probability", role)
        )
        assert said["value"] == pytest.approx(mean) and said["n"] == 6
        wrong = sorted((s for s in found.scores if s.variant == "wrong0"), key=lambda s: s.index)
        pairs = [
            (np.mean(a.logp, dtype=np.float64), np.mean(b.logp, dtype=np.float64))
            for a, b in zip(rows, wrong, strict=True)
        ]
        preference = np.mean([np.exp(a) / (np.exp(a) + np.exp(b)) for a, b in pairs])
        said = next(
            f for f in audited.record["figures"] if (f["part"], f["name"], f["model"]) == ("forget", "preference", role)
        )
        assert said["value"] == pytest.approx(preference)


def test_models_that_know_nothing_cannot_be_judged(audited):
    assert audited.word == "cannot be told" and "does not know the forget rows" in audited.record["verdict"]["sentence"]


def test_attacks_run_on_both_models_and_one_that_fails_is_named(audited):
    said = {a["name"]: a for a in audited.record["attacks"]}
    toy = said["toy"]
    assert [p["strength"] for p in toy["curve"]] == [1, 2] and toy["excess"]["value"] == pytest.approx(0, abs=1e-6)
    start = next(
        f
        for f in audited.record["figures"]
        if (f["part"], f["name"], f["model"]) == ("forget", "probability", "unlearned")
    )
    assert toy["curve"][1]["unlearned"] == pytest.approx(start["value"] + 0.2)
    assert said["broken"]["problem"] == "this model allows no such attack" and said["broken"]["recovery"] is None
    assert "a retrained model" in said["hungry"]["problem"]
    assert sum("was not carried out" in w for w in audited.record["warnings"]) == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attacks": "nonsense"}, "no attack 'nonsense'"),
        ({"policy": "nowhere.toml"}, "no policy"),
        ({"target": "./nowhere"}, "does not exist"),
        ({"device": "cuda:99"}, "cuda"),
        ({"forget": "nowhere.jsonl"}, "nowhere.jsonl"),
    ],
)
def test_refused_before_a_model_is_loaded(chosen, changes, said, monkeypatch):
    monkeypatch.setattr(models, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(InputError, match=said):
        run.run(settings.make(chosen | {"out": "elsewhere", "attacks": "none"} | changes))


def test_an_earlier_audit_is_not_replaced(chosen, audited):
    with pytest.raises(InputError, match="an earlier audit"):
        run.run(settings.make(chosen | {"attacks": "none"}))


def test_an_audit_does_not_go_where_a_run_is(chosen, tmp_path):
    (tmp_path / "run.json").write_text('{"schema": 1}')
    with pytest.raises(InputError, match="another command"):
        run.run(settings.make(chosen | {"out": str(tmp_path), "attacks": "none"}))


def test_the_plan(chosen):
    found = run.planned(settings.make(chosen | {"attacks": "none", "out": "elsewhere"}))
    assert found["data"] == {"forget": 7, "known": 0, "retain": 4, "holdout": 0} and "(base)" in found["control"]


def test_recall_of_scripts_without_latin_letters():
    assert measure.recall(["東京に住む", "Ada lives in Oru."], ["京都に住む", "in Oru"]).round(2).tolist() == [0.8, 0.5]


def test_of_others_is_what_shifted_answers_recall():
    answers = tuple(table.Generated("forget", i, "answer", f"common word{i}", f"common word{i}") for i in range(4))
    assert measure.of_others(table.Collected((), answers), 4) == pytest.approx([0.5] * 4)


def test_several_audits_measure_target_and_control_once(chosen, home, attacks, tmp_path, monkeypatch):
    """The second audit measures its unlearned model alone, and says what an audit of its own says."""
    few, asked = measure.general_rows()[:2], []
    monkeypatch.setattr(measure, "general_rows", lambda: few)
    own = measure.measured
    monkeypatch.setattr(measure, "measured", lambda *a: asked.append(a[-1]) or own(*a))
    common = chosen | {"attacks": "toy"}

    def audit(model, out, measured, **changes):
        asked.clear()
        values = common | {"model": str(home / model), "out": str(tmp_path / out)} | changes
        done = run.run(settings.make(values), known_attacks=attacks, measured=measured)
        figures = {k: done.record[k] for k in ("verdict", "figures", "attacks", "models")}
        return figures, [name.split()[1] for name in asked]

    measured: dict[str, object] = {}
    assert audit("other", "first", measured)[1] == ["unlearned", "control", "target"]
    shared, roles = audit("target", "second", measured)
    assert roles == ["unlearned"]
    alone, roles = audit("target", "third", {})
    assert shared == alone and roles == ["unlearned", "control", "target"]
    assert audit("target", "fourth", measured, seed=1)[1] == ["unlearned", "control", "target"]
