"""What of a user's ``NAME=VALUE`` goes to lm-evaluation-harness, read off the signatures of the installed version."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Iterable, Mapping
from typing import Any

from expunge.errors import InputError
from expunge.evaluation.probe import How

OURS = ("model", "model_args", "tasks", "task_manager", "evaluation_tracker", "device", "verbosity")
"""Arguments of ``simple_evaluate`` that are set here, or mean nothing for a model that is loaded already."""

WRAPPER = (
    "batch_size",
    "max_batch_size",
    "max_length",
    "truncation",
    "logits_cache",
    "softmax_dtype",
    "add_bos_token",
    "prefix_token_id",
    "enable_thinking",
    "think_end_token",
    "chat_template_args",
)
"""Arguments of the harness's ``HFLM`` that mean something for a model that is loaded already."""

TYPES: dict[str, tuple[type, ...]] = {
    "None": (type(None),),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "dict": (dict,),
    "list": (list,),
}


def accepted(harness: Any, wrapper: Any) -> dict[str, inspect.Parameter]:
    """The arguments that a user may give, by name: of ``harness`` (``simple_evaluate``) and of ``wrapper`` (``HFLM``)."""
    ours = {name: p for name, p in names(wrapper).items() if name in WRAPPER}
    return ours | {name: p for name, p in names(harness).items() if name not in OURS}


def parse(given: Iterable[str], known: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """``NAME=VALUE`` texts as arguments; a name that is not ``known`` gets the nearest one suggested.

    Hand-worked: ``num_fewshot=5`` is the number 5, ``apply_chat_template=True`` true, ``system_instruction=5`` the text "5".
    """
    out: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"an argument of lm-evaluation-harness is NAME=VALUE, not {text!r}")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f", did you mean {close[0]!r}?" if close else f"; it takes {', '.join(known)}"
            raise InputError(f"lm-evaluation-harness takes no argument {name!r} here{hint}")
        if name in out:
            raise InputError(f"the argument {name!r} is given twice")
        out[name] = _value(name, value, known[name])
    return out


def _value(name: str, text: str, parameter: inspect.Parameter) -> Any:
    """``text`` as the parameter's annotation has it; as JSON or plain text where that says nothing."""
    kinds = [k.split("[")[0].strip() for k in str(parameter.annotation).split("|")]
    plain: Any = {"True": True, "False": False, "None": None}.get(text, ...)
    if plain is ...:
        try:
            plain = json.loads(text)
        except json.JSONDecodeError:
            plain = text
    if any(k not in TYPES for k in kinds):  # not annotated, or a kind of the harness's own
        return plain
    fits = [k for k in kinds if isinstance(plain, TYPES[k]) and (k == "bool" or not isinstance(plain, bool))]
    if fits:
        return plain
    if "str" in kinds:
        return text
    raise InputError(f"{name}={text} does not fit: lm-evaluation-harness wants {parameter.annotation}")


def with_how(how: How, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, and what ``how`` says under the harness's names; InputError where both say something."""
    said = {"limit": how.limit, "max_length": how.max_length, "apply_chat_template": how.chat_template}
    also = {name: value for name, value in said.items() if value is not None}
    if twice := [name for name in also if name in given]:
        raise InputError(f"{twice[0]!r} is given twice, as an argument of lm-evaluation-harness and beside it")
    return {**given, **also}


def only(function: Any, allowed: Iterable[str], given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in allowed if name in given and name in names(function)}


def names(function: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(inspect.unwrap(function)).parameters
