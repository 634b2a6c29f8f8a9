"""A comparison of two methods on a tiny TOFU, as a recipe and as a command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from expunge import record
from expunge.cli import app
from expunge.evaluation.collect import cached as asking

RECIPE = """
benchmark = "tofu/forget01"
model = "model"
retrained = "retrained"
data = "tofu"
out = "out"
limit = 3
seeds = [0]
fluency_rows = 0
[training]
max_steps = 2
per_device_train_batch_size = 2
learning_rate = 0.02
use_cpu = true
disable_tqdm = true
[methods.pdu]
[methods.npo_low]
method = "npo"
beta = 0.05
training.learning_rate = 0.01
"""


def call(*args):
    return CliRunner().invoke(app, ["compare", "r.toml", *map(str, args)])


def one_run():
    """Run the command; ``cache/asked.json`` says which models were asked, in order."""
    asked, own = [], asking.collected

    def counted(name, probes, how):
        asked.extend([name] * any(p.ask for p in probes))  # what judges an answer writes none
        return own(name, probes, how)

    with pytest.MonkeyPatch.context() as m:
        m.setattr(asking, "collected", counted)
        done = call()
    assert done.exit_code == 0, (done.output[-900:], done.exception)
    Path("cache/asked.json").write_text(json.dumps(asked))


def said(out="out"):
    return record.read(f"{out}/compare.json")
