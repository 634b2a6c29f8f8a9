"""The last guard: whatever goes wrong in a command is one sentence, a log that only its owner reads, and an exit code."""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from expunge.cli import app
from expunge.training.trainer import UnlearningTrainer
from expunge.unlearning import run as unlearning

RUN = ["run", "--model", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl", "use_cpu=true", "max_steps=2"]
RUN += ["fluency_rows=0", "--method", "pdu"]


def call(*args):
    return CliRunner().invoke(app, list(args))


@pytest.fixture
def failing(workplace, monkeypatch):
    """A function that makes ``expunge run`` meet an error, in an empty folder ``there`` or none."""

    def fail(error, folder=False):
        if folder:
            Path("there").mkdir()

        def run(*args, **kwargs):
            raise error

        monkeypatch.setattr(unlearning, "run", run)
        return call(*RUN, "--out", "there")

    return fail


def test_an_unexpected_error_is_one_sentence_and_a_log_in_the_folder(failing):
    done = failing(KeyError("x"), folder=True)
    assert done.exit_code == 1 and "Traceback" not in done.output
    assert done.stderr == (
        f"expunge: an unexpected error, KeyError: 'x'; the traceback is in {Path('there/error.log')} (--debug shows it)\n"
    )
    log = Path("there/error.log")
    assert "KeyError: 'x'" in log.read_text() and stat.S_IMODE(log.stat().st_mode) == 0o600


def test_without_a_folder_the_log_is_among_the_temporary_files(failing, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    done = failing(RuntimeError("a\nb " + "c" * 1000))
    (log,) = (tmp_path / "elsewhere").iterdir()
    assert str(log) in done.stderr and "RuntimeError: a b ccc" in done.stderr and len(done.stderr) < 600
    assert done.stderr.count("\n") == 1 and not Path("there").exists()


@pytest.mark.parametrize("at", [0, 3, 99])
def test_debug_shows_the_traceback(workplace, monkeypatch, at):
    monkeypatch.setattr(unlearning, "run", lambda *a, **k: 1 / 0)
    args = list(RUN)
    args.insert(at, "--debug") if at < 4 else args.append("--debug")
    if at == 3:
        args = [*RUN, "--debug", "--out", "there"]
    done = call(*args)
    assert done.exit_code == 1 and "Traceback" in done.stderr and "the traceback is in" not in done.stderr
    assert done.stderr.strip().splitlines()[-1] == "expunge: an unexpected error, ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (KeyboardInterrupt(), "expunge: interrupted\n", 130),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "lower per_device_train_batch_size", 1),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
            "lower per_device",
            1,
        ),
        (MemoryError(), "out of memory: lower per_device_train_batch_size", 1),
        (OSError(errno.ENOSPC, "No space left on device", "there/model"), "there/model: no space left on device", 1),
        (ModuleNotFoundError("No module named 'tiktoken'", name="tiktoken.load"), "pip install tiktoken", 1),
    ],
)
def test_errors_that_are_known_say_what_to_do(failing, error, said, code):
    done = failing(error)
    assert done.exit_code == code and said in done.stderr and done.stderr.count("\n") == 1


def test_what_breaks_off_leaves_no_empty_folder(workplace, monkeypatch):
    def interrupted(self, *args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(UnlearningTrainer, "train", interrupted)
    done = call(*RUN, "--method", "npo", "--out", "there")
    assert done.exit_code == 130 and done.stderr.endswith("expunge: interrupted\n") and not Path("there").exists()
    Path("there").mkdir()
    assert call(*RUN, "--method", "npo", "--out", "there").exit_code == 130 and Path("there").exists()


def test_an_argument_that_is_no_text(workplace):
    done = call(*RUN, "--out", os.fsdecode(b"caf\xe9"))
    assert done.exit_code == 2 and r"'caf\udce9' is not UTF-8 text" in done.stderr


def test_a_reader_that_goes_away_is_no_error():
    code = f"{sys.executable} -m expunge cache | true"  # which reads nothing and ends long before there is a line
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {code}"], capture_output=True, text=True)
    assert done.stderr == "" and done.returncode != 0


def test_warnings_are_printed_at_the_end_each_once(workplace):
    for file in (Path("forget.jsonl"), Path("retain.jsonl")):
        rows = file.read_text()
        file.write_text(rows + rows.splitlines()[0] + "\n")
    for option in ([], ["--quiet"], ["--json"]):
        done = call(*RUN, "--method", "npo", "--overwrite", *option)
        assert done.exit_code == 0, done.output
        told = re.findall("expunge: warning: (.*)", done.stderr)
        assert [w for w in told if "stand there more than once" in w] and len(set(told)) == len(told) > 1
        assert done.stderr.strip().splitlines()[-1].startswith("expunge: warning")
        if option == ["--json"]:
            import json

            assert json.loads(done.stdout)["warnings"] == told


def test_a_failure_is_an_object_with_json(workplace):
    import json

    done = call(*RUN, "learning_rate=1e6", "max_steps=4", "--json")
    assert done.exit_code == 1 and f"expunge: {json.loads(done.stdout)['error']}" in done.stderr
    refused = call(*RUN, "--method", "nothing", "--json")
    assert refused.exit_code == 2 and not refused.stdout
