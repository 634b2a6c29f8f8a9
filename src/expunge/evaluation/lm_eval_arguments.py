"""The arguments ``NAME=VALUE`` for lm-evaluation-harness, parsed by the signatures of the installed version."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Iterable, Mapping
from typing import Any

from expunge.errors import InputError
from expunge.evaluation.probe import EvaluationOptions

SET_BY_EXPUNGE = ("model", "model_args", "tasks", "task_manager", "evaluation_tracker", "device", "verbosity")
"""Arguments of ``simple_evaluate`` that are set here, or do not apply to a loaded model."""

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
"""Arguments of the harness's ``HFLM`` that apply to a loaded model."""

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
    return ours | {name: p for name, p in names(harness).items() if name not in SET_BY_EXPUNGE}


def parse(pairs: Iterable[str], parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """``NAME=VALUE`` texts as arguments; InputError, with the nearest name, for one that is not in ``parameters``.

    Hand-worked: ``num_fewshot=5`` is the number 5, ``apply_chat_template=True`` true, ``system_instruction=5`` the text "5".
    """
    out: dict[str, Any] = {}
    for text in pairs:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"an argument of lm-evaluation-harness is NAME=VALUE, not {text!r}")
        if name not in parameters:
            close = difflib.get_close_matches(name, parameters, n=1)
            hint = f", did you mean {close[0]!r}?" if close else f"; it takes {', '.join(parameters)}"
            raise InputError(f"lm-evaluation-harness takes no argument {name!r} here{hint}")
        if name in out:
            raise InputError(f"the argument {name!r} is given twice")
        out[name] = _value(name, value, parameters[name])
    return out


def _value(name: str, text: str, parameter: inspect.Parameter) -> Any:
    """``text`` as the type of the parameter's annotation; without one as JSON or plain text."""
    types = [k.split("[")[0].strip() for k in str(parameter.annotation).split("|")]
    parsed: Any = {"True": True, "False": False, "None": None}.get(text, ...)
    if parsed is ...:
        try:
            parsed = json.loads(text)
        except json.JSONDecodeError:
            parsed = text
    if any(k not in TYPES for k in types):  # not annotated, or a type of the harness
        return parsed
    matching = [k for k in types if isinstance(parsed, TYPES[k]) and (k == "bool" or not isinstance(parsed, bool))]
    if matching:
        return parsed
    if "str" in types:
        return text
    raise InputError(f"{name}={text} does not fit: lm-evaluation-harness wants {parameter.annotation}")


def with_options(how: EvaluationOptions, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """``arguments`` and the settings of ``how`` under the harness's names; InputError where both give a value."""
    settings = {"limit": how.limit, "max_length": how.max_length, "apply_chat_template": how.chat_template}
    from_settings = {name: value for name, value in settings.items() if value is not None}
    if duplicates := [name for name in from_settings if name in arguments]:
        raise InputError(f"{duplicates[0]!r} is given twice, as an argument of lm-evaluation-harness and beside it")
    return {**arguments, **from_settings}


def only(function: Any, allowed: Iterable[str], arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: arguments[name] for name in allowed if name in arguments and name in names(function)}


def names(function: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(inspect.unwrap(function)).parameters
