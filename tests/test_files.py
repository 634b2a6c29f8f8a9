"""Files: outputs checked, written whole or not at all, JSON read or refused with a sentence, fingerprints."""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

from expunge import files
from expunge.errors import InputError


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# -- outputs --------------------------------------------------------------------------------------------------------------
def test_checking_a_folder_touches_nothing(tmp_path: Path):
    assert files.check_folder(tmp_path / "new", marker="a.json") == tmp_path / "new"
    (tmp_path / "a.json").write_text("1")
    assert files.check_folder(tmp_path, marker="a.json", overwrite=True) == tmp_path
    assert [f.name for f in tmp_path.iterdir()] == ["a.json"]


def test_a_file_in_the_way_and_an_empty_name_are_refused(tmp_path: Path):
    (tmp_path / "out").write_text("")
    for path in (tmp_path / "out", tmp_path / "out" / "deeper"):
        with pytest.raises(InputError, match="out: a file of that name is in the way"):
            files.check_folder(path)
    for empty in ("", " "):
        with pytest.raises(InputError, match="empty text"):
            files.check_folder(empty)
        with pytest.raises(InputError, match="empty text"):
            files.check_file(empty)


def test_an_output_file_needs_a_folder_and_is_none(tmp_path: Path):
    assert files.check_file(tmp_path / "f.json") == tmp_path / "f.json"
    with pytest.raises(InputError, match="there is no such folder"):
        files.check_file(tmp_path / "none" / "f.json")
    with pytest.raises(InputError, match="it is a folder"):
        files.check_file(tmp_path)


def test_a_foreign_folder_is_told_from_a_free_one_and_from_ours(tmp_path: Path):
    assert not files.is_foreign(tmp_path / "new", ["made.json"]) and not files.is_foreign(tmp_path, ["made.json"])
    (tmp_path / "file").write_text("")
    assert files.is_foreign(tmp_path, ["made.json"]) and files.is_foreign(tmp_path / "file", ["made.json"])
    (tmp_path / "made.json").write_text("")
    assert not files.is_foreign(tmp_path, ["config.json", "made.json"])


# -- writing --------------------------------------------------------------------------------------------------------------
def test_json_is_strict_and_lines_hold_one_row_each(tmp_path: Path):
    value = {
        "nan": math.nan,
        "all": (np.float32(0.5), np.float64("inf"), np.int64(7)),
        "path": Path("a"),
        "ü": "\u2028",
    }
    plain = {"nan": None, "all": [0.5, None, 7], "path": "a", "ü": "\u2028"}
    text = files.write_json(tmp_path / "a.json", value).read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == plain and "ü" in text and text.endswith("}\n")
    lines = files.write_lines(tmp_path / "a.jsonl", [value, {"b": "\n"}]).read_bytes().split(b"\n")
    assert [json.loads(line, parse_constant=pytest.fail) for line in lines[:-1]] == [plain, {"b": "\n"}]
    assert lines[-1] == b""


def test_a_file_that_is_not_finished_leaves_the_old_one(tmp_path: Path):
    (tmp_path / "a").write_text("old")

    def half() -> None:
        with files.replacing_file(tmp_path / "a") as new:
            new.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "a", {"model": object()})
    assert {f.name: f.read_text() for f in tmp_path.iterdir()} == {"a": "old"}


def test_private_files_are_for_their_owner_alone_even_where_others_read_the_old_one(tmp_path: Path):
    for name, write in {
        "text": lambda f: files.replace_text(f, "a", mode=files.PRIVATE),
        "json": lambda f: files.write_json(f, {}, mode=files.PRIVATE),
        "lines": lambda f: files.write_lines(f, [{}], mode=files.PRIVATE),
        "line": lambda f: files.append_line(f, {}, mode=files.PRIVATE),
        "log": lambda f: files.check_appendable(f, mode=files.PRIVATE),
    }.items():
        old, new = tmp_path / f"{name}-old", tmp_path / f"{name}-new"
        old.write_text("")
        old.chmod(0o644)
        write(old), write(new)
        assert mode(old) == mode(new) == 0o600, name


