"""A plan in lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

PARTS = ("frozen_weights", "trained_weights", "gradients", "optimizer_state", "reference", "exchange")
NAMES = {
    "frozen_weights": "weights that do not train",
    "trained_weights": "weights that train",
    "gradients": "gradients",
    "optimizer_state": "optimizer state",
    "reference": "reference",
    "exchange": "exchange between processes",
}


def size(value: float) -> str:
    """Bytes for a person.

    >>> size(0), size(5 * 2**20), size(22782848136), size(1500 * 2**30)
    ('0', '5.0 MiB', '21.2 GiB', '1,500 GiB')
    """
    if value < 1:
        return "0"
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1000 or unit == "GiB":
            return f"{value:,.0f} {unit}" if value >= 999.5 else f"{value:.1f} {unit}"
    raise AssertionError


def count(value: float) -> str:
    """A number of parameters.

    >>> count(8030261248), count(41943040), count(910)
    ('8.03 billion', '41.9 million', '910')
    """
    for power, name in ((9, " billion"), (6, " million")):
        if value >= 10**power:
            return f"{value / 10**power:.3g}{name}"
    return f"{value:.0f}"


def seconds(plan: Mapping[str, Any]) -> str:
    """How long an optimizer step takes, as far as that is known."""
    if plan["seconds_a_step"] is not None:
        whole = plan["seconds_a_step"] * plan["steps"] / 60
        return f"{plan['seconds_a_step']:.3g} s a step, measured: {whole:.3g} minutes of training"
    if least := plan.get("least_seconds_a_step"):
        return f"at least {least:.3g} s a step at that rate, of a third of it {3 * least:.3g} s; --probe measures it"
    return "unknown; --probe measures it"


def summary(plan: Mapping[str, Any]) -> dict[str, str]:
    """Parameters and memory in a line each, and the command that would fit where this does not."""
    numbers, memory = plan["parameters"], plan["memory"]
    verdict = "fits" if plan["fits"] else "does not fit"
    main = f", {size(memory['main'])} of main memory" if memory["main"] else ""
    each = " a process" if plan["setup"]["processes"] > 1 else ""
    room = f"{plan['machine']['name']}, {size(plan['machine']['usable'])} usable"
    out = {
        "parameters": f"{count(numbers['all'])}, {count(numbers['trained'])} train",
        "memory": f"{size(memory['peak'])}{each}{main}; {verdict}: {room} (`expunge plan` says more)",
    }
    return out if plan["fits"] or not plan["would_fit"] else {**out, "would fit": plan["would_fit"]["command"]}


def lines(plan: Mapping[str, Any]) -> Iterator[str]:
    """All of a plan."""
    how, memory, numbers = plan["setup"], plan["memory"], plan["parameters"]
    share = 100 * numbers["trained"] / numbers["all"]
    trained = f"{count(numbers['trained'])} train ({share:.3g} %)"
    yield f"model       {plan['model']}: {count(numbers['all'])} parameters, {trained}"
    yield f"method      {plan['method']}, {_setup(how)}"
    yield f"rows        {'; '.join(_rows(name, each) for name, each in plan['rows'].items())}"
    yield f"steps       {plan['steps']} of {how['step_rows']} rows of each set, {plan['operations']:.3g} operations each"
    yield f"time        {seconds(plan)}"
    each = (
        ""
        if how["processes"] == 1
        else f", each of {how['processes']} processes{' in shards' if how['sharded'] else ''}"
    )
    yield f"memory      {size(memory['peak'])} at most{each}, in the phase: {memory['phase']}"
    for name in PARTS:
        value = memory[name]["device"] if name == "reference" else memory[name]
        if value >= 1 or name == "gradients":
            yield f"  {NAMES[name]:<28}{size(value):>10}{_note(name, memory)}"
    passes = ", ".join(f"{size(value)} {name}" for name, value in memory["passes"].items())
    rough = "" if plan["traced"] else " (by a rough formula: this model cannot be traced)"
    yield f"  {'activations and logits':<28}{size(max(memory['passes'].values())):>10}  {passes}{rough}"
    if memory["main"]:
        yield f"  {'in main memory':<28}{size(memory['main']):>10}{'  the whole model, loaded' if how['sharded'] else ''}"
    elif memory["good_copy"]:
        yield f"  {'copies of the weights':<28}{size(memory['good_copy']):>10}"
    if measured := plan.get("measured"):
        yield f"  {'measured by the probe':<28}{size(measured['peak']):>10}"
    yield from _verdict(plan)


def _setup(how: Mapping[str, Any]) -> str:
    micro = f"{how['rows']} rows a micro-batch" + (f" × {how['accumulation']}" if how["accumulation"] > 1 else "")
    parts = [
        how["optimizer"],
        micro,
        "computing in 16 bits" if how["autocast"] else "computing in float32",
        *(["gradient checkpointing"] if how["checkpointing"] else []),
        *([how["quantize"]] if how["quantize"] else []),
    ]
    return ", ".join(parts)


def _rows(name: str, each: Mapping[str, Any]) -> str:
    return (
        f"{each['rows']} {name} of {each['tokens']:g} tokens (longest {each['longest']}), {each['labelled']:g} labelled"
    )


def _note(name: str, memory: Mapping[str, Any]) -> str:
    if name == "gradients" and memory["gradient_buffers"] > 1:
        return f"  {memory['gradient_buffers']} of them: one an objective"
    return f"  {memory['reference']['form']}" if name == "reference" else ""


def _verdict(plan: Mapping[str, Any]) -> Iterator[str]:
    place = plan["machine"]
    room = f"{place['name']}, {size(place['usable'])} usable"
    if plan["fits"]:
        yield f"fits        yes: {room}"
        return
    yield f"fits        no: {room}"
    if found := plan["would_fit"]:
        yield f"would fit   with {size(found['memory']['peak'])}:"
        yield f"  {found['command']}"
    else:
        yield "would fit   nothing that this knows; take a smaller model or a larger card"
