"""A folder that is whole or not there."""

from __future__ import annotations

import os

import pytest

from expunge.training import manifest


def write(place, content=b"abc"):
    fresh = manifest.hidden(place)
    (fresh / "sub").mkdir(parents=True)
    (fresh / "a").write_bytes(content)
    (fresh / "sub" / "b").write_bytes(content)
    return manifest.seal(place)


def test_what_is_sealed_is_whole_until_a_file_is_torn_or_missing(tmp_path):
    place = write(tmp_path / "checkpoint-1")
    assert manifest.is_whole(place) and not manifest.is_torn(place) and not manifest.hidden(place).exists()
    (place / "sub" / "b").write_bytes(b"ab")
    assert manifest.is_torn(place) and not manifest.is_whole(place)
    (place / "sub" / "b").unlink()
    assert manifest.is_torn(place)
    (place / manifest.FILE).write_text("{")
    assert manifest.is_torn(place)
    (place / manifest.FILE).unlink()
    assert not manifest.is_torn(place) and not manifest.is_whole(place)  # another program's


def test_every_file_is_flushed_before_the_name_and_the_name_after(tmp_path, monkeypatch):
    done = []
    fsync, rename = os.fsync, os.rename

    def flushed(descriptor):
        done.append(os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(f"{tmp_path}/").rstrip("/"))
        fsync(descriptor)

    def renamed(a, b):
        done.append(f"-> {os.path.basename(b)}")
        rename(a, b)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "rename", renamed)
    write(tmp_path / "checkpoint-1")
    at = done.index("-> checkpoint-1")
    hidden = ".checkpoint-1.tmp"
    assert {f"{hidden}/a", f"{hidden}/sub/b", f"{hidden}/sub", hidden} <= set(done[:at])
    assert [f for f in done[at + 1 :] if f] == [str(tmp_path)]


def test_the_newest_comes_first_and_remains_are_swept(tmp_path):
    for n in (2, 10, 9):
        write(tmp_path / f"checkpoint-{n}")
    (tmp_path / ".checkpoint-11.tmp").mkdir()
    (tmp_path / ".checkpoint-1.old").mkdir()
    (tmp_path / "checkpoint-x").mkdir()
    assert [manifest.step_of(p) for p in manifest.numbered(tmp_path)] == [10, 9, 2]
    manifest.sweep(tmp_path)
    manifest.remove(tmp_path / "checkpoint-2")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-9", "checkpoint-x"]
    assert manifest.numbered(tmp_path / "nowhere") == []
    manifest.sweep(tmp_path / "nowhere")


def test_a_folder_of_the_same_name_is_replaced(tmp_path):
    write(tmp_path / "checkpoint-1")
    place = write(tmp_path / "checkpoint-1", b"new")
    assert (place / "a").read_bytes() == b"new" and [p.name for p in tmp_path.iterdir()] == ["checkpoint-1"]


def test_a_disk_that_is_full_is_an_error(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "checkpoint-1")
    assert not (tmp_path / "checkpoint-1").exists()
