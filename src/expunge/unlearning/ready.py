"""What a run checks before a model is loaded: method, data, training arguments, output folder; and its plan."""

from __future__ import annotations

from typing import Any

from expunge import hub, outputs, record
from expunge.errors import InputError
from expunge.method import Method, build, entry
from expunge.models import quantize
from expunge.models.changed import changed
from expunge.models.check import check_attention, check_device, check_files
from expunge.models.locate import resolve
from expunge.models.tokenizer import check_tokens, load_tokenizer
from expunge.unlearning import describe, level, neutral, train, unfinished
from expunge.unlearning.python_inputs import NO_INPUTS, PythonInputs
from expunge.unlearning.rows import Data, encode, load_streams
from expunge.unlearning.settings import Recipe


def ready(settings: Recipe, method: Method | None = None, inputs: PythonInputs = NO_INPUTS) -> tuple[Method, Data, Any]:
    """The method, the data and the ``TrainingArguments`` of a run of which all is in order that needs no model.

    Raises InputError for what a person has to mend; writes nothing.
    """

    method = method_of(settings, method)
    check_quantized(settings, method, inputs)
    folder = outputs.check(settings.out, record.LAYOUT, inputs=inputs_of(settings), overwrite=settings.overwrite)
    hub.check_run(settings, folder)
    if settings.compare_with:
        check_files(
            resolve(settings.compare_with),
            trust_remote_code=settings.trust_remote_code,
            quantize=settings.quantize,
        )
    warnings: list[str] = []
    raw = load_streams(settings, method, warnings)
    tokenizer = inputs.tokenizer or load_tokenizer(
        settings.model, trust_remote_code=settings.trust_remote_code, quantize=settings.quantize
    )
    level.check(settings, method, tokenizer, raw["forget"])
    data = encode(raw, tokenizer, settings, warnings)
    check_hardware(settings)
    check_tokens(settings.model, tokenizer, ())  # the one that pads; those of the rows were checked with them
    args = train.training_arguments(settings, method, len(data.rows["forget"]), folder)
    going = unfinished.find(folder, unfinished.identity(settings, method, data, args), settings)
    asked = str(args.save_strategy.value) != "no"
    needed = space(settings, checkpoints=asked - bool(going))  # one is there already
    most = "" if settings.save_every is None else ", most of it checkpoints (--save-every never writes none)"
    outputs.check_space(folder, needed, most)
    return method, data, args


def check_quantized(settings: Recipe, method: Method, inputs: PythonInputs = NO_INPUTS) -> None:
    """Raise InputError where the base cannot be quantised: bitsandbytes is not installed, the model is in memory, or the
    method takes differences of gradients, which int8 rounds away.
    """
    quantize.check(settings.quantize)
    if settings.quantize and inputs.model is not None:
        raise InputError(
            f"quantize={settings.quantize} is of a model that is loaded; give its name or folder in its place"
        )
    if settings.quantize == "int8" and method.optimizer and method.optimizer.curvature == "hutchinson":
        raise InputError(
            "Sophia's Hutchinson estimate takes differences of gradients, which quantize=int8 rounds away; say "
            "quantize=nf4, or optimizer.curvature=gauss_newton"
        )


def check_hardware(settings: Recipe) -> None:
    """Raise InputError for a device that is not here, or an attention that is not installed."""
    check_device(settings.device)
    check_attention(settings.attn, settings.loaded)


def inputs_of(settings: Recipe) -> dict[str, Any]:
    """What the run reads: what it is -> where it is, which the output must lie apart from."""
    return {
        "model": settings.model,
        "forget set": settings.forget,
        "retain set": settings.retain,
        "holdout set": settings.holdout,
        "keep_rows": settings.keep_rows,
        "model to compare with": settings.compare_with,
        "model that gives the level": settings.level,
    }


def space(settings: Recipe, *, checkpoints: int = 0) -> int | None:
    """About how many bytes the run will write at most; None where nobody knows.

    Of its own checkpoints there are two for a while: the older goes when the newer is whole.
    ``checkpoints``: how many more.
    """
    from expunge.models.size import written_bytes

    rank = settings.lora.r if settings.adapter else None
    held = max(0, checkpoints + (0 if settings.save_every is None else 2))
    return written_bytes(settings.model, lora_rank=rank, merge=settings.merge, checkpoints=held)


def planned(settings: Recipe) -> dict[str, Any]:
    """What :func:`expunge.unlearning.run.run` would do; raises InputError as it does, and writes nothing."""
    from expunge.training.arguments import total_steps

    method, data, args = ready(settings)
    made = unfinished.identity(settings, method, data, args)
    going = unfinished.find(outputs.path_of(settings.out), made, settings)
    return {
        "model": settings.model,
        "data": {name: len(rows) for name, rows in data.given.items()} | _written(settings, method),
        "tokens": describe.shares(data),
        "method": method.name,
        "steps": total_steps(args, len(data.rows["forget"])),
        "out": settings.out,
    } | ({"goes on": _goes_on(going, settings)} if going else {})


def _written(settings: Recipe, method: Method) -> dict[str, int]:
    """The retain set that the model is to write."""
    return {"retain": settings.self_retain} if neutral.wanted(settings, method) else {}


def _goes_on(going: unfinished.Unfinished, settings: Recipe) -> str:
    """From where a run goes on; whether the model's weights are the same is known once they are read."""
    file = changed(going.facts.get("model_files"), settings.model)
    but = f", unless the model's weights are others: {file} has changed since (--fresh starts over)" if file else ""
    return f"after step {going.step}{but}"


def _name(settings: Recipe) -> str:
    """The method's, or that of the paper's method."""
    if not settings.as_published:
        return settings.method
    if not (published := entry(settings.method).published):
        raise InputError(
            f"as_published does nothing under {settings.method}, which is no method of this library that builds on another; "
            "leave it out"
        )
    return published


def method_of(settings: Recipe, method: Method | None = None) -> Method:
    """The recipe's method, or ``method`` in its place, with the optimizer that the recipe asks for."""
    from expunge.training.arguments import optimized

    made = method or build(_name(settings), settings.parameters)
    return optimized(made, settings.optimizer, settings.optimizer_parameters, settings.training)
