"""Code that does what it should not: how each case ends, and what is left of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from expunge.errors import InputError
from expunge.scorers import sandbox
from expunge.scorers.sandbox import MIB, run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs Linux or macOS")


@pytest.fixture(autouse=True)
def without_bwrap(monkeypatch):
    """Of the sandbox itself, with or without bwrap on this machine."""
    monkeypatch.setattr(sandbox.bubblewrap, "command", lambda *_: [])


def has_namespaces():
    """Whether an ordinary user can make them here, asked of util-linux."""
    program = shutil.which("unshare")
    if program is None:
        return False
    command = [program, "--user", "--net", "--pid", "--ipc", "--mount", "--fork", "true"]
    return subprocess.run(command, capture_output=True).returncode == 0


needs_namespaces = pytest.mark.skipif(not has_namespaces(), reason="needs Linux with user namespaces")
SLEEPER = "import os, time\nif os.fork() == 0:\n    {before}\n    time.sleep(60)\n    os._exit(0)\n"


def test_a_program_reads_its_input_and_is_ok():
    outcome = run("import sys\nprint(sum(map(int, sys.stdin)))\nprint('é', file=sys.stderr)", stdin="1\n2\n")
    assert outcome == sandbox.Outcome(ok=True, timed_out=False, error_last_line="", stdout="3\n")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("def f(:", "SyntaxError: invalid syntax"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("input()", "EOFError: EOF when reading a line"),
        ("import sys\nsys.exit(3)", "exit status 3"),
        ("import sys\nsys.exit('stopped')", "stopped"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "ended by signal 9"),
        ("x = '\ud800'", "?"),  # half a surrogate pair does not upset the writing of the file
    ],
)
def test_a_program_that_fails_says_how_in_a_line(source, error):
    outcome = run(source)
    assert not outcome.timed_out
    if error == "?":
        assert outcome.ok
    else:
        assert not outcome.ok and outcome.error_last_line == error


@pytest.mark.parametrize(
    "source", ["import sys\nsys.exit(0)", "import os\nos._exit(0)", "assert __name__ == '__main__'"]
)
def test_ends_that_are_fine(source):
    assert run(source).ok


def test_an_endless_loop_ends():
    start = time.monotonic()
    outcome = run("print('begun', flush=True)\nwhile True: pass", seconds=1)
    assert time.monotonic() - start < 3
    assert outcome == sandbox.Outcome(False, True, "ran longer than 1 s", "begun\n")


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not enforce the limit")
def test_memory_ends():
    assert run("x = bytearray(100 << 20)", memory=256 * MIB).ok
    assert run("x = bytearray(100 << 20)", memory=100 * MIB).error_last_line == "MemoryError"


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not enforce the limit")
def test_shared_memory_counts():
    assert "Cannot allocate memory" in run("import mmap\nmmap.mmap(-1, 600 << 20)").error_last_line


def test_output_is_cut_and_a_flood_ends():
    outcome = run("print('x' * 200_000)")
    assert outcome.ok and outcome.stdout == "x" * sandbox.STDOUT
    outcome = run("while True: print('x' * 100_000)", seconds=20)
    assert not outcome.ok and not outcome.timed_out and "File too large" in outcome.error_last_line


def test_a_large_file_cannot_be_written():
    assert run("open('a', 'wb').write(bytes(15 << 20))").ok
    assert "File too large" in run("open('a', 'wb').write(bytes(17 << 20))").error_last_line


def test_files_run_out():
    assert "Too many open files" in run("keep = [open('main.py') for _ in range(100)]").error_last_line


def test_it_works_in_a_folder_of_its_own_that_goes_away():
    outcome = run(
        "import os, tempfile\nopen('a', 'w').write('1')\ntempfile.mkdtemp()\nprint(os.getcwd(), os.listdir('.'))"
    )
    folder, names = outcome.stdout.split(" ", 1)
    assert "'a'" in names and "'main.py'" in names and len(names.split(",")) == 3
    assert Path(folder).name.startswith("expunge-") and not Path(folder).exists()


def test_the_environment_and_installed_packages_stay_outside(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    assert set(eval_list("import os\nprint(sorted(os.environ))")) <= {"TMPDIR", "LC_CTYPE", "__CF_USER_TEXT_ENCODING"}
    assert "ModuleNotFoundError" in run("import numpy").error_last_line
    assert "ModuleNotFoundError" in run("import expunge").error_last_line


def eval_list(source):
    import ast

    return ast.literal_eval(run(source).stdout)


CONNECT = "import socket\nsocket.create_connection(('{}', {}), 2)"


@pytest.mark.parametrize("confined", [pytest.param(True, marks=needs_namespaces), False])
def test_there_is_no_network(confined, without_namespaces):
    import socket

    if not confined:
        without_namespaces()
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        assert subprocess.run([sys.executable, "-c", CONNECT.format(host, port)]).returncode == 0
        outcome = run(CONNECT.format(host, port))
    assert not outcome.ok and outcome.error_last_line.startswith("OSError")
    assert run("import asyncio\nasyncio.run(asyncio.sleep(0))").ok, "what needs no network still runs"


def test_a_socket_of_its_own_cannot_connect_either(without_namespaces):
    without_namespaces()
    for call in ("connect(('127.0.0.1', 1))", "bind(('127.0.0.1', 0))", "sendto(b'x', ('127.0.0.1', 1))"):
        assert (
            run(f"import socket\nsocket.socket().{call}").error_last_line
            == "OSError: there is no network in the sandbox"
        )


@pytest.fixture
def without_namespaces(monkeypatch, tmp_path):
    """Makes the sandbox run as on a system that has none."""

    def do():
        text = sandbox.CONFINE.read_text()
        refused = text.replace("if libc.unshare(", "if True or libc.unshare(")
        assert refused != text
        file = tmp_path / "confine.py"
        file.write_text(refused)
        monkeypatch.setattr(sandbox, "CONFINE", file)

    return do


@needs_namespaces
def test_nothing_outside_its_folder_can_be_written(tmp_path):
    tmp_path.chmod(0o777)
    (tmp_path / "there").write_text("kept")
    (tmp_path / "there").chmod(0o666)
    for statement in (f"open({str(tmp_path / 'new')!r}, 'w')", f"import os\nos.remove({str(tmp_path / 'there')!r})"):
        assert not run(statement).ok
    assert [f.name for f in tmp_path.iterdir()] == ["there"]


def test_without_namespaces_it_can_write_where_its_user_can(without_namespaces):
    """What is not contained is said, and here shown; as root, its user may be nobody."""
    without_namespaces()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        assert run(f"open({os.path.join(folder, 'new')!r}, 'w')").ok
        assert os.listdir(folder) == ["new"]


@needs_namespaces
def test_a_socket_that_is_a_file_is_not_contained():
    """What is not contained is said, and here shown: a network namespace has no say in it."""
    import socket

    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        os.chmod(folder, 0o777)
        place = os.path.join(folder, "s")
        server.bind(place)
        os.chmod(place, 0o777)
        server.listen()
        assert run(f"import socket\nsocket.socket(socket.AF_UNIX).connect({place!r})").ok


def test_without_namespaces_there_are_limits_too(without_namespaces):
    without_namespaces()
    assert "Too many open files" in run("keep = [open('main.py') for _ in range(100)]").error_last_line
    assert run("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)").error_last_line == "ended by signal 9"


def nobody_can_run():
    command = [sys.executable, "-I", "-S", "-c", "pass"]
    try:
        return subprocess.run(command, user=65534, capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(os.geteuid() != 0 or not nobody_can_run(), reason="needs root and a Python that nobody can run")
def test_root_becomes_nobody(without_namespaces):
    without_namespaces()
    assert run("import os\nprint(os.getresuid(), os.getgroups())").stdout == "(65534, 65534, 65534) []\n"


BOMB = """
import os, time
made = 0
try:
    for _ in range(100):
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        made += 1
except OSError:
    pass
