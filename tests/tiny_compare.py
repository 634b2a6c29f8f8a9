"""A comparison of two methods on a tiny TOFU, as a recipe and as a command."""

from __future__ import annotations

from typer.testing import CliRunner

from expunge import record
from expunge.cli import app

RECIPE = """
benchmark = "tofu/forget01"
model = "model"
retrained = "retrained"
data = "tofu"
out = "out"
limit = 3
seeds = [0]
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
    done = call()
    assert done.exit_code == 0, (done.output[-900:], done.exception)


def said(out="out"):
    return record.read(f"{out}/compare.json")
