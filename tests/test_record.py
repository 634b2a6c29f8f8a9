"""The record: written in one piece as strict JSON, refused clearly when unreadable."""

from __future__ import annotations

import json
import math
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from expunge import record
from expunge.errors import InputError


def test_write_then_read_gives_the_same_record_with_its_schema(tmp_path: Path):
    file = record.write({"title": "Zoë", "steps": [{"step": 1, "cosine": -0.5}], "seed": 0}, tmp_path)
    assert file == tmp_path / "run.json"
    expected = {"schema": 1, "title": "Zoë", "steps": [{"step": 1, "cosine": -0.5}], "seed": 0}
    assert record.read(tmp_path) == record.read(file) == expected


def test_a_record_that_quotes_answers_is_for_its_owner_alone(tmp_path):
    plain = record.write({"examples": []}, tmp_path / "run.json")
    assert stat.S_IMODE(plain.stat().st_mode) & 0o077 == 0o666 & ~umask() & 0o077
    (tmp_path / "alternates.json").touch()
    (tmp_path / "steps").mkdir()
    file = record.write({"examples": [{"set": "forget"}]}, tmp_path / "run.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert record.read(tmp_path)["private_files"] == ["run.json", "report.html", "alternates.json", "steps/"]


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_json_cannot_say_becomes_null_or_a_plain_value(tmp_path: Path):
    values = {"nan": math.nan, "steps": ({"up": math.inf, "down": -math.inf},), "path": Path("a"), 3: True}
    values |= {"scalar": np.float32(0.5), "scalar_nan": np.float64("nan"), "count": np.int64(7)}
    text = record.write(values, tmp_path / "other.json").read_text(encoding="utf-8")
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text) == {
        "nan": None, "steps": [{"up": None, "down": None}], "path": "a", "3": True,
        "scalar": 0.5, "scalar_nan": None, "count": 7, "schema": 1,
    }  # fmt: skip


def test_a_lone_surrogate_survives(tmp_path: Path):
    record.write({"answer": "a\udc80b"}, tmp_path)
    assert record.read(tmp_path)["answer"] == "a\udc80b"


def test_a_failing_serialisation_leaves_the_earlier_record_and_no_temporary_file(tmp_path: Path):
    record.write({"title": "first"}, tmp_path)
    with pytest.raises(TypeError):
        record.write({"title": "second", "model": object()}, tmp_path)
    assert record.read(tmp_path)["title"] == "first"
    assert os.listdir(tmp_path) == ["run.json"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_earlier_record_and_no_temporary_file(tmp_path: Path, monkeypatch, call: str):
    record.write({"title": "first"}, tmp_path)

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="no space"):
        record.write({"title": "second"}, tmp_path)
    monkeypatch.undo()
    assert record.read(tmp_path)["title"] == "first"
    assert os.listdir(tmp_path) == ["run.json"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"schema": 1,\n "seed": }', "line 2"),
        ('{"schema": 99}', "schema 99"),
        ('{"schema": true}', "schema True"),
        ("{}", "names no schema"),
        ("[1]", "names no schema"),
        ("", "line 1"),
    ],
)
def test_a_bad_record_is_refused_with_the_place(tmp_path: Path, text: str, words: str):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=words) as error:
        record.read(tmp_path)
    assert "run.json" in str(error.value)


def test_a_missing_record_and_bytes_that_are_no_text_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no record"):
        record.read(tmp_path / "nowhere")
    (tmp_path / "run.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        record.read(tmp_path)


def test_nan_in_a_hand_edited_record_reads_as_null(tmp_path: Path):
    (tmp_path / "run.json").write_text('{"schema": 1, "seconds": NaN}')
    assert record.read(tmp_path)["seconds"] is None


def test_a_record_that_names_no_schema_is_of_the_first_where_such_were_written(tmp_path: Path):
    assert record.check_schema({"a": 1}, tmp_path, unnamed=1) == {"a": 1}
    for wrong in (2, "1", True, None):
        with pytest.raises(InputError, match="schema"):
            record.check_schema({"schema": wrong}, tmp_path, unnamed=1)


def test_versions_name_python_and_only_what_is_installed():
    versions = record.versions()
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert versions["numpy"] == np.__version__
    assert set(versions) <= {"python", *record.PACKAGES}


def test_peak_memory_is_in_bytes():
    peak = record.peak_memory_bytes()
    assert peak is None or 5e6 < peak < 1e12  # an interpreter takes megabytes: thousands if counted in kB


def test_record_and_report_import_neither_torch_nor_matplotlib():
    code = (
        "import sys, expunge.record, expunge.report as r; expunge.record.versions();"
        "bad = {'torch', 'transformers', 'matplotlib', 'jinja2', 'numpy'} & set(sys.modules);"
        "assert not bad, bad;"
        "r.render({}); assert not {'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_command_that_may_be_published_names_no_path():
    names = {"/data/model": "Target", "tofu": "slice"}
    typed = "expunge bench x --model /data/model --data tofu --out=/home/me/out -p 'beta=0.1' /odd/a=b"
    published = record.renamed(typed, names)
    assert published == "expunge bench x --model Target --data slice --out=out -p beta=0.1 a=b"
    assert record.renamed(typed, {}) == typed and record.renamed(None, names) is None
