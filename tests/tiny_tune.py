"""A tuning of two methods on a tiny model, beside another that never saw the rows."""

from __future__ import annotations

from pathlib import Path

import tiny
import torch
from typer.testing import CliRunner

from expunge import record, tune
from expunge.cli import app

SETTINGS = {
    "model": "model",
    "forget": "forget.jsonl",
    "retain": "retain.jsonl",
    "compare_with": "other",
    "methods": {"npo": {"forget_weight": 1.0}, "grad_diff": {}},
    "search": {"lr": "1e-3:1e-1:log", "grad_diff.retain_weight": "0.5,1,2", "grad_diff.forget_weight": "1"},
    "trials": 2,
    "fluency_rows": 0,
    "out": "out",
    "training": {"max_steps": 3, "per_device_train_batch_size": 2, "use_cpu": True, "disable_tqdm": True},
}


def other_model(tokenizer) -> None:
    """``other/``: a model under which every text is less likely than under ``model/``."""
    less = tiny.model(1, vocab_size=len(tokenizer), num_hidden_layers=1)
    with torch.no_grad():
        less.lm_head.weight.mul_(20)
    less.save_pretrained("other")
    tokenizer.save_pretrained("other")


def settings(**changes) -> tune.Tune:
    return tune.make({**SETTINGS, **changes})


def call(*args):
    return CliRunner().invoke(app, ["tune", *map(str, args)])


def said(out="out"):
    return record.read(Path(out) / "tune.json")
