"""Shared fixtures: a byte-level tokenizer with a chat template, a tiny model, a folder to run in.

xdist's controller loads this file too and runs no test: what is large is imported where it is used.
"""

from __future__ import annotations

import gc
import io
import json
import logging
import shutil
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast


def pytest_collection() -> None:
    """Not called in xdist's controller."""
    gc.disable()  # what is imported stays
    import shortcuts  # noqa: F401
    from hypothesis import HealthCheck, settings

    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # machines
    settings.load_profile("busy")


def pytest_collection_finish() -> None:
    """The libraries' objects live to the end: the collector, which every run calls, need not walk them each time."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """The messages of warnings and above that are logged meanwhile.  pytest's own plugin (``caplog``) is off, since it asks
    thousands of loggers six times a test."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    yield messages
    logging.getLogger().removeHandler(handler)


@pytest.hookimpl(tryfirst=True)
def pytest_warning_recorded(warning_message: warnings.WarningMessage) -> None:
    """xdist's controller imports the library whose class a warning is of, for the summary at the end: PEFT, with torch."""
    if warning_message.category.__module__ != "builtins":
        said = f"{warning_message.category.__name__}: {warning_message.message}"
        warning_message.message, warning_message.category = UserWarning(said), UserWarning


def pytest_make_parametrize_id(val: object) -> str | None:
    """Compressed content may hold the time: the two processes of a run must give a row the same name."""
    return "bytes" if isinstance(val, bytes) else None


DRAWN = {"report", "test_results.py"}  # where the tests read what is drawn


class Blank:
    """A figure that takes no time; a picture of it is an empty one."""

    patch = SimpleNamespace(set_facecolor=lambda _: None)

    def savefig(self, out: io.IOBase, **_: object) -> None:
        out.write("<svg></svg>" if isinstance(out, io.StringIO) else b"PNG")


@pytest.fixture
def charts() -> None:
    """A test that takes it gets real charts, wherever it lies."""


@pytest.fixture(autouse=True)
def _charts(request, monkeypatch) -> None:
    """Drawing takes a third of a small run's time: outside of ``report/`` charts are blank."""
    if "charts" not in request.fixturenames and not DRAWN & set(request.path.parts):
        curves = request.getfixturevalue("_curves")
        monkeypatch.setattr(curves, "_drawn", lambda *_: Blank())


@pytest.fixture
def audits() -> None:
    """A test that takes it has `expunge run` end with its audit."""


@pytest.fixture(autouse=True)
def _audits(request, monkeypatch) -> None:
    """An audit takes longer than a small run: elsewhere runs end without."""
    if "audits" not in request.fixturenames:
        monkeypatch.setattr("expunge.cli.auditing.after", lambda *_: None)


PROVEN = {"forward", "generation", "collect"}  # where the tests are of how a model is run


@pytest.fixture(autouse=True)
def _decided(request, monkeypatch) -> None:
    """How a model can be run is tried out on each, in several passes: elsewhere on the first Llama of a kind."""
    if not PROVEN & set(request.path.parts):
        for module, name, decide in request.getfixturevalue("_decisions"):
            monkeypatch.setattr(module, name, decide)


@pytest.fixture(scope="session")
def _decisions():
    from shortcuts import of_a_llama

    from expunge.evaluation.collect import score
    from expunge.forward import padding, prefix

    places = ((padding, "_proven"), (prefix, "_proven"), (score, "_agrees"))
    return [(module, name, of_a_llama(getattr(module, name))) for module, name in places]


@pytest.fixture(scope="session")
def _curves():
    from expunge.report.draw import curves

    return curves


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """Each byte is a token; ``<|end|>`` ends a turn and pads."""
    import tiny_tokenizer

    return tiny_tokenizer.make()


QUESTIONS = [
    {"question": f"Where does {n} live?", "answer": f"{n} lives in {p}."}
    for n, p in [
        ("Ada", "Oru"),
        ("Bo", "Lim"),
        ("Cy", "Tar"),
        ("Di", "Ven"),
        ("Ed", "Sol"),
        ("Flo", "Nar"),
        ("Gil", "Pon"),
        ("Hy", "Wex"),
    ]
]


def saved(folder: Path, layers: int) -> Path:
    """A tiny model of so many layers with its tokenizer, in ``folder``."""
    import tiny
    import tiny_tokenizer

    words = tiny_tokenizer.make()
    m = tiny.model(vocab_size=len(words), num_hidden_layers=layers)
    m.generation_config.eos_token_id = words.eos_token_id
    m.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """The folder of a tiny model of one layer, saved once; a test takes a copy."""
    return saved(tmp_path_factory.mktemp("tiny") / "model", 1)


@pytest.fixture
def workplace(tmp_path, monkeypatch, tiny_model):
    """An empty folder to run in that holds ``model/``, ``forget.jsonl`` (3 rows) and ``retain.jsonl`` (5 rows)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from expunge.evaluation.probe import Ask

    monkeypatch.setattr("expunge.unlearning.fluency.ANSWER", Ask(max_new_tokens=6))
    shutil.copytree(tiny_model, tmp_path / "model")
    for name, rows in (("forget", QUESTIONS[:3]), ("retain", QUESTIONS[3:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


@pytest.fixture
def two_layers(workplace):
    """``model/`` has two layers, for what one layer cannot show."""
    return saved(workplace / "model", 2)
