"""Our benchmarks in other evaluators: the rows, and the files of the tasks with what they call, against those libraries
where they are installed and else by their format.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml

from expunge import neighbours
from expunge.errors import InputError

EXAMPLES = Path(__file__).parents[1] / "examples"
OWN = {"benchmark": str(EXAMPLES / "own_benchmark.py"), "data": str(EXAMPLES / "own_benchmark")}


def module(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_rows_are_the_questions_of_the_benchmark():
    rows = neighbours.asked(**OWN)
    lines = {p: (EXAMPLES / "own_benchmark" / f"{p}.jsonl").read_text().splitlines() for p in ("forget", "retain")}
    assert [r["part"] for r in rows] == [p for p, of in lines.items() for _ in of]
    assert rows[0]["messages"][-1]["content"] in lines["forget"][0] and rows[0]["answer"] in lines["forget"][0]
    assert rows[0]["max_new_tokens"] == 40
    few = neighbours.asked(**OWN, part="retain", limit=2)
    assert [(r["part"], r["index"]) for r in few] == [("retain", 0), ("retain", 1)]
    with pytest.raises(InputError, match="did you mean 'retain'"):
        neighbours.asked(**OWN, part="retian")


def load_task(name):
    """The task's YAML, with its functions as callables, as lm-evaluation-harness reads it."""
    folder = EXAMPLES / "lm_eval"
    code = module(folder / "expunge_tasks.py")

    class Loader(yaml.SafeLoader):
        pass

    def function(loader, node):
        file, _, called = loader.construct_scalar(node).partition(".")
        assert (folder / f"{file}.py").is_file()
        return getattr(code, called)

    Loader.add_constructor("!function", function)
    return yaml.load((folder / f"{name}.yaml").read_text(), Loader)


@pytest.mark.parametrize(("name", "higher"), [("expunge_forget", False), ("expunge_retain", True)])
def test_the_tasks_of_lm_evaluation_harness_give_rows_questions_and_scores(name, higher):
    task = load_task(name)
    assert task["task"] == name and task["metric_list"][0]["higher_is_better"] is higher
    docs = task["custom_dataset"](**task["metadata"] | OWN)[task["test_split"]]
    part = name.removeprefix("expunge_")
    assert set(docs["part"]) == {part} and docs[0]["answer"]
    assert task["doc_to_text"](docs[0]) == neighbours.asked(**OWN, part=part)[0]["messages"][-1]["content"]
    metric = task["metric_list"][0]["metric"]
    assert task["process_results"](docs[0], [docs[0]["answer"]]) == {metric: 1.0}
    assert task["process_results"](docs[0], ["xyzzy"]) == {metric: 0.0}


def test_lm_evaluation_harness_takes_the_tasks():
    tasks = pytest.importorskip("lm_eval.tasks")
    found = tasks.TaskManager(include_path=str(EXAMPLES / "lm_eval"), metadata=OWN)
    assert {"expunge_forget", "expunge_retain"} <= set(found.all_tasks)


@pytest.fixture
def inspect(monkeypatch):
    """Inspect, or modules with the names that the task takes from it."""
    if importlib.util.find_spec("inspect_ai"):
        return
    made = {name: ModuleType(name) for name in ("inspect_ai", *(f"inspect_ai.{m}" for m in
            ("dataset", "model", "scorer", "solver")))}  # fmt: skip

    def value(**given):
        return SimpleNamespace(**given)

    made["inspect_ai"].Task, made["inspect_ai"].task = value, lambda f: f
    made["inspect_ai.dataset"].Sample = value
    made["inspect_ai.dataset"].MemoryDataset = lambda samples, name: list(samples)
    for name in ("ChatMessageAssistant", "ChatMessageSystem", "ChatMessageUser", "GenerateConfig"):
        setattr(made["inspect_ai.model"], name, value)
    made["inspect_ai.scorer"].Score = value
    made["inspect_ai.scorer"].mean = made["inspect_ai.scorer"].stderr = made["inspect_ai.solver"].generate = lambda: (
        None
    )
    made["inspect_ai.scorer"].scorer = lambda metrics: lambda f: f
    for name, of in made.items():
        monkeypatch.setitem(sys.modules, name, of)


def test_the_task_of_inspect_has_the_rows_and_scores_them(inspect):
    code = module(EXAMPLES / "inspect_ai" / "expunge_benchmark.py")
    task = code.expunge_benchmark(**OWN, part="retain", limit=3)
    rows = neighbours.asked(**OWN, part="retain", limit=3)
    assert [s.target for s in task.dataset] == [r["answer"] for r in rows]
    assert task.dataset[0].input[-1].content == rows[0]["messages"][-1]["content"]
    assert task.config.max_tokens == 40 and task.config.temperature == 0.0
    state = SimpleNamespace(output=SimpleNamespace(completion=rows[0]["answer"]))
    target = SimpleNamespace(text=rows[0]["answer"])
    assert asyncio.run(code.rouge_l_recall()(state, target)).value == 1.0
