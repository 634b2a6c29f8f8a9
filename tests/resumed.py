"""Runs of every kind that resuming must not change, and whether two of them are the same to the bit."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file

from expunge import methods, record, unlearn

FAST = {
    "learning_rate": 0.02,
    "disable_tqdm": True,
    "use_cpu": True,
    "per_device_train_batch_size": 1,
    "fluency_rows": 0,
}
# Full weights in epochs of two steps, the second a short one; LoRA with dropout and λ; Sophia on some of the weights, whose
# alternates the model makes up; stopped by a holdout set; by a utility guard, which goes back.
WAYS = {
    "whole": {"fluency_rows": 3, "num_train_epochs": 3, "gradient_accumulation_steps": 2},
    "lora": {
        "method": methods.pdu(multiplier=2.0, warmup=0.0, step_size=0.1),
        "adapter": "lora",
        "lora": {"r": 2, "alpha": 4, "dropout": 0.3},
        "max_steps": 5,
        "fluency_rows": 3,
    },
    "sophia": {"method": "altpo", "optimizer": "sophia", "trainable": "mlp", "max_steps": 5},
    "holdout": {"method": "blur_margin", "holdout": "holdout.jsonl", "max_steps": 40, "learning_rate": 0.01},
    "keep": {"method": "gradient_ascent", "keep": 0.7, "keep_every": 2, "max_steps": 40, "learning_rate": 0.003},
}


def go(model="model", **kw):
    return unlearn(model, **({"forget": "forget.jsonl", "retain": "retain.jsonl", "method": "npo"} | FAST | kw))


def weights(folder):
    return load_file(next(Path(folder, "model").glob("*.safetensors")))


def assert_same(again, whole, but=()):
    """Two runs left the same weights and records; ``but``: words of warnings that only ``again`` may have."""
    a, b = weights(again), weights(whole)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    logs = [record.read(place) for place in (again, whole)]
    steps = [[step | {"seconds": 0} for step in log["steps"]] for log in logs]
    assert steps[0] == steps[1] and len(steps[0]) > 1
    logs[0]["warnings"] = [w for w in logs[0]["warnings"] if not any(words in w for words in but)]
    for key in ("before", "after", "tokens", "warnings", "training"):
        assert logs[0][key] == logs[1][key], key
    for key in ("stopped", "keep", "budget"):
        assert logs[0].get(key) == logs[1].get(key), key


@contextmanager
def default_handlers() -> Iterator[None]:
    """With Python's own handlers of signals, which a shell's background job and ``nohup`` ignore."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
