"""What a process knows of the others, and how one's failure ends all; the launch itself is in ``unlearning/``."""

from __future__ import annotations

import os
import threading
from datetime import timedelta

import pytest
from torch.distributed import TCPStore

from expunge import processes
from expunge.errors import InputError

NAMES = [n for name, others in processes.OF_MPI.items() for n in (name, *others)] + ["MASTER_ADDR", "MASTER_PORT"]


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_one_process_without_a_launcher(monkeypatch):
    assert (processes.count(), processes.rank(), processes.is_main(), processes.grouped()) == (1, 0, True, False)
    assert processes.on_main(lambda: 3) == 3 and processes.note_failure(2)
    monkeypatch.setenv("RANK", "1")  # of something else
    assert processes.is_main()
    processes.check_one("this")
    processes.check_count(1)
    processes.check_count(None)


def test_what_mpirun_says_gets_the_names_that_torch_reads(monkeypatch):
    for name, value in (("RANK", 1), ("SIZE", 2), ("LOCAL_RANK", 1), ("LOCAL_SIZE", 2)):
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", str(value))
    assert (processes.count(), processes.rank(), processes.is_main()) == (2, 1, False)
    for name in (*processes.OF_MPI, "MASTER_ADDR", "MASTER_PORT", "TORCH_CPP_LOG_LEVEL"):
        monkeypatch.setenv(name, "x")  # put back afterwards
        monkeypatch.delenv(name)
    processes.complete_environment()
    assert [os.environ[name] for name in processes.OF_MPI] == ["1", "2", "1", "2"]
    assert os.environ["MASTER_ADDR"] == "127.0.0.1" and os.environ["MASTER_PORT"].isdigit()


def test_refusals(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="a release runs in one process, and a launcher started 2; start it without"):
        processes.check_one("a release")
    with pytest.raises(InputError, match="processes = 4, and 2 were started"):
        processes.check_count(4)
    assert processes.is_gone(RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:39600"))
    assert not processes.is_gone(RuntimeError("shapes differ"))


def test_the_first_failure_is_told_to_all_and_ends_those_that_wait(monkeypatch):
    store = TCPStore("127.0.0.1", 0, 2, True, timedelta(seconds=5), wait_for_workers=False)
    ended, codes = threading.Event(), []
    monkeypatch.setattr(processes, "PERIOD", 0.01)
    monkeypatch.setattr(processes, "GRACE", 0.01)
    monkeypatch.setattr(processes.os, "_exit", lambda code: (codes.append(code), ended.set()))
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)
    board = processes._Board(store)
    monkeypatch.setattr(processes, "_BOARD", board)
    assert board.failure() is None
    assert processes.note_failure(2) and processes.note_failure(1)  # the same process again: it has the word
    monkeypatch.setenv("RANK", "0")
    assert not processes.note_failure(1) and board.failure() == (1, 2)
    assert ended.wait(5) and codes == [2]


def test_an_interruption_kills_nobody(monkeypatch):
    store = TCPStore("127.0.0.1", 0, 2, True, timedelta(seconds=5), wait_for_workers=False)
    monkeypatch.setattr(processes, "PERIOD", 0.01)
    monkeypatch.setattr(processes, "GRACE", 0.0)
    codes = []
    monkeypatch.setattr(processes.os, "_exit", codes.append)
    monkeypatch.setenv("WORLD_SIZE", "2")
    board = processes._Board(store)
    monkeypatch.setattr(processes, "_BOARD", board)
    assert processes.note_failure(130)
    assert not board.ended.wait(0.1) and not codes
    board.ended.set()