def test_ordinary_files_follow_the_umask(tmp_path: Path):
    before = os.umask(0o027)
    try:
        files.write_json(tmp_path / "a", {})
        files.append_line(tmp_path / "b", {})
    finally:
        os.umask(before)
    assert mode(tmp_path / "a") == mode(tmp_path / "b") == 0o640


def test_lines_are_added_after_what_is_there_and_never_into_it(tmp_path: Path):
    file = tmp_path / "log"
    files.append_line(file, {"a": 1})
    file.write_bytes(file.read_bytes() + b"mine")
    files.append_line(file, {"b": "\udc80", "c": math.nan})
    assert file.read_bytes() == b'{"a": 1}\nmine\n{"b": "\\udc80", "c": null}\n'


def test_an_unfinished_line_is_cut(tmp_path: Path):
    file = tmp_path / "log"
    files.cut_unfinished_line(file)
    assert not file.exists()
    for text, left in ((b"", b""), (b"a\nb\n", b"a\nb\n"), (b"a\nb", b"a\n"), (b"ab", b"")):
        file.write_bytes(text)
        files.cut_unfinished_line(file)
        assert file.read_bytes() == left


def test_lines_of_several_threads_do_not_mix(tmp_path: Path):
    def write(n: int) -> None:
        for i in range(20):
            files.append_line(tmp_path / "log", {"thread": n, "i": i, "text": "x" * 5000})

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted((r["thread"], r["i"]) for r in rows) == [(n, i) for n in range(4) for i in range(20)]


# -- reading --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, r"f\.json: there is no record; restore it"),
        (b"\xff", r"f\.json: the record is not UTF-8 text; restore it"),
        (b'{"a": 1,\n "b": }', r"f\.json, line 2: not JSON \(.*column 7\); restore it"),
        (b"", r"f\.json, line 1: not JSON"),
        (b"[" * 99_999, r"f\.json, line 1: not JSON"),
        (b"[1]", r"f\.json: the record is not a JSON object"),
        (b"null", r"f\.json: the record is not a JSON object"),
    ],
)
def test_what_is_broken_is_one_sentence(tmp_path: Path, content, words):
    file = tmp_path / "f.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=words):
        files.read_json(file, description="record", remedy="restore it")


def test_a_folder_and_a_path_through_a_file_are_no_json(tmp_path: Path):
    (tmp_path / "f").write_text("{}")
    with pytest.raises(InputError, match="there is no record"):
        files.read_json(tmp_path / "f" / "run.json", description="record", remedy="restore it")
    with pytest.raises(InputError, match="the record cannot be read"):
        files.read_json(tmp_path, description="record", remedy="restore it")


def test_objects_and_lists_are_read_and_constants_are_null(tmp_path: Path):
    file = tmp_path / "f.json"
    file.write_text('{"a": NaN, "b": [-Infinity, 1]}')
    assert files.read_json(file, description="record", remedy="") == {"a": None, "b": [None, 1]}
    with pytest.raises(InputError, match="not a JSON list"):
        files.read_list(file, description="list", remedy="restore it")
    file.write_text('["a"]')
    assert files.read_list(file, description="list", remedy="") == ["a"]


# -- folders and fingerprints ---------------------------------------------------------------------------------------------
def test_sha256_of_a_file_and_of_a_folder_by_hand(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.bin").write_bytes(b"two")
    (tmp_path / "sub" / "a.bin").write_bytes(b"one")
    (tmp_path / "skip.txt").write_bytes(b"no")
    assert files.sha256_file(tmp_path / "b.bin") == "sha256:" + sha(b"two")
    lines = f"b.bin\0sha256:{sha(b'two')}\nsub/a.bin\0sha256:{sha(b'one')}\n".encode()
    assert files.sha256_folder(tmp_path, "**/*.bin") == "sha256:" + sha(lines)
    (tmp_path / "b.bin").rename(tmp_path / "c.bin")
    assert files.sha256_folder(tmp_path, "**/*.bin") != "sha256:" + sha(lines)
    with pytest.raises(InputError, match="no file matches"):
        files.sha256_folder(tmp_path, "*.safetensors")
