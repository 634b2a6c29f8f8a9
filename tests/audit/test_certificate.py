"""A certificate holds, and does not after one byte changed in anything that it covers."""

from __future__ import annotations

import base64
import datetime
import json
import shutil
import stat

import pytest

from expunge.audit import certificate
from expunge.errors import InputError

pytest.importorskip("cryptography")


@pytest.fixture
def folder(tmp_path, audited):
    """A copy of the audit's folder."""
    shutil.copytree(audited.folder, tmp_path / "audit")
    return tmp_path / "audit"


@pytest.fixture
def certified(folder, tmp_path):
    return certificate.certify(folder, tmp_path / "key.pem")[0]


def test_it_holds(certified, tmp_path):
    found = certificate.verify(certified.parent, key_file=tmp_path / "key.pem")
    assert found.good and found.problems == []
    said = {line.what.split(" /")[0]: line.status for line in found.lines}
    names = {
        "audit.json",
        "report.html",
        "summary.md",
        "junit.xml",
        "evidence/target/scores.parquet",
        "the unlearned model",
    }
    assert names | {"the target model", "the control model", "the forget set", "the retain set"} <= set(said)
    assert set(said.values()) == {"same"}
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600


def test_what_it_says(certified):
    said = certificate.verify(certified).statement
    assert said["request"] == "REQ-1" and said["verdict"] in ("cannot be told", "forgotten", "partly", "not forgotten")
    assert said["thresholds"]["remaining"] == 0.2 and said["method"]["attacks"] == ["toy"]
    assert "does not certify that no trace is left" in said["statement"]
    text = certified.read_text().lower()
    assert "perfect" not in text and "guarantee" not in text


def test_one_byte_in_every_file_beside_it(certified):
    files = [p for p in certified.parent.rglob("*") if p.is_file() and p != certified and p.name != ".expunge.lock"]
    assert len(files) > 9
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        found = certificate.verify(certified)
        assert [p for p in found.problems if file.name in p], file
        file.write_bytes(content)
        file.rename(file.with_suffix(".away"))
        assert any("missing" in p for p in certificate.verify(certified).problems), file
        file.with_suffix(".away").rename(file)
    assert certificate.verify(certified).good


def test_one_byte_in_model_and_rows(certified, home, tmp_path):
    """Models and rows are where they were; one in a folder of its own, for others read them too."""
    content = json.loads(certified.read_text())
    for name in ("other/model.safetensors", "target/config.json", "forget.jsonl"):
        place = home / name
        kept = place.read_bytes()
        try:
            place.write_bytes(kept + b"\n")
            assert any("has changed" in p for p in certificate.verify(certified).problems), name
        finally:
            place.write_bytes(kept)
    assert content["statement"]["scope"]["models"]["control"]["kind"] == "base"


def test_one_byte_in_the_statement_and_another_key(certified, tmp_path):
    content = json.loads(certified.read_text())
    content["statement"]["verdict"] = "forgotten!"
    certified.write_text(json.dumps(content))
    assert any("signature" in p for p in certificate.verify(certified).problems)
    other, _ = certificate.private_key(tmp_path / "other.pem")
    content["signature"] = base64.b64encode(other.sign(certificate.canonical(content["statement"]))).decode()
    content["public_key"] = base64.b64encode(certificate._raw(other.public_key())).decode()
    certified.write_text(json.dumps(content))
    found = certificate.verify(certified, key_file=tmp_path / "key.pem")
    assert any("not the one that its statement names" in p for p in found.problems)
    assert any("not signed with the key" in p for p in found.problems)


def test_it_ends(certified):
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=366)
    assert any("valid until" in p for p in certificate.verify(certified, now=later).problems)
    earlier = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    assert any("valid from" in p for p in certificate.verify(certified, now=earlier).problems)


def test_an_audit_that_was_changed_is_not_certified(folder, tmp_path):
    evidence = folder / "evidence" / "unlearned" / "answers.parquet"
    evidence.write_bytes(evidence.read_bytes() + b"x")
    with pytest.raises(InputError, match="audit again"):
        certificate.certify(folder, tmp_path / "key.pem")


@pytest.mark.parametrize("content", ["{}", "no json", '{"kind": "audit certificate", "schema": 9}'])
def test_what_is_no_certificate(tmp_path, content):
    (tmp_path / "certificate.json").write_text(content)
    with pytest.raises(InputError):
        certificate.verify(tmp_path)


def test_a_key_of_another_kind(folder, tmp_path):
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(InputError, match="no private key"):
        certificate.certify(folder, tmp_path / "key.pem")
