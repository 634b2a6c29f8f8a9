"""The task of code end to end on a tiny model: programs that are put together, consent, figures by hand, bad data."""

from __future__ import annotations

import gzip
import json
import sys
from dataclasses import replace
from decimal import Decimal
from types import ModuleType, SimpleNamespace

import pytest
from golden import FIXTURES, whole

from expunge.benchmarks import code, named
from expunge.errors import InputError
from expunge.evaluation import table
from expunge.evaluation.benchmark import data_of, to_learn
from expunge.evaluation.collect import cached as asking
from expunge.evaluation.evaluate import evaluate, rescore
from expunge.evaluation.probe import EvaluationOptions

MBPP, HUMANEVAL = named("code/mbpp"), named("code/humaneval")


def task(number, name):
    return {
        "task_id": number,
        "text": f"Write {name}.",
        "code": f"def {name}(x):\r\n    return x + 1",
        "test_setup_code": "ONE = 1 if f12 else 0" if number == 12 else "",  # needs what the program defines
        "test_list": [f"assert {name}(1) == 2", f"assert {name}(2) == 3"],
        "challenge_test_list": [],
    }


BEGUN = 'from math import ceil\n\n\ndef double(x: int) -> int:\n    """Twice x, see def add below.\n    """\n'
FUNCTION = {
    "task_id": "HumanEval/0",
    "prompt": BEGUN,
    "entry_point": "double",
    "canonical_solution": "    return ceil(2 * x)\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
}
MATHS = [{"question": f"{k} and 1?", "answer": f"It is <<{k}+1={k + 1}>>{k + 1}.\n#### 1,00{k}"} for k in (1, 2)]


@pytest.fixture
def folder(workplace, monkeypatch):
    """Two test tasks and two to learn, one function, two questions; cache and sandbox are the test's own."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(workplace / "cache"))
    monkeypatch.delenv(code.CONSENT, raising=False)
    monkeypatch.setattr(code, "ANSWER", replace(code.ANSWER, max_new_tokens=3))
    data = workplace / "data"
    for name in ("mbpp", "humaneval", "gsm8k"):
        (data / name).mkdir(parents=True)
    tasks = [task(k, f"f{k}") for k in (10, 11, 12, 511, 601, 974)]
    (data / "mbpp/mbpp.jsonl").write_text("\n".join(map(json.dumps, tasks)))
    (data / "humaneval/HumanEval.jsonl.gz").write_bytes(gzip.compress(json.dumps(FUNCTION).encode()))
    for split in ("test", "train"):
        (data / f"gsm8k/{split}.jsonl").write_text("\n".join(map(json.dumps, MATHS)))
    return data


@pytest.fixture
def ran(monkeypatch):
    """What the sandbox was given; it runs it here, for it is the test's own."""
    sources = []

    def run(source, *, seconds):
        assert seconds == code.SECONDS
        sources.append(source)
        try:
            exec(compile(source, "program", "exec"), {})
        except Exception:
            return SimpleNamespace(ok=False)
        return SimpleNamespace(ok=True)

    package = ModuleType("expunge.scorers")
    package.sandbox = SimpleNamespace(run=run)
    monkeypatch.setitem(sys.modules, "expunge.scorers", package)
    return sources


def by_name(figures):
    return {(f.part, f.name): f for f in figures}


def rescored(say):
    collected = table.read("out/scores")
    table.write(replace(collected, answers=tuple(replace(a, text=say(a)) for a in collected.answers)), "out/scores")
    return by_name(rescore(named, "out"))


def fenced(source, mark="python"):
    return f"Sure:\n```{mark}\n{source}\n```\nIt adds one."


def test_what_is_asked(folder):
    probes = MBPP.probes(data_of(MBPP, folder))
    assert [(p.part, p.index) for p in probes] == [("tasks", 0), ("tasks", 1), ("gsm8k", 0), ("gsm8k", 1)]
    prompt = probes[0].row.prompt[0]["content"]
    assert "Task: Write f11." in prompt and prompt.endswith("assert f11(1) == 2\nassert f11(2) == 3")
    assert probes[0].texts == {"answer": "```python\ndef f11(x):\n    return x + 1\n```"}
    assert probes[2].texts == {"answer": "It is 2.\n#### 1,001"}
    (function,) = HUMANEVAL.probes(data_of(HUMANEVAL, folder))[:1]
    assert BEGUN.strip() in function.row.prompt[0]["content"]
    assert function.texts["answer"] == f"```python\n{BEGUN}    return ceil(2 * x)\n```"