print(made)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts differ elsewhere")
def test_a_fork_bomb_is_limited_and_none_of_it_is_left(place):
    outcome = run(BOMB)
    assert outcome.ok
    if os.geteuid() != 0 or nobody_can_run():  # else it runs as root, whose processes are not counted
        assert int(outcome.stdout) < 32
    wait_until(lambda: running(place) == 0)


@pytest.fixture
def place(monkeypatch):
    """Where the sandbox makes its folders, for this test alone: its programs are known by it."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield folder
        monkeypatch.undo()


def running(place):
    """How many programs have an environment that names ``place``."""
    if sys.platform != "linux":
        listed = subprocess.run(["ps", "-E", "-ax", "-o", "command"], capture_output=True, text=True).stdout
        return sum(f"TMPDIR={place}/" in line for line in listed.splitlines())
    count = 0
    for file in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # gone, or not ours
            count += f"TMPDIR={place}/".encode() in file.read_bytes()
    return count


@pytest.mark.parametrize("seconds", [0.7, 5])
def test_a_child_left_behind_is_killed(seconds, place):
    outcome = run(SLEEPER.format(before="pass") + ("time.sleep(60)" if seconds < 1 else ""), seconds=seconds)
    assert outcome.timed_out == (seconds < 1)
    wait_until(lambda: running(place) == 0)


def test_a_child_left_behind_is_killed_without_namespaces_too(without_namespaces, place):
    without_namespaces()
    test_a_child_left_behind_is_killed(5, place)


@needs_namespaces
def test_a_child_in_a_session_of_its_own_is_killed(place):
    assert run(SLEEPER.format(before="os.setsid()")).ok
    wait_until(lambda: running(place) == 0)


@needs_namespaces
def test_it_can_signal_only_processes_of_its_own():
    assert "ProcessLookupError" in run(f"import os\nos.kill({os.getpid()}, 0)").error_last_line


@needs_namespaces
def test_it_has_no_privileges_and_can_gain_none():
    status = dict(
        line.split(":\t") for line in run("print(open('/proc/self/status').read())").stdout.split("\n") if ":\t" in line
    )
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"] == "1"


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
@pytest.mark.parametrize("confined", [pytest.param(True, marks=needs_namespaces), False])
def test_nothing_outlives_who_asked_for_it(confined, without_namespaces, place):
    if not confined:
        without_namespaces()
    code = "import sys\nfrom pathlib import Path\nfrom expunge.scorers import sandbox\nsandbox.CONFINE = Path(sys.argv[1])\n"
    code += "sandbox.run(\"open('begun', 'w'); import time; time.sleep(60)\", seconds=60)"
    environment = {**os.environ, "TMPDIR": place}
    asking = subprocess.Popen([sys.executable, "-c", code, str(sandbox.CONFINE)], env=environment)
    wait_until(lambda: list(Path(place).glob("*/begun")))
    assert running(place) > 0
    asking.kill()
    asking.wait()
    wait_until(lambda: running(place) == 0)


def wait_until(true):
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("limits", "message"),
    [({"seconds": 0}, "above 0, not 0"), ({"seconds": float("nan")}, "nan"), ({"memory": 1000}, "64 MiB")],
)
def test_limits_that_are_none_are_errors(limits, message):
    with pytest.raises(InputError, match=message):
        run("pass", **limits)


def test_windows_is_refused(monkeypatch):
    monkeypatch.setattr(sandbox.os, "name", "nt")
    with pytest.raises(InputError, match="Linux or macOS"):
        sandbox.check_system()
