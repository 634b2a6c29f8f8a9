"""The rows that the contract runs: every method, and the parameters that take it down another path."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from unittest import mock

import tiny

from expunge import methods  # noqa: F401  fills the table
from expunge.method import build, entries
from expunge.training.levels import StopAtModelLevel

# Where a default would hide a path: a budget for KL, a dual step that moves within three optimizer steps.
STEER = {"layer": 0, "steering_coefficient": 20.0, "trainable": "."}  # the tiny model has two layers
PARAMETERS: dict[str, dict] = {
    "pdu": {"budget": 3.0, "warmup": 0.0, "multiplier": 2.0},
    "constrained": {"budget": 3.0},
    "pdu_level": {"budget": 3.0, "multiplier_warmup": 0},
    "task_vector": {"scale": 0.5},
    "rmu": STEER | {"retain_weight": 3.0},
    "blur_rmu": STEER | {"gamma": 0.5},
}
ROWS = [(name, PARAMETERS.get(name, {})) for name in entries() if name != "torchjd" or find_spec("torchjd")] + [
    ("npo", {"retain": "kl"}),
    ("level", {"forget": "divergence"}),
    ("level", {"forget": "wga"}),
    ("blur_level", {"forget": "npo"}),
    ("pdu_level", {"forget": "margin", "retain": "kl", "budget": 0.1, "multiplier_warmup": 0}),
    ("level", {"forget": "gradient_ascent", "retain": "js"}),
    ("blur_npo", {"retain": "kl", "one_sided": True}),
    ("pdu", {"budget": 0.1, "retain": "kl", "warmup": 0.0, "multiplier": 2.0}),
    ("undial", {"retain": "js"}),
    ("ce_u", {"ignore_first": 0, "retain": "nll"}),
    ("flat", {"divergence": "jensen_shannon", "retain": "kl"}),
    ("constrained", {"forget": "wga", "budget": 0.001, "retain": "js"}),
    ("blur", {"forget": "flat"}),
    ("pcgrad", {"forget": "gradient_ascent"}),
    ("mgda", {"forget": "idk_dpo"}),
    ("ngdiff", {"forget": "jensun"}),
]
IDS = [name + ("+" + "+".join(f"{k}={v}" for k, v in p.items()) if p else "") for name, p in ROWS]
LR = 0.05


def path(name, parameters):
    """What of a method the trainer treats in a way of its own, beside its losses, which every row goes through."""
    m = build(name, parameters)
    references = {o.reference if isinstance(o.reference, str) else type(o.reference) for o in m.objectives.values()}
    return type(m.combine), type(m.optimizer), bool(m.negate), m.trainable is None, references


_PATHS = [path(*row) for row in ROWS]
FIRST_OF_PATH = [row for k, row in enumerate(ROWS) if _PATHS.index(_PATHS[k]) == k]


@functools.cache
def three_steps(k):
    """The trainer of row ``k`` after three steps of 4 rows: several tests read it, none writes."""
    return trained(*ROWS[k])


def trained(name, parameters, *, model=None, data=None, **kw):
    """All steps, also of a method that might end before."""
    t = tiny.trainer(build(name, parameters), m=model, data=data, **({"learning_rate": LR} | kw))
    with mock.patch.multiple(StopAtModelLevel, good=False, _move_back=lambda self, after: None):
        t.train()
    return t