def test_what_is_learned(folder):
    for benchmark in (MBPP, HUMANEVAL):
        forget, retain = (to_learn(benchmark, s, folder) for s in (benchmark.forget, benchmark.retain))
        assert [r.answer.split("(")[0] for r in forget] == ["```python\ndef f601", "```python\ndef f974"]
        assert [r.answer for r in retain] == ["It is 2.\n#### 1,001", "It is 3.\n#### 1,002"]


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        (fenced("def f12(x):\n    return x + ONE"), True),  # of the task's setup
        (fenced("def f12(x):\n    return x + ONE", ""), True),
        ("def f12(x):\n    return x + 1", True),  # no fence: all of it
        ("```python\ndef f12(x):\n    return x + 1", True),  # not closed
        (fenced("def f12(x):\n    return 2"), False),  # the second test
        (fenced("def g(x):\n    return x + 1"), False),
        (fenced("def f12(x):\n    return x + 1") + fenced("def f12(x):\n    return 0"), True),  # the first block counts
        ("I cannot.", False),
        ("", False),
        (fenced("def f12(x):\n    return 2\nimport sys\nsys.exit()"), False),  # its tests are never reached
        (fenced("def f12(x):\n    return 2\nraise SystemExit"), False),
        (fenced("def f12(x):\n    return x + 1\nif __name__ == '__main__':\n    print(f12(int(input())))"), True),
        (fenced("from __future__ import annotations\ndef f12(x: Number):\n    return x + 1"), True),
    ],
)
def test_programs_of_mbpp(folder, ran, answer, passes):
    note = MBPP.probes(data_of(MBPP, folder))[1].note
    assert bool(code._sandbox()(code.program(answer, note))) is passes


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        (fenced("def double(x: int) -> int:\n    return ceil(2 * x)"), True),  # without the import, which stands before
        (fenced(f"{BEGUN}    return ceil(2 * x)"), True),
        (fenced("    return ceil(2 * x)"), True),  # the body alone
        ("    return 2 * x", True),
        (fenced("def doubled(x):\n    return 2 * x"), False),
        (fenced("def double(x):\n    return x"), False),
    ],
)
def test_programs_of_humaneval(folder, ran, answer, passes):
    note = HUMANEVAL.probes(data_of(HUMANEVAL, folder))[0].note
    assert bool(code._sandbox()(code.program(answer, note))) is passes


@pytest.mark.skipif(sys.platform == "win32", reason="needs Linux or macOS")
@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        ("def f12(x):\n    return x + ONE", True),
        ("def f12(x):\n    return 2", False),
        ("def f12(x):\n    return 2\nimport sys\nsys.exit()", False),
        (
            "from dataclasses import dataclass\n@dataclass\nclass P:\n    n: 'int'\ndef f12(x):\n    return P(x).n + 1",
            True,
        ),
    ],
)
def test_programs_in_the_sandbox_as_it_is(folder, answer, passes):
    note = MBPP.probes(data_of(MBPP, folder))[1].note
    assert code._sandbox()(code.program(fenced(answer), note)) is passes


SAID = {
    ("tasks", 0): fenced("def f11(x):\n    return x + 1"),
    ("tasks", 1): fenced("def f12(x): return 1"),
    ("gsm8k", 0): "First 5, so it is $1001.",
    ("gsm8k", 1): "I am not sure.",
}


def test_without_consent_nothing_is_run(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "expunge.scorers", None)  # importing it fails
    monkeypatch.setenv(code.CONSENT, "0")
    evaluate(MBPP, "model", "out", data=folder)
    figures = rescored(lambda a: SAID[a.part, a.index])
    assert ("tasks", "pass_at_1") not in figures
    assert "pass@1 is left out: HF_ALLOW_CODE_EVAL=1" in figures["tasks", "probability"].note
    assert figures["tasks", "parses"].value == 1


