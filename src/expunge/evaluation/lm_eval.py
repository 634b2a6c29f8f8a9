"""General capability through EleutherAI's lm-evaluation-harness: its tasks, its arguments, its results as figures.

``expunge bench lm-eval:arc_easy,hellaswag --arg num_fewshot=5``.  The model is loaded as for any benchmark and passed to the
harness, which evaluates it.  Arguments of its ``simple_evaluate`` are passed on, and those of its model wrapper that apply
to a loaded model; ``figures.json`` records them.  The harness is an extra: ``expunge[lm-eval]``.
"""

from __future__ import annotations

import datetime
import difflib
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge import files, record
from expunge.errors import InputError
from expunge.evaluation.benchmark import Figure
from expunge.evaluation.evaluate import LM_EVAL, check_folder, write
from expunge.evaluation.lm_eval_arguments import WRAPPER, accepted, only, parse, with_options
from expunge.evaluation.probe import EvaluationOptions
from expunge.stats import clopper_pearson, wilson

SAMPLES = "samples.json"
Z = 1.96  # standard errors on either side of 95 %
SHARES = ("acc", "acc_norm", "acc_mutual_info", "exact_match", "em", "contains")  # of examples that are right
SIGNED = ("mcc", "matthews_corrcoef")  # from -1 to 1


def measure(
    tasks: Sequence[str],
    model: str,
    out: str | Path,
    *,
    arguments: Iterable[str] = (),
    data: str | Path | None = None,
    how: EvaluationOptions | None = None,
    overwrite: bool = False,
) -> list[Figure]:
    """Run the harness's ``tasks`` on ``model``, write ``figures.json`` into the folder ``out``, and return the figures.

    ``arguments``: ``NAME=VALUE``, the value in JSON or as plain text; ``data``: a folder with task files of your own;
    ``how``: ``limit``, ``max_length`` and ``chat_template`` go to the harness if given.

    Raises InputError, before a model is loaded, where the harness is not installed, for a task or an argument that it does
    not know, and for a value that is not of the argument's type.
    """
    how = how or EvaluationOptions()
    folder = check_folder(out, inputs={"model": model, "data": data}, overwrite=overwrite)
    harness, wrapper = _installed()
    manager = _tasks(tasks, data)
    passed_arguments = with_options(how, parse(arguments, accepted(harness, wrapper)))
    began = time.monotonic()
    from expunge.evaluation.collect import cached, processes  # imports torch, so only after all checks

    if processes().num_processes > 1:
        raise InputError("lm-eval:TASKS runs in one process; leave out `accelerate launch`")
    loaded = cached.load(model, how)
    lm = wrapper(pretrained=loaded.model, tokenizer=loaded.tokenizer, **only(wrapper, WRAPPER, passed_arguments))
    call_arguments = {"log_samples": False, **only(harness, passed_arguments, passed_arguments)}
    try:
        results = harness(model=lm, tasks=list(tasks), task_manager=manager, **call_arguments)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"lm-evaluation-harness cannot run {','.join(tasks)}: {reason}") from error
    measured = figures(results)
    write(
        folder,
        {"model": measured},
        {
            "benchmark": LM_EVAL + ",".join(tasks),
            "paper": "https://github.com/EleutherAI/lm-evaluation-harness",
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "model": {"source": model, "fingerprint": loaded.fingerprint},
            "arguments": passed_arguments,
            "tasks": {"versions": results.get("versions", {}), "examples": results.get("n-shot", {})},
            "data": {"source": str(data) if data else "the harness's own"},
            "private_files": [SAMPLES] if results.get("samples") else [],
            "dtype": how.dtype,
            "seconds": time.monotonic() - began,
            "versions": {**record.versions(), "lm_eval": _version(results)},
        },
    )
    if results.get("samples"):
        text = json.dumps(results["samples"], ensure_ascii=False, default=str) + "\n"
        files.replace_text(folder / SAMPLES, text, mode=files.PRIVATE)
    return measured


