"""The evaluation's baseline gives the library's figures: two ways to TOFU's numbers that share nothing but the tokens."""

from __future__ import annotations

import json
import sys

import pytest
import tiny
import tiny_tofu
from intervals import few_resamples
from perf import evaluation, naive_evaluation

from expunge.benchmarks import tofu
from expunge.evaluation.probe import Ask


@pytest.fixture
def models(workplace, tokenizer, monkeypatch):
    few_resamples(monkeypatch.setattr)
    monkeypatch.setattr(tofu, "ANSWER", Ask(16))
    monkeypatch.setattr(naive_evaluation, "NEW", 16)
    tiny.model(1, vocab_size=len(tokenizer), num_hidden_layers=1).save_pretrained("retrained")
    tokenizer.save_pretrained("retrained")
    tiny_tofu.write(workplace / "tofu")
    return workplace


def run(monkeypatch, *extra: str):
    given = ["--model", "model", "--retrained", "retrained", "--data", "tofu", *extra]
    monkeypatch.setattr(sys, "argv", ["evaluation", *given])
    evaluation.main()


def test_both_agree_on_every_figure(models, monkeypatch, capsys):
    run(monkeypatch, "--batch", "3", "--out", "record.json")
    record = json.loads((models / "record.json").read_text())
    names = {name for _, name, *_ in record["figures"]}
    assert len(record["figures"]) == 34 and record["largest_difference"] < 1e-4
    assert {"model_utility", "forget_quality", "privleak", "extraction_strength", "rouge_1_recall"} <= names
    assert {f"mia_{s}_auc" for s in ("loss", "zlib", "min_k", "min_k_plus_plus", "grad_norm", "reference")} <= names
    assert "ratio" in capsys.readouterr().out


def test_a_difference_fails_the_run(models, monkeypatch):
    monkeypatch.setattr(evaluation, "CLOSE", -1.0)
    with pytest.raises(SystemExit, match="the figures differ"):
        run(monkeypatch, "--limit", "3")
