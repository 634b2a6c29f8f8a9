"""bwrap around the sandbox, by a stand-in that notes its arguments and runs the rest; and the word where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from expunge.scorers import bubblewrap, sandbox

STAND_IN = """#!/bin/sh
echo "$@" >> {log}
while [ "$1" != "--" ]; do shift; done
shift
exec "$@"
"""


@pytest.fixture(autouse=True)
def fresh():
    bubblewrap._works.cache_clear()
    sandbox._warn_of_root.cache_clear()
    yield
    bubblewrap._works.cache_clear()
    sandbox._warn_of_root.cache_clear()


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A bwrap on the path; gives what it was called with."""
    file, log = tmp_path / "bwrap", tmp_path / "log"
    file.write_text(STAND_IN.format(log=log))
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(bubblewrap, "nobody_can_run", lambda: False)
    return lambda: log.read_text().splitlines()


def test_it_is_used_where_it_is_there(stand_in):
    assert sandbox.run("print(6 * 7)").stdout == "42\n"
    probe, call = stand_in()
    assert "--unshare-all --die-with-parent" in call and f"--ro-bind-try {sys.base_prefix} {sys.base_prefix}" in call
    assert "--tmpfs /tmp" in call and str(sandbox.CONFINE) in call and " -c pass" in probe
    home = os.path.expanduser("~")
    assert f" {home} {home} " not in call
    assert bubblewrap.root_warning() is None


def test_one_that_does_not_work_is_not_used(stand_in, monkeypatch, tmp_path, capsys):
    (tmp_path / "bwrap").write_text("#!/bin/sh\nexit 1\n")
    assert bubblewrap.command(str(tmp_path)) == []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for _ in range(2):
        assert sandbox.run("print(1)").ok
    stderr = capsys.readouterr().err
    assert stderr.count("runs as root here") == 1 and "install bubblewrap" in stderr  # once


def test_nothing_is_said_to_an_ordinary_user_or_where_root_becomes_nobody(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(bubblewrap, "nobody_can_run", lambda: True)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert bubblewrap.root_warning() is None and bubblewrap.command("folder") == []
    monkeypatch.setattr(bubblewrap, "nobody_can_run", lambda: False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert bubblewrap.root_warning() is None


def test_who_can_run_a_python(tmp_path, monkeypatch):
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    (folder / "python").write_text("")
    (folder / "python").chmod(0o755)
    assert not bubblewrap._open_to_all(folder / "python", 0o001)
    assert not bubblewrap._open_to_all(folder / "none", 0o001)
    assert bubblewrap._open_to_all(type(folder)("/bin/sh"), 0o001)


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bwrap is not installed")
def test_the_real_one_hides_files(tmp_path, monkeypatch):
    monkeypatch.setattr(bubblewrap, "nobody_can_run", lambda: False)
    if not bubblewrap.command(str(tmp_path)):
        pytest.skip("bwrap may not make namespaces here")
    (tmp_path / "secret").write_text("secret")
    outcome = sandbox.run(f"import os\nprint(os.path.exists({str(tmp_path / 'secret')!r}), open('main.py').read()[:6])")
    assert outcome.ok and outcome.stdout == "False import\n"
    assert subprocess.run(["test", "-f", tmp_path / "secret"], check=False).returncode == 0
