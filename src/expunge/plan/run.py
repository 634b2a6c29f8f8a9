"""A run's plan as a value: the model's numbers, memory by part, steps, time, and what fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from expunge.data.example import Example
from expunge.errors import InputError
from expunge.method import Method
from expunge.models.tokenizer import load_tokenizer
from expunge.plan import model, parts, setup, step
from expunge.plan.settings import Plan
from expunge.unlearning.ready import method_of
from expunge.unlearning.rows import encode, load_streams
from expunge.unlearning.settings import Recipe


def plan(settings: Recipe, how: Plan) -> dict[str, Any]:
    """What ``expunge run`` of ``settings`` would take; nothing is loaded or written."""
    method = method_of(settings)
    data = examples(settings, how, method)
    gpu = setup.on_gpu(settings, how.memory)
    chosen = setup.setup(settings, method, len(data["forget"]), gpu=gpu, processes=settings.processes or 1)
    net, method, loaded = model.prepared(settings, method)
    shape = model.shape_of(net, loaded, chosen.quantize)
    memory = parts.memory(shape, method, data, chosen, step.traced(net, method, data, chosen))
    return {"memory": memory.described}


def examples(settings: Recipe, how: Plan, method: Method) -> Mapping[str, Sequence[Example]]:
    """The rows of each stream as tokens, or rows of a stated length; those that the model would make up stand for their
    forget rows.
    """
    if settings.forget is None or (isinstance(settings.forget, list) and not settings.forget):
        if how.row_tokens is None or how.answer_tokens is None:
            raise InputError("the plan needs the rows: give --forget and --retain, or --row-tokens and --answer-tokens")
        return setup.stated(method.streams, how.rows, how.row_tokens, how.answer_tokens)
    raw = load_streams(settings, method)
    tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    made = dict(encode(raw, tokenizer, settings).examples)
    return {stream: made.get(stream, made["forget"]) for stream in method.streams}
