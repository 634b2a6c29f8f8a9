"""A tiny TOFU to bench and compare on, in which one word must never be shown; one finished run serves many tests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from intervals import few_resamples
from launch import once

from expunge.benchmarks import tofu
from expunge.evaluation.probe import Ask

SECRET = "zanzibar"
WORDS = ["yes", "no", "never", "red", "blue", "green", "one", "two", "three", "four"]


def rows(kind: str, n: int, paraphrase: bool = True, secret: str = ""):
    out = []
    for i in range(n):
        a, b, c = (WORDS[(i + k + len(kind)) % len(WORDS)] for k in (0, 3, 5))
        row = {"question": f"{kind} {i}?", "answer": f"{a} {b}{secret}", "perturbed_answer": [f"{b} {c}", f"{c} {a}"]}
        out.append(row | ({"paraphrased_answer": f"{b} {a} so"} if paraphrase else {}))
    return out


def prepare(workplace: Path, tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """``tofu/`` with all of a benchmark's files and ``retrained``; a cache of its own; short answers, few resamples."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(workplace / "cache"))
    few_resamples(monkeypatch.setattr)
    monkeypatch.setattr(tofu, "ANSWER", Ask(8))
    forget = rows("forget", 4, secret=f" {SECRET}")
    files = {
        "forget01": forget,
        "retain99": rows("keep", 5),
        "forget01_perturbed": forget,
        "holdout01": rows("holdout", 4, secret=f" {SECRET}"),
        "retain_perturbed": rows("retain", 5),
        "real_authors_perturbed": rows("author", 3, paraphrase=False),
        "world_facts_perturbed": rows("fact", 3, paraphrase=False),
    }
    (workplace / "tofu").mkdir()
    for name, content in files.items():
        (workplace / "tofu" / f"{name}.json").write_text("\n".join(map(json.dumps, content)))
    tiny.model(1, vocab_size=len(tokenizer), num_hidden_layers=1).save_pretrained("retrained")
    tokenizer.save_pretrained("retrained")


def copied(factory: pytest.TempPathFactory, name: str, place: Path, run: Callable[[], None], *folders: str) -> None:
    """Put into ``place`` the ``folders`` that ``run`` leaves in it, from the session's first test that needed them."""

    def make(shared: Path) -> None:
        run()
        for folder in ("out", "cache"):
            shutil.copytree(place / folder, shared / folder)
            shutil.rmtree(place / folder)

    shared = once(factory, name, make)
    for folder in folders:
        shutil.copytree(shared / folder, place / folder)
