r"""Code: whether a model's programs pass their tests, the likelihood of the reference solutions, and arithmetic.

The third task of Reveal and Release (arXiv:2509.14624), whose benchmarks are not public.  ``code/mbpp`` asks the 500
test tasks of MBPP (Austin et al. 2021, arXiv:2108.07732; ids 11 to 510) with their three tests, ``code/humaneval`` the
164 functions of HumanEval (Chen et al. 2021, arXiv:2107.03374).  Both are asked as a chat without examples, one greedy
answer of at most 512 tokens, of which the first code block counts; so pass@1 here is not that of a prompt with examples
or of a base model.

* ``pass_at_1``: the share that passes all tests within 5 seconds, in the sandbox of :mod:`expunge.scorers`.  Programs
  that a model wrote are run on this machine, so it is left out unless the environment says ``HF_ALLOW_CODE_EVAL=1``,
  which is also what lm-evaluation-harness and ``evaluate`` ask for.  ``expunge rescore`` can add it later.
* ``parses``: the share whose code is Python with a function in it.  Nothing is run.
* ``probability``: how likely the reference solution is, a token's geometric mean.  It changes even if a small model passes
  no test.

Retained reasoning is GSM8K (Cobbe et al. 2021, arXiv:2110.14168), its first 250 test questions as a chat without
examples: ``exact_match`` where the answer's last number is the right one.

The forget set of both is MBPP's train tasks (ids 601 to 974), the retain set GSM8K's train questions.

Data: ``google-research-datasets/mbpp`` (CC-BY-4.0), ``openai/openai_humaneval`` and ``openai/gsm8k`` (both MIT) on the
Hub, or a folder with ``mbpp/mbpp.jsonl``, ``humaneval/HumanEval.jsonl.gz`` and, optionally, ``gsm8k/test.jsonl``
and ``gsm8k/train.jsonl``.
"""

from __future__ import annotations

import ast
import json
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial

import numpy as np

from expunge.data.example import Row
from expunge.data.records import Record
from expunge.errors import InputError
from expunge.evaluation.benchmark import ENDINGS, Benchmark, Data, DataSet, Figure, difference_figure, mean_figure
from expunge.evaluation.metrics import likelihood as metrics
from expunge.evaluation.probe import Ask, Probe
from expunge.evaluation.table import Collected, Generated
from expunge.scorers.snippets import blocks
from expunge.stats import Array, clopper_pearson

CONSENT = "HF_ALLOW_CODE_EVAL"
SECONDS = 5.0  # that a program and its tests may take
ANSWER = Ask(max_new_tokens=512)
TASKS, MATHS = "tasks", "gsm8k"
QUESTIONS = 250  # of GSM8K
MBPP_TEST, MBPP_TRAIN = range(11, 511), range(601, 975)
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


# -- rows -----------------------------------------------------------------------------------------------------------------
def mbpp(record: Record) -> tuple[Row, str]:
    """A task of MBPP as question and fenced solution; and, as JSON, the code before and after a program when it is run."""
    tests, code = record.texts("test_list"), _lines(record.text("code"))
    prompt = (
        "Write a Python function for this task, in one code block.\n\n"
        f"Task: {record.text('text').strip()}\n\nIt must pass these tests:\n" + "\n".join(tests)
    )
    setup = _lines(str(record.values.get("test_setup_code") or ""))  # may use names that the program defines
    return _row(prompt, code, record), json.dumps({"before": "", "after": "\n".join([setup, *tests])})


def humaneval(record: Record) -> tuple[Row, str]:
    """A function of HumanEval, in the form of :func:`mbpp`."""
    prefix, name = record.text("prompt"), record.text("entry_point")
    prompt = (
        f"Complete this Python function, and write it whole, in one code block.\n\n```python\n{prefix.strip()}\n```"
    )
    note = json.dumps({"before": prefix, "after": f"{record.text('test')}\ncheck({name})"})
    return _row(prompt, prefix + record.text("canonical_solution"), record), note


def gsm8k(record: Record) -> Row:
    """A question of GSM8K and its solution, without the marks for a calculator."""
    prompt = f"{record.text('question').strip()}\n\nReason step by step, and end with the answer as a number."
    answer = re.sub(r"<<.*?>>", "", record.text("answer"))
    _, marker, last = answer.rpartition("####")
    if not marker or number(last) is None:
        raise InputError(f"{record.where}: the field 'answer' must end with #### and a number")
    return Row(({"role": "user", "content": prompt},), answer, where=record.where)


def _row(prompt: str, code: str, record: Record) -> Row:
    return Row(({"role": "user", "content": prompt},), f"```python\n{code.strip()}\n```", where=record.where)


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n")


def _check_task_id(record: Record) -> Record:
    """``record``; InputError if its task has no number."""
    record.number("task_id")
    return record


def _with_ids(records: Sequence[Record], ids: range) -> list[Record]:
    selected = [r for r in records if r.number("task_id") in ids]
    if not selected:
        raise InputError(f"{records[0].file} has no task from {ids[0]} to {ids[-1]}; is it whole?")
    return selected


def to_forget(records: Sequence[Record]) -> list[Row]:
    """MBPP's train tasks."""
    return [mbpp(r)[0] for r in _with_ids(records, MBPP_TRAIN)]


def to_keep(records: Sequence[Record]) -> list[Row]:
    """GSM8K's train questions."""
    return [gsm8k(r) for r in records]


