"""A release on a tiny model, and what tests read of it."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM

from expunge.release import Measurement, release

LORA = {"r": 2, "target_modules": ["q_proj", "up_proj", "down_proj"]}
FAST = {"max_steps": 3, "learning_rate": 0.02, "disable_tqdm": True, "use_cpu": True, "steps": 2, "lora": LORA}
BIG = {"utility_budget": None}


def go(model="model", **kw):
    return release(model, **({"forget": "forget.jsonl", "retain": "retain.jsonl"} | FAST | BIG | kw))


def logits(model):
    with torch.no_grad():
        return model.eval()(torch.tensor([[5, 6, 7, 20, 31]])).logits


def plain(name="model"):
    return AutoModelForCausalLM.from_pretrained(name)


def figures(log, part="forget", name="nll"):
    return [s["figures"][part][name] for s in log["release"]["trajectory"]]


def watched(values, better="lower"):
    """A look that says ``values`` one after the other, whatever the model."""
    remaining = iter(values)
    return Measurement(
        lambda _: {"f": {"x": 1.0}, "u": {"y": next(remaining)}}, forget=("f", "x"), utility=("u", "y"), better=better
    )
