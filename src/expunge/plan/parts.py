r"""Bytes of a run, part by part, a process: pure arithmetic on a model's sizes, a set-up and the traced passes.

With W the weights (frozen, and those that train, in float32), G one gradient of what trains, O the optimizer's state, R the
reference, C what the processes exchange, and A_k the activations, logits and temporaries of objective k's passes:

.. math:: \text{step} = W + O + R + C + \max\bigl(\max_k (b_k G + A_k),\; m G\bigr)

m gradients are held at a step's end: 1, or one an objective where a combiner reads their Gramian; b_k of them exist when
the passes of objective k begin.  On a CPU the copy of the last good weights lies in the same memory, and so does, under a
method that ends at a level, a second one: the weights of the last test.  The model that gives the level is there before the
first step only, taken to be as large as the one that trains.  Under FSDP2 the first three and G are divided by the number
of processes, and C is what is gathered: two decoder layers and all that is in none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from expunge.combine import complete
from expunge.data.example import Example
from expunge.forward.view import IGNORE
from expunge.method import Activations, Method
from expunge.plan import optimizers
from expunge.plan.model import Shape
from expunge.plan.setup import Setup
from expunge.plan.step import CURVATURE
from expunge.plan.trace import Passes
from expunge.training.reference import layer_read, reading

BYTES_A_STEP, TIMES = 1 << 28, 10  # of the copies of good weights, see expunge.training.finite
FLOAT32, HALF = 4, 2


@dataclass(frozen=True)
class Reference:
    """In which form the frozen target is there: ``none``, ``cached``, ``adapter off`` or ``copy``; bytes on the ``device``
    and in ``main`` memory.
    """

    form: str = "none"
    device: float = 0.0
    main: float = 0.0


@dataclass(frozen=True)
class Memory:
    """Bytes a process; ``peak`` is the most on the device, in the ``phase`` of that name, ``main`` that in main memory
    beside it (0 where they are the same).
    """

    frozen_weights: float
    trained_weights: float
    gradients: float
    gradient_buffers: int
    optimizer_state: float
    reference: Reference
    exchange: float
    passes: Mapping[str, float]
    good_copy: float
    phases: Mapping[str, float]
    main: float

    @property
    def phase(self) -> str:
        """When most memory is taken."""
        return max(self.phases, key=lambda name: self.phases[name])

    @property
    def peak(self) -> float:
        """The most memory of the device."""
        return self.phases[self.phase]

    @property
    def described(self) -> dict[str, Any]:
        """All of it, in whole bytes, for a record."""
        found = asdict(self) | {"peak": self.peak}
        whole: dict[str, Any] = _whole(found)
        return whole | {"phase": self.phase}


def _whole(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _whole(each) for key, each in value.items()}
    return round(value) if isinstance(value, float) else value


def memory(
    shape: Shape, method: Method, data: Mapping[str, Sequence[Example]], how: Setup, passes: Mapping[str, Passes]
) -> Memory:
    """The memory of a process; ``passes`` as :func:`expunge.plan.step.traced` gives them."""
    share = how.processes if how.sharded else 1
    frozen, trained = shape.frozen / share, shape.trained / share
    gradient = trained
    gram = bool(getattr(complete(method.combine), "needs_gram", False))
    buffers = len(method.objectives) if gram else 1
    state = shape.trained_parameters * optimizers.state_of(how.optimizer).bytes / share
    ref = reference(shape, method, data, how)
    exchange = exchanged(shape, how)
    good = good_copy(trained, how) + (trained if method.reads_level else 0.0)
    held = frozen + trained + ref.device + (good + ref.main if not how.gpu else 0.0)
    extra = dequantised(shape, how)
    during = [
        _before(i, how.accumulation, gram=gram, m=len(method.objectives)) * gradient + passes[name].most + extra
        for i, name in enumerate(method.objectives)
    ]
    at_estimate, at_update = optimizers.curvature_buffers(how.curvature)
    if how.curvature:
        most = max(p.most for p in passes.values())
        during.append((buffers + at_estimate) * gradient + passes.get(CURVATURE, Passes(most, most)).most)
    step = held + state + exchange + max(*during, buffers * gradient)
    temporary = optimizers.temporary(how.optimizer, trained, shape.largest_trained / share, gpu=how.gpu)
    update = held + state + (exchange if not how.sharded else 0) + gradient + max(temporary, at_update * gradient)
    phases = {"loading": 0.0 if how.sharded else shape.loaded, "step": step, "optimizer step": update}
    if not how.gpu:
        phases["check of the saved weights"] = frozen + trained + state + good + ref.main + shape.loaded
    if method.reads_level:
        phases["reading the level"] = frozen + trained + shape.loaded
    main = 0.0
    if how.gpu:
        main = good + ref.main + (shape.loaded if how.sharded else 0.0)
    return Memory(
        frozen_weights=frozen,
        trained_weights=trained,
        gradients=gradient * buffers,
        gradient_buffers=buffers,
        optimizer_state=state,
        reference=ref,
        exchange=exchange,
        passes={name: p.most + extra for name, p in passes.items()},
        good_copy=good,
        phases=phases,
        main=main,
    )


def _before(k: int, accumulation: int, *, gram: bool, m: int) -> int:
    """How many gradients are held at most when the passes of objective ``k`` begin.

    >>> [_before(k, 1, gram=True, m=2) for k in (0, 1)], [_before(k, 1, gram=False, m=2) for k in (0, 1)]
    ([0, 1], [0, 1])
    >>> _before(0, 4, gram=True, m=2), _before(0, 4, gram=False, m=1)
    (2, 1)
    """
    if accumulation > 1:
        return m if gram else 1
    return k if gram else min(k, 1)


def reference(shape: Shape, method: Method, data: Mapping[str, Sequence[Example]], how: Setup) -> Reference:
    """The form that :func:`expunge.training.reference.build` chooses, and what it takes."""
    whole = shape.frozen + shape.trained
    objectives = method.objectives
    device = main = 0.0
    form = "none"
    for streams, numbers in ((reading(objectives, "token_logp"), 1), (reading(objectives, "level"), 2)):
        if streams:
            form, main = "cached", main + numbers * FLOAT32 * _labelled(data, streams)
    what = layer_read(objectives)
    for kind, tokens in (
        (what, _real(data, reading(objectives, what)) if what else 0.0),
        ("logits", _labelled(data, reading(objectives, "logits"))),
    ):
        if not tokens:
            continue
        each = FLOAT32 * shape.width if isinstance(kind, Activations) else shape.hidden
        if tokens * shape.hidden < whole:
            form, main = "cached", main + tokens * each
            device += shape.head if kind == "logits" else 0.0
        elif shape.adapter:
            form = "adapter off"
        else:
            part = (kind.layer + 1) / shape.layers if isinstance(kind, Activations) else 1.0
            form, device = "copy", device + whole * part / (how.processes if how.sharded else 1)
    return Reference(form, device, main)


def _labelled(data: Mapping[str, Sequence[Example]], streams: Sequence[str]) -> float:
    return float(sum(sum(y != IGNORE for y in e.labels[1:]) for s in streams for e in data[s]))


def _real(data: Mapping[str, Sequence[Example]], streams: Sequence[str]) -> float:
    return float(sum(len(e.input_ids) for s in streams for e in data[s]))


def exchanged(shape: Shape, how: Setup) -> float:
    """What the processes exchange: DDP's buckets, as large as a gradient; under FSDP2 what is gathered of the weights (two
    layers, the next one beside the one that runs, and all that is in none) and the gradients of one.
    """
    if how.processes == 1:
        return 0.0
    if not how.sharded:
        return shape.trained
    each = HALF if how.autocast else FLOAT32
    return each * (2 * shape.unit + shape.root + shape.unit_trained + shape.root_trained)


def good_copy(trained: float, how: Setup) -> float:
    """The copy of the last good weights, see :mod:`expunge.training.finite`: none in a run of one step."""
    period = max(1, min(-(-int(trained) // BYTES_A_STEP), how.steps // TIMES))
    return trained if how.steps > period else 0.0


def dequantised(shape: Shape, how: Setup) -> float:
    """The largest quantised matrix in the format that it is multiplied in."""
    return float(HALF * shape.largest_frozen) if how.quantize else 0.0
