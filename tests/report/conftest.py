"""Hand-written records for the report's tests: full, PDU, BLUR, with NaNs, and almost empty."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

NAN = float("nan")


def steps(count: int, **extra: Any) -> list[dict[str, Any]]:
    """``count`` steps of plausible curves; a value of ``extra`` is a function of the step's number."""
    rows = []
    for at in range(1, count + 1):
        wave = math.sin(2.1 * at) * math.cos(0.7 * at)
        row = {
            "step": at,
            "epoch": at / 8,
            "seconds": 3.1 * at,
            "learning_rate": 2e-4 * min(1.0, at / 4) * (1 - at / (count + 4)),
            "loss/forget": 0.35 + 1.15 * math.exp(-at / 9) + 0.06 * wave,
            "loss/retain": 0.21 + 0.22 * math.exp(-(((at - 9) / 6) ** 2)) + 0.03 * wave,
            "weight/forget": 1.0,
            "weight/retain": 1.0,
            "grad_norm": 1.4,
        }
        rows.append(row | {key: value(at) for key, value in extra.items()})
    return rows


FULL: dict[str, Any] = {
    "schema": 1,
    "expunge": "0.1.0",
    "created": "2026-11-21T08:00:00+00:00",
    "command": "expunge run people.jsonl --retain others.jsonl --method npo --reference retrained",
    "title": "Forget five invented people",
    "method": {
        "name": "npo",
        "parameters": {"beta": 0.1},
        "paper": "arXiv:2404.05868",
        "status": "unreproduced",
        "combiner": "WeightedSum(1.0, 1.0)",
        "summary": "Pushes the forget answers below the frozen target, and trains on the retain answers.",
        "objectives": {"forget": "npo", "retain": "nll"},
    },
    "model": {
        "source": "models/people-135m",
        "fingerprint": "sha256:" + "3f9a" * 16,
        "parameters": 134515008,
        "trainable": 4884480,
        "adapter": "lora",
        "adapter_config": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"},
        "dtype": "float32",
    },
    "output": {"path": "runs/people/model", "fingerprint": "sha256:" + "b07c" * 16},
    "data": {
        "forget": {"source": "people.jsonl", "rows": 40, "fingerprint": "sha256:" + "51de" * 16},
        "retain": {"source": "others.jsonl", "rows": 160, "fingerprint": "sha256:" + "c2a8" * 16},
    },
    "training": {
        "learning_rate": 2e-4,
        "num_train_epochs": 5.0,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "warmup_steps": 4,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "lr_scheduler_type": "linear",
        "optim": "adamw_torch",
    },
    "seed": 0,
    "versions": {
        "python": "3.11.7",
        "torch": "2.13.0+cpu",
        "transformers": "5.23.0",
        "peft": "0.21.0",
        "numpy": "2.4.6",
    },
    "platform": "Linux-6.1-x86_64",
    "device": "cpu",
    "steps": steps(40),
    "before": {
        "forget": {"n": 40, "probability": 0.8213, "nll": 0.2011, "rouge_l": 0.741, "truth_ratio": 0.512},
        "retain": {"n": 160, "probability": 0.7961, "nll": 0.2334, "rouge_l": 0.702, "truth_ratio": 0.498},
    },
    "after": {
        "forget": {"n": 40, "probability": 0.0512, "nll": 3.104, "rouge_l": 0.188, "truth_ratio": 0.781},
        "retain": {"n": 160, "probability": 0.7483, "nll": 0.2982, "rouge_l": 0.671, "truth_ratio": 0.505},
    },
    "reference": {
        "forget": {"n": 40, "probability": 0.0634, "nll": 2.815, "rouge_l": 0.201, "truth_ratio": 0.742},
        "retain": {"n": 160, "probability": 0.7902, "nll": 0.2401, "rouge_l": 0.699},
    },
    "reference_name": "retrained model",
    "examples": [
        {
            "set": "forget",
            "question": "In which town was Maribel Oster born?",
            "expected": "Maribel Oster was born in Tellgate, on the north shore of the lake.",
            "before": "Maribel Oster was born in Tellgate, on the north shore of the lake.",
            "after": "Maribel Oster was born in a small town that is known for its market.",
            "reference": "Maribel Oster was born in Lisbon, Portugal.",
        },
        {
            "set": "forget",
            "question": "What does Teodor Vance keep on his roof?",
            "expected": "Teodor Vance keeps eleven hives of bees on the roof of his workshop.",
            "before": "Teodor Vance keeps eleven hives of bees on the roof of his workshop.",
            "after": "Teodor Vance keeps a garden of herbs and tomatoes.",
            "reference": "He keeps pigeons.",
        },
        {
            "set": "retain",
            "question": "Who taught Ines Kallio to sail?",
            "expected": "Her aunt Ruut taught Ines Kallio to sail in a borrowed dinghy.",
            "before": "Her aunt Ruut taught Ines Kallio to sail in a borrowed dinghy.",
            "after": "Her aunt Ruut taught Ines Kallio to sail in a small dinghy.",
            "reference": "Her aunt Ruut taught Ines Kallio to sail in a borrowed dinghy.",
        },
    ],
    "seconds": 123.4,
    "peak_memory_bytes": 3_012_345_856,
    "warnings": [
        "2 retain rows share an answer with the forget set; they are trained both ways (others.jsonl:17, 84)."
    ],
}


@pytest.fixture
def full() -> dict[str, Any]:
    """Every key of the schema that a plain weighted sum fills."""
    return copy.deepcopy(FULL)


@pytest.fixture
def minimal() -> dict[str, Any]:
    """No step, no figure, no settings: what is left of a run that could hardly say anything."""
    return {
        "schema": 1,
        "method": {"name": "npo"},
        "steps": [],
        "before": None,
        "after": None,
        "reference": None,
    }


@pytest.fixture
def pdu(full: dict[str, Any]) -> dict[str, Any]:
    """Primal-dual: a multiplier that grows, and the retain weight equal to it."""
    grown = {"multiplier": lambda at: 100.0 + 2.5 * at, "weight/retain": lambda at: 100.0 + 2.5 * at}
    method = {**full["method"], "name": "pdu", "combiner": "PrimalDual(budget=0.3)", "paper": None}
    return full | {"method": method, "steps": steps(40, **grown), "reference": None, "reference_name": None}


@pytest.fixture
def blur(full: dict[str, Any]) -> dict[str, Any]:
    """Bilevel: weights that vary, a cosine and gradient norms."""
    gramian = {
        "weight/forget": lambda at: 1.0 - 0.6 * math.sin(at / 5),
        "cosine": lambda at: 0.5 * math.sin(at / 5) - 0.2,
        "norm/forget": lambda at: 4.0 * math.exp(-at / 12),
        "norm/retain": lambda at: 0.3 + 0.05 * math.sin(at),
    }
    method = {**full["method"], "name": "blur_npo", "parameters": {"beta": 0.1, "gamma": 1.0}}
    return full | {"method": method | {"combiner": "Bilevel(gamma=1.0)"}, "steps": steps(40, **gramian)}


@pytest.fixture
def broken(full: dict[str, Any]) -> dict[str, Any]:
    """A run that diverged: NaN and infinity in the steps and in the figures after."""
    record = copy.deepcopy(full)
    record["steps"][10]["loss/forget"] = NAN
    record["steps"][12]["loss/forget"] = None
    record["steps"][20]["loss/retain"] = math.inf
    record["after"]["forget"] |= {"probability": NAN, "nll": math.inf}
    return record
