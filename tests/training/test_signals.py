"""Signals: noted while a run trains, raised elsewhere."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from resumed import default_handlers

from expunge.training import signals


@pytest.fixture(autouse=True)
def _handlers():
    with default_handlers():
        yield


@pytest.mark.parametrize(
    ("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129), ("SIGUSR1", 128 + signal.SIGUSR1)]
)
def test_a_signal_is_raised_with_its_exit_status_and_the_handlers_are_put_back(name, code):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with pytest.raises(signals.Interrupted) as e, signals.caught():
        os.kill(os.getpid(), number)
    assert e.value.code == code and isinstance(e.value, KeyboardInterrupt) and str(e.value) == "interrupted"
    assert signal.getsignal(number) is before


def test_a_deferred_signal_is_noted_and_a_second_ctrl_c_ends_at_once(capfd, monkeypatch):
    with signals.caught(), signals.deferred() as wanted:
        assert wanted() is None
        os.kill(os.getpid(), signal.SIGINT)
        assert wanted() == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)  # at once: the same one, passed on by a launcher
        os.kill(os.getpid(), signal.SIGTERM)
        assert wanted() == signal.SIGINT
        monkeypatch.setattr(signals, "AGAIN", 0.0)
        with pytest.raises(signals.Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
    assert capfd.readouterr().err.count("stopping after this step, which is saved") == 1
    with signals.caught(), signals.deferred() as wanted:
        assert wanted() is None  # of an earlier run


def test_handlers_of_others_and_threads_are_left_alone():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
    try:
        with signals.caught():
            os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [1]
    finally:
        signal.signal(signal.SIGTERM, before)

    def elsewhere():
        with signals.caught(), signals.deferred() as wanted:
            seen.append(wanted())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [1, None]


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with signals.caught():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
