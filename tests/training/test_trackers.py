"""Trackers: every step's figures, the combiner's too, reach them, and their files lie in the run's folder."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from expunge import unlearn
from expunge.training import trackers


class Board(TrainerCallback):
    """In the place of TensorBoard's callback, which reads the environment when it is made."""

    def __init__(self):
        self.place = os.environ["TENSORBOARD_LOGGING_DIR"]
        self.logs = []
        Board.last = self

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append(integration_utils.rewrite_logs(logs))


@pytest.fixture
def board(monkeypatch):
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "tensorboard", Board)
    monkeypatch.setattr("transformers.integrations.is_tensorboard_available", lambda: True)
    return Board


def test_every_steps_figures_reach_a_tracker_and_its_files_lie_in_the_runs_folder(workplace, board):
    quick = {"max_steps": 2, "use_cpu": True, "disable_tqdm": True, "fluency_rows": 0}
    sets = {"forget": "forget.jsonl", "retain": "retain.jsonl"}
    unlearn("model", **sets, **quick, method="pdu", report_to="tensorboard", out="out")
    assert board.last.place == str(workplace / "out" / "logs" / "tensorboard")
    wanted = {
        "train/loss/forget",
        "train/loss/retain",
        "train/weight/retain",
        "train/multiplier",
        "train/learning_rate",
    }
    steps = [line for line in board.last.logs if "train/loss" in line]
    assert len(steps) == 2 and all(wanted <= set(line) for line in steps)
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ


def test_where_the_user_says_that_they_go_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_DIR", "/mine")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with trackers.writing_into(tmp_path, SimpleNamespace(report_to=["wandb", "mlflow"])):
        assert os.environ["WANDB_DIR"] == "/mine"
        assert os.environ["MLFLOW_TRACKING_URI"] == f"file://{tmp_path}/logs/mlruns"
    assert os.environ["WANDB_DIR"] == "/mine" and "MLFLOW_TRACKING_URI" not in os.environ
    with trackers.writing_into(tmp_path, SimpleNamespace(report_to=[])):
        assert "MLFLOW_TRACKING_URI" not in os.environ
    assert list(tmp_path.iterdir()) == []
