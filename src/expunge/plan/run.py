"""A run's plan as a value: the model's numbers, memory by part, steps, time, what fits, and the command that would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from expunge import processes
from expunge.data.example import Example
from expunge.errors import InputError
from expunge.method import Method
from expunge.models.tokenizer import load_tokenizer
from expunge.plan import advice, machine, model, parts, setup, step, work
from expunge.plan.settings import Plan
from expunge.plan.trace import Passes
from expunge.unlearning.ready import method_of
from expunge.unlearning.rows import encode, load_streams
from expunge.unlearning.settings import Recipe

Data = Mapping[str, Sequence[Example]]


@dataclass(frozen=True)
class Estimate:
    """A run as it is planned: its set-up, the model on ``meta``, its sizes, and the memory of a process."""

    setup: setup.Setup
    net: Any
    method: Method
    shape: model.Shape
    passes: Mapping[str, Passes]
    memory: parts.Memory


@dataclass(frozen=True)
class Estimator:
    """Estimates runs on the same ``data``; what was built and traced for one is there for the next."""

    data: Data
    gpu: bool
    built: dict[Any, tuple[Any, Method, int]] = field(default_factory=dict)
    traced: dict[Any, dict[str, Passes]] = field(default_factory=dict)

    def __call__(self, settings: Recipe, *, passes: bool = True) -> Estimate:
        """The estimate of ``settings``; without ``passes`` it leaves the activations out."""
        chosen = self._setup(settings)
        key = (settings.adapter, settings.loaded, chosen.quantize)
        if key not in self.built:
            self.built[key] = model.prepared(settings, method_of(settings))
        net, method, loaded = self.built[key]
        shape = model.shape_of(net, loaded, chosen.quantize)
        found = self._passes(key, net, method, chosen) if passes else {}
        found = found or {name: Passes(0, 0) for name in method.objectives}
        return Estimate(chosen, net, method, shape, found, parts.memory(shape, method, self.data, chosen, found))

    def _setup(self, settings: Recipe) -> setup.Setup:
        rows, count = len(self.data["forget"]), settings.processes or processes.count()
        return setup.setup(settings, method_of(settings), rows, gpu=self.gpu, processes=count)

    def _passes(self, key: Any, net: Any, method: Method, chosen: setup.Setup) -> dict[str, Passes]:
        key = (*key, chosen.rows, chosen.checkpointing, chosen.autocast, chosen.sharded)
        if key not in self.traced:
            self.traced[key] = step.traced(net, method, self.data, chosen)
        return self.traced[key]


def plan(settings: Recipe, how: Plan, *, typed: Sequence[str] = (), data: Data | None = None) -> dict[str, Any]:
    """What ``expunge run`` of ``settings`` would take; nothing is loaded or written, unless ``how`` asks for a probe.

    ``typed``: the command's words, for the command that would fit; ``data``: the rows as tokens, where they are known.
    Raises InputError for what a person has to mend.
    """
    found = examples(settings, how, method_of(settings)) if data is None else data
    estimator = Estimator(found, setup.on_gpu(settings, how.memory))
    made, place, fits = verdict(settings, how, estimator)
    known = {
        "model": settings.model,
        "method": made.method.name,
        "parameters": {"all": made.shape.parameters, "trained": made.shape.trained_parameters},
        "rows": described_rows(found),
        "setup": asdict(made.setup) | {"step_rows": made.setup.step_rows},
        "steps": made.setup.steps,
        "operations": operations(made, found),
        "seconds_a_step": None,
        "memory": made.memory.described,
        "traced": all(p.traced for p in made.passes.values()),
        "machine": asdict(place),
        "fits": fits,
    }
    if how.rate:
        known["least_seconds_a_step"] = operations(made, found) / (how.rate * 1e12)
    if how.probe:
        from expunge.plan.probe import probe

        measured = probe(settings)
        known |= {"seconds_a_step": measured["seconds_a_step"], "measured": measured}
    return known | {"would_fit": None if fits else would_fit(settings, estimator, made, place, typed)}


def verdict(settings: Recipe, how: Plan, estimator: Estimator | None = None) -> tuple[Estimate, machine.Machine, bool]:
    """The estimate of a run, the machine that it is planned for, and whether it fits there."""
    gpu = setup.on_gpu(settings, how.memory)
    estimator = estimator or Estimator(examples(settings, how, method_of(settings)), gpu)
    place = machine.this_one(gpu=gpu) if how.memory is None else machine.stated(how.memory)
    made = estimator(settings)
    return made, place, machine.fits(made.memory, place, made.setup.processes, gpu=gpu)


def examples(settings: Recipe, how: Plan, method: Method) -> Data:
    """The rows of each stream as tokens, or rows of a stated length; those that the model would make up stand for their
    forget rows.
    """
    if isinstance(settings.forget, list) and not settings.forget:
        if how.row_tokens is None or how.answer_tokens is None:
            raise InputError("the plan needs the rows: give --forget and --retain, or --row-tokens and --answer-tokens")
        if how.answer_tokens >= how.row_tokens:
            raise InputError(f"a row of {how.row_tokens} tokens has at most {how.row_tokens - 1} labelled ones")
        return setup.stated(method.streams, how.rows, how.row_tokens, how.answer_tokens)
    raw = load_streams(settings, method)
    tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    made = dict(encode(raw, tokenizer, settings).examples)
    return {stream: made.get(stream, made["forget"]) for stream in method.streams}


def described_rows(data: Data) -> dict[str, dict[str, float]]:
    """Of each stream how many rows there are, and how long they are."""
    out = {}
    for stream, rows in data.items():
        tokens, labelled = setup.average(rows)
        longest = max(len(e.input_ids) for e in rows)
        out[stream] = {
            "rows": len(rows),
            "tokens": round(tokens, 1),
            "longest": longest,
            "labelled": round(labelled, 1),
        }
    return out


def operations(made: Estimate, data: Data) -> float:
    """Floating-point operations of an optimizer step, in one process."""
    rows = made.setup.rows * made.setup.accumulation
    tokens = {s: tuple(rows * mean for mean in setup.average(some)) for s, some in data.items()}
    return work.operations(made.net, made.method, tokens)  # type: ignore[arg-type]


def would_fit(
    settings: Recipe, estimator: Estimator, made: Estimate, place: machine.Machine, typed: Sequence[str]
) -> dict[str, Any] | None:
    """The first change of :func:`expunge.plan.advice.changes` with which the run fits: its command, and what it takes."""

    def fits(change: advice.Change) -> bool:
        try:
            changed = change.of(settings)
            least = estimator(changed, passes=False)
            if not machine.fits(least.memory, place, least.setup.processes, gpu=estimator.gpu):
                return False
            whole = estimator(changed)
        except InputError:  # not with this method, or these settings
            return False
        return machine.fits(whole.memory, place, whole.setup.processes, gpu=estimator.gpu)

    found = advice.first_that_fits(advice.changes(settings, made.setup, cards=place.cards), fits)
    if found is None:
        return None
    estimate = estimator(found.of(settings))
    return {
        "command": advice.command(typed or ["run"], found),
        "changes": {**found.options, **found.pairs},
        "setup": asdict(estimate.setup),
        "memory": estimate.memory.described,
    }