# -- probes ---------------------------------------------------------------------------------------------------------------
def probes(data: Data, name: str) -> list[Probe]:
    """Each task and each of GSM8K's questions: the right answer is scored, and the model generates one."""
    if name == "mbpp":
        tasks = data.usable(name, _with_ids(data.usable(name, data.records(name), _check_task_id), MBPP_TEST), mbpp)
    else:
        tasks = data.usable(name, data.records(name), humaneval)
    maths = data.usable(MATHS, data.records(MATHS)[:QUESTIONS], gsm8k) if MATHS in data else []
    out = [Probe(TASKS, i, row, {"answer": row.answer}, ANSWER, note) for i, (row, note) in enumerate(tasks)]
    return out + [Probe(MATHS, i, row, {"answer": row.answer}, ANSWER) for i, row in enumerate(maths)]


# -- figures --------------------------------------------------------------------------------------------------------------
def score(collected: Collected, retrained: Collected | None = None) -> list[Figure]:
    """Of the tasks pass@1 (with consent), share that parses and likelihood; of GSM8K exact match and likelihood."""
    answers = collected.generated(TASKS)
    not_run = "" if _code_eval_allowed() else f"; pass@1 is left out: {CONSENT}=1 allows to run what the model wrote"
    out = _pass_at_1(answers) if _code_eval_allowed() else []
    out += [
        mean_figure("parses", np.array([parses(block(a.text)) for a in answers], dtype=float), TASKS, "not run"),
        _probability(collected, TASKS, f"of the reference solution, a token's geometric mean{not_run}"),
    ]
    if any(a.part == MATHS for a in collected.answers):
        right = np.array([number(a.text) == number(a.expected) for a in collected.generated(MATHS)], dtype=float)
        out.append(mean_figure("exact_match", right, MATHS, "the last number; asked without examples"))
        out.append(_probability(collected, MATHS, "of the reference solution, a token's geometric mean"))
    if retrained is not None:
        for part in dict.fromkeys(a.part for a in collected.answers):
            gap = metrics.probability(collected.mean_logp(part)) - metrics.probability(retrained.mean_logp(part))
            out.append(difference_figure("probability_difference", gap, part, "to the retrained model"))
    return out


def block(answer: str) -> str:
    """The first code block of an answer, up to its end if it is not closed; the whole answer if there is none.

    >>> block("Here it is:\\n```python\\nx = 1\\n```\\nDone.")
    'x = 1\\n'
    """
    return next(iter(blocks(answer)), answer)


def parses(code: str) -> bool:
    """Whether ``code`` is Python that defines a function; it is read, not run.

    >>> parses("def f(x): return x"), parses("def f(x) return x"), parses("a sentence")
    (True, False, False)
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(tree))


def number(text: str) -> Decimal | None:
    """The last number of a text, without thousands separators; None if there is none.

    >>> number("6 x 7 is 42, so $1,042.50."), number("none")
    (Decimal('1042.50'), None)
    """
    matches = NUMBER.findall(text)
    return Decimal(matches[-1].replace(",", "")) if matches else None


def program(answer: str, note: str) -> str:
    """The source that is run: the code block of an answer between a prefix and the tests.

    HumanEval's prefix is the beginning of the function: its imports and helpers serve an answer that defines the function
    again, and an answer that is the body alone continues it.  Code under ``if __name__ == "__main__"`` does not run, and an
    answer that exits fails, since its tests are never reached.
    """
    parts = json.loads(note)
    source = f"{parts['before']}\n{block(answer)}\n{parts['after']}\n"
    return (
        "import sys, types\nsys.modules['answer'] = types.ModuleType('answer')\n"  # dataclasses look up their module
        f"try:\n    exec({source!r}, vars(sys.modules['answer']))\n"
        "except SystemExit:\n    raise RuntimeError('it ended before its tests') from None\n"
    )


def _pass_at_1(answers: Sequence[Generated]) -> list[Figure]:
    """pass@1 of one answer a task, with an exact interval: near 0 a bootstrap has none."""
    run = _sandbox()
    passed = sum(bool(run(program(a.text, a.note))) for a in answers)
    interval = clopper_pearson(passed, len(answers))
    note = f"{passed} of {len(answers)} pass all tests within {SECONDS:g} s; one greedy answer, asked without examples"
    return [Figure("pass_at_1", passed / len(answers), len(answers), interval.low, interval.high, TASKS, note)]


def _code_eval_allowed() -> bool:
    return os.environ.get(CONSENT) == "1"


def _sandbox() -> Callable[[str], bool]:
    from expunge.scorers import sandbox

    return lambda source: sandbox.run(source, seconds=SECONDS).ok


def _probability(collected: Collected, part: str, note: str) -> Figure:
    values: Array = metrics.probability(collected.mean_logp(part))
    return mean_figure("probability", values, part, note)


# -- the benchmarks -------------------------------------------------------------------------------------------------------
MBPP, GSM8K = "google-research-datasets/mbpp:full", "openai/gsm8k:main"
SETS: Mapping[str, DataSet] = {
    "mbpp": DataSet("mbpp", f"{MBPP}@test", "mbpp/mbpp|mbpp"),
    "humaneval": DataSet(
        "humaneval",
        "openai/openai_humaneval@test",
        "humaneval/HumanEval|HumanEval",
        endings=(*ENDINGS, ".jsonl.gz"),
    ),
}
TEST = DataSet(MATHS, f"{GSM8K}@test", "gsm8k/test|gsm8k_test", optional=True)
TRAIN = DataSet("gsm8k_train", f"{GSM8K}@train", "gsm8k/train|gsm8k_train", rows=to_keep)


def _benchmark(name: str) -> Benchmark:
    return Benchmark(
        name=f"code/{name}",
        paper="arXiv:2509.14624",
        sets=(SETS[name], TEST),
        probes=partial(probes, name=name),
        score=score,
        max_length=2048,
        forget=DataSet("mbpp_train", f"{MBPP}@train", "mbpp/mbpp|mbpp", rows=to_forget),
        retain=TRAIN,
    )


ALL = [_benchmark(name) for name in SETS]
