"""Trackers that ``report_to`` names (W&B, trackio, TensorBoard, MLflow, …): their files lie in the run's folder.

They are transformers' own callbacks, and get every log line: the objectives' losses and weights, the multiplier, the
gradients' norms and cosine.  Where their files go they read from the environment; what the user set there stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FOLDER = "logs"
# Tracker -> the variable that says where its files go, and the place inside of FOLDER.
PLACES = {
    "tensorboard": {"TENSORBOARD_LOGGING_DIR": "tensorboard"},
    "wandb": {"WANDB_DIR": "", "WANDB_CACHE_DIR": "wandb-cache", "WANDB_DATA_DIR": "wandb-data"},
    "trackio": {"TRACKIO_DIR": "trackio"},
    "mlflow": {"MLFLOW_TRACKING_URI": "mlruns"},
    "swanlab": {"SWANLAB_LOG_DIR": "swanlab"},
    "comet_ml": {"COMET_OFFLINE_DIRECTORY": "comet"},
    "codecarbon": {"CODECARBON_OUTPUT_DIR": "codecarbon"},
}


def environment(names: list[str], folder: Path) -> dict[str, str]:
    """The variables for the trackers ``names`` of a run in ``folder``; all of them for ``all``.

    >>> environment(["mlflow", "tensorboard"], Path("/out"))
    {'TENSORBOARD_LOGGING_DIR': '/out/logs/tensorboard', 'MLFLOW_TRACKING_URI': 'file:///out/logs/mlruns'}
    """
    place = folder.absolute() / FOLDER
    wanted = {k: v for name, of in PLACES.items() if name in names or "all" in names for k, v in of.items()}
    return {k: (place / v).as_uri() if k.endswith("_URI") else str(place / v) for k, v in wanted.items()}


def home(output_dir: str) -> Path:
    """The run's folder, whose checkpoints or those of one of its parts lie in ``output_dir``.

    >>> home("/out/checkpoints").as_posix(), home("/out/checkpoints/01-forget").as_posix(), home("/own").as_posix()
    ('/out', '/out', '/own')
    """
    place = Path(output_dir)
    return next((p.parent for p in (place, *place.parents) if p.name == "checkpoints"), place)


@contextmanager
def writing_into(folder: Path, args: Any) -> Iterator[None]:
    """While open, the trackers of ``args`` write into ``folder``/logs."""
    made = {k: v for k, v in environment(list(args.report_to or []), folder).items() if not os.environ.get(k)}
    if "WANDB_DIR" in made:
        Path(made["WANDB_DIR"]).mkdir(parents=True, exist_ok=True)  # else W&B takes a temporary folder
    os.environ.update(made)
    try:
        yield
    finally:
        for name in made:
            os.environ.pop(name, None)
