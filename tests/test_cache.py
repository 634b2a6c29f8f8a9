"""The cache: what is listed, what goes, and that nothing goes which a process uses."""

from __future__ import annotations

import fcntl
import os
import stat
import time

import pytest

from expunge import cache
from expunge.errors import InputError


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A cache of its own, and the means to put an entry of a size and an age (days) into it."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_LOCKS", {})

    def put(name, size, days, kind="scores"):
        folder = tmp_path / "cache" / kind / name
        folder.mkdir(parents=True)
        (folder / "answers.parquet").write_bytes(b"x" * size)
        then = time.time() - days * cache.DAY
        os.utime(folder, (then, then))
        return folder

    return put


def names(cached):
    return [e.folder.name for e in cached]


def test_entries_are_listed_the_last_used_first(place):
    place("a", 10, 5), place("b", 20, 1), place("smollm", 30, 9, "models")
    cached = cache.entries()
    assert names(cached) == ["b", "a", "smollm"] and [e.size for e in cached] == [20, 10, 30]
    assert [e.description for e in cached] == ["answers of a model", "answers of a model", "weights of smollm"]
    cache.describe(cached[0].folder, {"model": "target", "questions": 7})
    assert cache.entries()[0].description == "answers of target to 7 questions"
    assert stat.S_IMODE((cached[0].folder / cache.ABOUT).stat().st_mode) == 0o600
    assert any("5 d" in line and "10 B" in line for line in cache.lines(cached))


def test_what_goes_by_age_and_by_size(place):
    place("old", 10, 40), place("older", 10, 50), place("new", 10, 1)
    cached = cache.entries()
    assert names(cache.excess(cached, older_than=45 * cache.DAY)) == ["older"]
    assert names(cache.excess(cached, keep=20)) == ["older"] and names(cache.excess(cached, keep=19)) == [
        "older",
        "old",
    ]
    assert names(cache.excess(cached, older_than=45 * cache.DAY, keep=10)) == ["older", "old"]
    assert cache.excess(cached) == [] and len(cache.excess(cached, keep=0)) == 3
    removed = cache.remove(cache.excess(cached, keep=10))
    assert names(removed) == ["older", "old"] and names(cache.entries()) == ["new"]
    assert sorted(p.name for p in removed[0].folder.parent.iterdir()) == ["new"]  # no lock, nothing half removed


def test_nothing_goes_that_a_process_uses(place):
    mine, theirs, free = place("mine", 10, 99), place("theirs", 10, 98), place("free", 10, 97)
    cache.hold(mine)
    with open(theirs.with_name(".theirs.lock"), "w") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        by_name = {e.folder.name: e for e in cache.entries()}
        assert {name: e.busy for name, e in by_name.items()} == {"mine": True, "theirs": True, "free": False}
        assert by_name["mine"].age < 60  # holding it is using it
        assert names(cache.excess(list(by_name.values()), keep=0)) == ["free"]
        assert names(cache.remove(list(by_name.values()))) == ["free"] and mine.exists() and theirs.exists()
    assert not free.exists()
    assert names(cache.remove(cache.excess(cache.entries(), keep=0))) == ["theirs"]


def test_the_usual_limits_and_other_ones(place, monkeypatch):
    place("old", 10, 91), place("new", 10, 89)
    message = cache.trim()
    assert "gave up 1 of its entries, 10 B, not used for 90d or above 20GB" in message and names(cache.entries()) == [
        "new"
    ]
    assert cache.trim() is None
    monkeypatch.setenv("EXPUNGE_CACHE_SIZE", "9B")
    assert "above 9B in all" in cache.trim() and cache.entries() == []


@pytest.mark.parametrize("text", ["", "soon", "-1d", "3 y3"])
def test_an_age_or_a_size_that_is_none(text):
    with pytest.raises(InputError, match="is no age; write 30d"):
        cache.seconds(text)
    with pytest.raises(InputError, match="is no size; write 5GB"):
        cache.number_of_bytes(text)
