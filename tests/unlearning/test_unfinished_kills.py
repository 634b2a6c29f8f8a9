"""Runs that are killed at any moment, or whose disk fails in any write: the same command goes on, and nothing is lost.

A process that has everything imported is forked for each attempt, so that an attempt takes a second and not ten.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
import transformers.modeling_utils
from resumed import WAYS, assert_same, go, weights

from expunge import models
from expunge.errors import RunFailed
from expunge.training import pieces

FINISHED, FAILED, BROKEN = 0, 1, 3
HOW = {"save_every": 0}
TOLD = ("could not be written",)  # a checkpoint, which the record tells


def attempt(prepare=lambda: None, **kw):
    """The process id of a child that carries out the run into ``cut``."""
    child = os.fork()
    if child:
        return child
    code = BROKEN
    try:
        sink = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        prepare()
        go(out="cut", **kw)
        code = FINISHED
    except RunFailed:
        code = FAILED
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child):
    """The exit status of ``child``, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def assert_nothing_is_lost(whole):
    """What has its name in the folder is whole: a record and its weights, a model that loads."""
    if Path("cut/run.json").exists():
        assert_same("cut", whole, TOLD)
    elif Path("cut/model").exists():
        assert models.load("cut/model").model


def killed_at_random(rng, at_least, longest, whole, **kw):
    """How often runs were killed, each gone on with until it is finished, and compared with the uninterrupted one."""
    kills, runs = 0, 0
    while kills < at_least:
        shutil.rmtree("cut", ignore_errors=True)
        runs += 1
        while not Path("cut/run.json").exists():
            child = attempt(**kw)
            time.sleep(rng.uniform(0, longest))
            os.kill(child, signal.SIGKILL)
            status = ended(child)
            assert status in (FINISHED, -signal.SIGKILL), Path("said").read_text()[-2000:]
            kills += status != FINISHED
            assert_nothing_is_lost(whole)
        assert_same("cut", whole)
    return kills, runs


def timed(**kw):
    begin = time.monotonic()
    assert ended(attempt(**kw)) == FINISHED, Path("said").read_text()[-2000:]
    took = time.monotonic() - begin
    Path("cut").rename("whole")
    return took


def test_a_run_is_killed_at_random_moments(workplace):
    took = timed(max_steps=3, **HOW)
    assert killed_at_random(random.Random(4), 2, took, "whole", max_steps=3, **HOW)[0] >= 2


@pytest.mark.slow
@pytest.mark.parametrize("way", ["whole", "lora", "sophia"])
def test_runs_are_killed_at_random_moments(workplace, way, capsys):
    took = timed(**WAYS[way], **HOW)
    kills, runs = killed_at_random(random.Random(1), 40, took, "whole", **WAYS[way], **HOW)
    with capsys.disabled():
        print(f"\n{way}: {kills} kills in {runs} runs of {took:.2f} s, all bit-identical")


# -- inside writes --------------------------------------------------------------------------------------------------------
class Disk:
    """Counts the writes of this process inside ``cut``, and at number ``at`` does ``what``: a kill, or an error."""

    def __init__(self, at=None, what=None):
        self.at, self.what, self.seen = at, what, []

    def happens(self, name, path, half=None):
        if "/cut" not in os.path.abspath(path):
            return
        self.seen.append(f"{name} {os.path.relpath(path, 'cut')}")
        if len(self.seen) - 1 != self.at:
            return
        if half:
            half()
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(self.what, os.strerror(self.what), str(path))

    def install(self):
        for module, name in ((os, "rename"), (os, "replace")):
            self.before(module, name, lambda a: a[1])
        self.before(os, "fsync", lambda a: os.readlink(f"/proc/self/fd/{a[0]}"))
        self.before(os, "open", lambda a: a[0] if a[1] & (os.O_WRONLY | os.O_RDWR) else None)
        for module in (builtins, io):
            self.before(module, "open", lambda a: a[0] if writing(a) else None)
        for module, name in ((torch, "save"), (pieces, "save_file"), (transformers.modeling_utils, "safe_save_file")):
            self.half(module, name)

    def before(self, module, name, path_of):
        own = getattr(module, name)

        def patched(*args, **kwargs):
            if (path := path_of(args)) is not None:
                self.happens(name, path)
            return own(*args, **kwargs)

        setattr(module, name, patched)

    def half(self, module, name):
        """A library that writes by itself: half of its file is there when it fails."""
        own = getattr(module, name)

        def patched(tensors, file, *args, **kwargs):
            def write_half():
                own(tensors, file, *args, **kwargs)
                os.truncate(file, os.path.getsize(file) // 2)

            self.happens(name, file, write_half)
            return own(tensors, file, *args, **kwargs)

        setattr(module, name, patched)


def writing(args):
    """Whether ``open`` is called with the name of a file and a mode that writes."""
    return isinstance(args[0], str | Path) and bool(set("wax+") & set(args[1] if len(args) > 1 else "r"))


def writes(**kw):
    """The writes of an uninterrupted run, which it leaves in a file when it ends."""
    disk = Disk()
    child = os.fork()
    if child == 0:
        try:
            disk.install()
            go(out="cut", **kw)
            Path("writes").write_text("\n".join(disk.seen))
        finally:
            os._exit(0)
    assert ended(child) == FINISHED
    return Path("writes").read_text().splitlines()


def spread(seen, n):
    """``n`` of the writes, evenly spread, and the first of each kind: what is done to which file."""
    kinds = {}
    for i, one in enumerate(seen):
        kinds.setdefault(re.sub(r"[0-9a-f]{12}|[0-9]+", "#", one), i)
    return sorted({*kinds.values(), *(i * len(seen) // n for i in range(n))})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "way"), [("kill", "whole"), ("kill", "lora"), (errno.ENOSPC, "whole"), (errno.EIO, "whole")]
)
def test_a_write_fails(workplace, way, what, capsys):
    seen = writes(**WAYS[way], **HOW)
    Path("cut").rename("whole")
    places = spread(seen, 20)
    codes = []
    for at in places:
        codes.append(status := ended(attempt(Disk(at, what).install, **WAYS[way], **HOW)))
        said = f"{seen[at]}: {Path('said').read_text()[-2000:]}"
        assert status == -signal.SIGKILL if what == "kill" else status in (FINISHED, FAILED, BROKEN), said
        assert_nothing_is_lost("whole")
        for rescued in Path().glob("expunge-rescued-*"):
            assert all(torch.equal(w, weights("whole")[n]) for n, w in weights(rescued).items())
            shutil.rmtree(rescued)
        if not Path("cut/run.json").exists():
            status = ended(attempt(**WAYS[way], **HOW))
            assert status == FINISHED, f"{seen[at]}: {Path('said').read_text()[-2000:]}"
        assert_same("cut", "whole", TOLD)
        shutil.rmtree("cut")
        Path("said").unlink()
    with capsys.disabled():
        print(
            f"\n{way}, {what}: {len(places)} of {len(seen)} writes, exit codes {sorted(set(codes))}, all bit-identical"
        )