def figures(results: Mapping[str, Any]) -> list[Figure]:
    r"""The numbers of a result of ``simple_evaluate``; low and high where it gives a standard error.

    A share has Wilson's interval (:func:`expunge.stats.wilson`), and where all examples agree that of Clopper and Pearson;
    any other figure :math:`v \pm 1.96\, \mathrm{stderr}`, cut at 0 where it is above.

    A figure is named as the harness's metric, its part is the task or group, its note says which filter, how many examples
    before each question (the harness keeps to the task's own number where that is fixed at 0) and which version.

    Hand-worked: 0.5 with a standard error of 0.1 has the interval 0.3175 to 0.6825.
    """
    out = []
    for task, of_task in {**results["results"], **results.get("groups", {})}.items():
        n = of_task.get("sample_len") or results.get("n-samples", {}).get(task, {}).get("effective", 0)
        for key, value in of_task.items():
            metric, _, filter_name = key.partition(",")
            if not filter_name or metric.endswith("_stderr") or not _number(value):
                continue
            low, high = _interval(metric, float(value), of_task.get(f"{metric}_stderr,{filter_name}"), int(n))
            shots = results.get("n-shot", {}).get(task)
            shot_note = f", {shots}-shot" if shots is not None else ""
            out.append(
                Figure(
                    metric,
                    float(value),
                    int(n),
                    low,
                    high,
                    task,
                    f"filter {filter_name}{shot_note}, lm-evaluation-harness {_version(results)}",
                )
            )
    return out


def _interval(metric: str, value: float, error: Any, n: int) -> tuple[float | None, float | None]:
    """The 95 % interval of one figure; none without a standard error, unless it is a share of examples."""
    has_error = _number(error) and math.isfinite(error)
    successes = value * n
    if metric in SIGNED or not 0 <= value <= 1:
        if not has_error:
            return None, None
        low, high = value - Z * error, value + Z * error
        if metric in SIGNED:
            return max(-1.0, low), min(1.0, high)
        return (max(0.0, low) if value >= 0 else low), high
    if n and (
        value in (0, 1)
        or (not (has_error and error > 0) and metric in SHARES and abs(successes - round(successes)) < 1e-6)
    ):
        interval = clopper_pearson(round(successes), n)
    elif has_error and error > 0 and 0 < value < 1:
        interval = wilson(value, error)
    else:
        return None, None
    return interval.low, interval.high


# -- the harness ----------------------------------------------------------------------------------------------------------
def _installed() -> tuple[Any, Any]:
    """(``simple_evaluate``, ``HFLM``)."""
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise InputError(
            f"lm-eval:TASKS needs lm-evaluation-harness ({error}): pip install 'expunge[lm-eval]'"
        ) from None
    return simple_evaluate, HFLM


def _tasks(tasks: Sequence[str], data: str | Path | None) -> Any:
    """The harness's index of tasks, with those of the folder ``data``; InputError for an unknown one."""
    from lm_eval.tasks import TaskManager

    if data is not None and not Path(data).is_dir():
        raise InputError(f"there is no folder {data}; it should hold task files of lm-evaluation-harness")
    manager = TaskManager(include_path=None if data is None else str(data))
    if not any(tasks):
        raise InputError("name the tasks, such as lm-eval:arc_easy,hellaswag")
    for task in tasks:
        if task not in manager.all_tasks and not Path(task).is_file():
            close = difflib.get_close_matches(task, manager.all_tasks, n=1)
            hint = f", did you mean {close[0]!r}?" if close else ""
            raise InputError(f"lm-evaluation-harness has no task {task!r}{hint}")
    return manager


def _version(results: Mapping[str, Any]) -> str:
    from importlib import metadata

    try:
        return metadata.version("lm_eval")
    except metadata.PackageNotFoundError:
        return str(results.get("lm_eval_version", "of unknown version"))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
