"""``expunge.trainer.UnlearningTrainer``, a public name; the trainer is :mod:`expunge.training.trainer`."""

from expunge.training.trainer import UnlearningTrainer

__all__ = ["UnlearningTrainer"]