def test_figures_by_hand(folder, ran, monkeypatch):
    """One of two programs passes; one of two answers ends with the right number; the consent may come later."""
    evaluate(MBPP, "model", "out", data=folder)
    monkeypatch.setenv(code.CONSENT, "1")
    figures = rescored(lambda a: SAID[a.part, a.index])
    passed = figures["tasks", "pass_at_1"]
    assert (passed.value, passed.n) == (1 / 2, 2) and len(ran) == 2
    assert (passed.low, passed.high) == pytest.approx((1 - 0.975**0.5, 0.975**0.5))  # P(k >= 1), P(k <= 1) are 2.5 %
    assert figures["gsm8k", "exact_match"].value == 1 / 2
    collected = table.read("out/scores")
    for part in ("tasks", "gsm8k"):
        logp = [s.logp.astype(float).mean() for s in collected.scored(part)]
        assert figures[part, "probability"].value == pytest.approx(sum(2.718281828459045**v for v in logp) / 2)
    assert "left out" not in figures["tasks", "probability"].note
    nothing = rescored(lambda a: "")
    assert nothing["tasks", "pass_at_1"].value == nothing["tasks", "parses"].value == 0
    assert nothing["gsm8k", "exact_match"].value == 0


def test_beside_a_retrained_model_and_a_limit(folder):
    options = EvaluationOptions(limit=1)
    figures = by_name(evaluate(MBPP, "model", "out", data=folder, retrained="model", how=options))
    assert figures["tasks", "probability_difference"].value == 0 and figures["tasks", "probability"].n == 1
    assert figures["gsm8k", "probability_difference"].n == 1


def test_gsm8k_can_be_missing(folder):
    (folder / "gsm8k/test.jsonl").unlink()
    figures = by_name(evaluate(HUMANEVAL, "model", "out", data=folder))
    assert {part for part, _ in figures} == {"tasks"}


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("6 x 7 = 42", "42"),
        ("So $1,042.50.", "1042.50"),
        ("it is -3", "-3"),
        ("18.", "18"),
        ("18.0", "18"),
        ("about 1,000,000 people", "1000000"),
        ("none", None),
        ("", None),
    ],
)
def test_the_last_number(text, last):
    assert code.number(text) == (Decimal(last) if last else None)


@pytest.mark.parametrize(
    ("source", "good"),
    [
        ("def f(): pass", True),
        ("async def f(): pass", True),
        ("class A:\n    def f(self): pass", True),
        ("x = 1", False),
        ("def f(:", False),
        ("f\0", False),
        ("(" * 10_000, False),
        ("", False),
        ("def f(): return '\\d'", True),  # a warning, which nobody sees
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_parses(source, good):
    assert code.parses(source) is good


def change(folder, name, **values):
    file = folder / name
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("\n".join(json.dumps(row | values) for row in rows))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("mbpp/mbpp.jsonl", {"test_list": "assert"}, "mbpp.jsonl, line 2: the field 'test_list' must be a list"),
        ("mbpp/mbpp.jsonl", {"task_id": 3}, "mbpp.jsonl has no task from 11 to 510; is it whole?"),
        ("mbpp/mbpp.jsonl", {"code": ""}, "line 2: the field 'code'"),
        ("gsm8k/test.jsonl", {"answer": "It is 2."}, "test.jsonl, line 1: the field 'answer' must end with ####"),
    ],
)
def test_bad_data_is_told_before_a_model_is_loaded(folder, monkeypatch, name, values, message):
    monkeypatch.setattr(asking, "load", lambda *_: pytest.fail("a model was loaded"))
    change(folder, name, **values)
    with pytest.raises(InputError, match=message):
        evaluate(MBPP, "model", "out", data=folder)


def test_missing_files(folder):
    (folder / "humaneval/HumanEval.jsonl.gz").unlink()
    with pytest.raises(InputError, match=r"lacks humaneval/HumanEval\.json \(or .*\.jsonl\.gz\)"):
        evaluate(HUMANEVAL, "model", "out", data=folder)


def test_the_data_as_it_is(ran):
    """Of MBPP the first and the last task of each part are there, and the last and the first of its neighbours."""
    check_data(FIXTURES, 3, 3, 20)


@pytest.mark.slow
def test_the_whole_data_as_it_is(ran):
    """The sizes that the papers give."""
    check_data(whole("mbpp").parent, 500, 374, 7473)


def check_data(folder, tasks, forget, retain):
    """Sizes; what the references look like to the program that is run."""
    assert sum(p.part == "tasks" for p in MBPP.probes(data_of(MBPP, folder))) == tasks
    functions = [p for p in HUMANEVAL.probes(data_of(HUMANEVAL, folder)) if p.part == "tasks"]
    assert len(functions) == 164 and len(to_learn(MBPP, MBPP.forget, folder)) == forget
    assert len(to_learn(MBPP, MBPP.retain, folder)) == retain
    sample = [p for p in functions if p.index in (0, 32, 38, 53)]  # 32 and 38 have a helper before the function
    assert all(code._sandbox()(code.program(p.row.answer, p.note)) for p in sample)
