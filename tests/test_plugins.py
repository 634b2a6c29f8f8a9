"""Code from outside: a package of one file beside its ``entry_points.txt``, and files given by path."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from expunge import plugins, unlearn
from expunge.benchmarks import named
from expunge.cli import app
from expunge.errors import InputError
from expunge.evaluation import custom
from expunge.evaluation.custom import metrics
from expunge.evaluation.evaluate import figures_of
from expunge.evaluation.table import Collected, Scored
from expunge.method import METHODS, build, entries
from expunge.scorers import scorer

FILE = '''
"""An outside package."""

from functools import partial

from expunge.combine import Combiner
from expunge.evaluation.benchmark import Benchmark
from expunge.losses import nll, not_monotone
from expunge.method import Method, Objective, method


def dampened(x, *, scale=0.5):
    """Gradient ascent, scaled."""
    return -scale * nll(x)


class Halves(Combiner):
    """Half of each."""

    def weights(self, losses, gram=None):
        return losses.new_full((len(losses),), 0.5)


@method(paper="arXiv:0000.00000")
def outside_ascent(*, scale: float = 0.5) -> Method:
    """Forget by a dampened ascent, keep by the likelihood."""
    return Method(
        {"erase": Objective(partial(dampened, scale=scale), ("forget",)), "keep": Objective(nll, ("retain",))}, Halves()
    )


def outside_plain(*, scale: float = 0.25):
    """The same, without the decorator."""
    return outside_ascent(scale=scale)


def length(text):
    return min(len(text) / 10, 1)


def best_token(found, part):
    return [s.logp.max() for s in found.scored(part)]


def rows_scored(found, part):
    return len(found.scored(part)) if part == "forget" else None


def broken_metric(found, part):
    raise KeyError("secret")


def no_numbers(found, part):
    return ["secret"]


BENCHMARK = Benchmark("outside_bench", "arXiv:0000.00000", (), lambda data: [], lambda own, retrained: [])

no_function = 3
wrong_type = lambda: 3
positional = lambda scale: 3


def gives_a_number(*, scale: float = 1.0):
    return scale
'''
POINTS = """
[expunge.methods]
outside_ascent = outside_package:outside_ascent
outside_gone = outside_gone:method
outside_number = outside_package:no_function
outside_wrong = outside_package:gives_a_number

[expunge.losses]
outside_loss = outside_package:dampened
outside_no_loss = outside_package:no_function

[expunge.combiners]
outside_halves = outside_package:Halves
outside_no_combiner = outside_package:no_function

[expunge.metrics]
outside_best = outside_package:best_token
outside_no_metric = outside_package:no_function

[expunge.scorers]
outside_length = outside_package:length

[expunge.benchmarks]
outside_bench = outside_package:BENCHMARK
outside_no_bench = outside_package:length
"""
RUN = ["run", "--model", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl"]
FAST = {"max_steps": 3, "learning_rate": 0.05, "disable_tqdm": True, "use_cpu": True, "fluency_rows": 0}


@pytest.fixture
def package(tmp_path_factory, monkeypatch):
    """A folder on ``sys.path`` with ``outside_package.py`` and what an installer would write of it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "outside_package.py").write_text(FILE)
    about = folder / "outside_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(folder))
    known = set(entries())
    yield folder
    for name in set(METHODS) - known:
        del METHODS[name]
    sys.modules.pop("outside_package", None)


def scored(part, index, logp):
    logp = np.array(logp, np.float32)
    return Scored(part, index, "answer", "", logp, logp, logp, logp > -1)


def measured(name):
    """What the metric ``name`` of the package gives on one row."""
    import outside_package

    return custom.figures({name: getattr(outside_package, name)}, Collected((scored("forget", 0, [-1.0]),), ()))


def call(*args):
    return CliRunner().invoke(app, list(args))


def test_a_packages_method_trains_with_its_own_loss_and_combiner(workplace, package):
    log = unlearn(
        "model", forget="forget.jsonl", retain="retain.jsonl", method="outside_ascent", parameters={"scale": 8}, **FAST
    ).record
    assert log["method"]["objectives"] == {"erase": "dampened", "keep": "nll"}
    assert (log["method"]["paper"], log["method"]["parameters"]) == ("arXiv:0000.00000", {"scale": 8.0})
    assert [s["step"] for s in log["steps"]] == [1, 2, 3] and {s["weight/keep"] for s in log["steps"]} == {0.5}
    assert log["after"]["forget"]["probability"] < log["before"]["forget"]["probability"]


def test_a_packages_method_on_the_command_line(workplace, package):
    done = call(*RUN, "--method", "outside_ascent", "-p", "scale=0.7", *(f"{k}={v}" for k, v in FAST.items()))
    assert done.exit_code == 0, done.output
    log = json.loads((workplace / "unlearned" / "run.json").read_text())
    assert log["method"]["parameters"] == {"scale": 0.7} and len(log["steps"]) == 3
    assert "Forget by a dampened ascent" in call("show", "outside_ascent").output
    listed = call("methods").output
    assert "outside_ascent" in listed and "npo" in listed
    broken = "the method outside_gone of the package outside-package cannot be loaded: ModuleNotFoundError"
    assert broken in " ".join(listed.split())


@pytest.mark.parametrize("decorated", [True, False])
def test_a_method_of_a_file(workplace, package, decorated):
    name = "outside_ascent" if decorated else "outside_plain"
    (workplace / "mine.py").write_text(FILE)
    done = call(*RUN, "--method", f"mine.py:{name}", "-p", "scale=0.7", *(f"{k}={v}" for k, v in FAST.items()))
    assert done.exit_code == 0, done.output
    log = json.loads((workplace / "unlearned" / "run.json").read_text())["method"]
    assert (log["name"], log["parameters"]) == (name, {"scale": 0.7})
    assert log["status"] == ("unreproduced" if decorated else "custom")
    assert "erase objective: dampened(forget)" in call("show", f"mine.py:{name}").output


def test_any_combiner_over_a_loss_from_outside(workplace, package):
    (workplace / "mine.py").write_text(FILE.split("class Halves")[0])  # its method has the package's name
    for name in ("outside_loss", "mine.py:dampened"):
        method = build("pcgrad", {"forget": name})
        assert [o.name for o in method.objectives.values()] == ["dampened", "nll"]
        assert method.parameters["forget"] == name
    with pytest.raises(InputError, match=r"'npo'.*'outside_loss'"):
        build("pcgrad", {"forget": "outside_lass"})


@pytest.mark.parametrize("name", ["outside_halves", "mine.py:Halves", "mine.py:made", "mine.py:value"])
def test_a_combiner_from_outside_over_any_loss(workplace, package, name):
    own = FILE.partition("@method")[0] + "made = lambda: Halves()\nvalue = Halves()\n"
    (workplace / "mine.py").write_text(own)
    method = build("combined", {"forget": "simnpo", "combiner": name, "retain": "kl"})
    assert [o.name for o in method.objectives.values()] == ["simnpo", "kl"]
    assert method.combine.weights(torch.zeros(2)).tolist() == [0.5, 0.5]
    assert build("combined", {"combiner": name}).combine is not method.combine  # state is not shared by two runs


def test_a_combiner_and_metrics_from_outside_on_the_command_line(workplace, package):
    (workplace / "mine.py").write_text(FILE[FILE.index("def rows_scored") : FILE.index("def broken_metric")])
    options = ["-p", "combiner=outside_halves", "--metric", "outside_best,mine.py:rows_scored"]
    done = call(*RUN, "--method", "combined", *options, *(f"{k}={v}" for k, v in FAST.items()))
    assert done.exit_code == 0, done.output
    log = json.loads((workplace / "unlearned" / "run.json").read_text())
    assert {s["weight/retain"] for s in log["steps"]} == {0.5}
    assert log["method"]["parameters"]["combiner"] == "outside_halves"
    assert -20 < log["after"]["forget"]["outside_best"] < 0 and log["before"]["forget"]["rows_scored"] == 3
    assert "rows_scored" not in log["before"]["retain"]
    assert "outside_best" in (workplace / "unlearned" / "report.html").read_text()


def test_a_metric_of_a_benchmark_has_an_interval_and_is_rescored(workplace, package):
    collected = Collected(tuple(scored("forget", i, [-0.5 * i, -4.0]) for i in range(4)), ())
    chosen = metrics(["outside_best"])
    (one,) = figures_of(named("outside_bench"), {"model": collected}, chosen)["model"]
    assert (one.name, one.part, one.n, one.value) == ("outside_best", "forget", 4, -0.75)  # (0 + 0.5 + 1 + 1.5) / 4
    assert -1.5 <= one.low < one.value < one.high <= 0
    assert metrics(None) == {} and figures_of(named("outside_bench"), {"model": collected})["model"] == []


def test_a_packages_scorer_and_benchmark(package):
    assert scorer("outside_length")(["abc", ""]).tolist() == [0.3, 0]
    assert named("outside_bench").name == "outside_bench"


@pytest.mark.parametrize(
    ("call_plugin", "message"),
    [
        (lambda: build("outside_gone"), "method outside_gone of the package outside-package .*No module named"),
        (lambda: build("outside_number"), "outside_number is no function that gives a Method, but a int"),
        (lambda: build("outside_wrong"), "gives_a_number gave a float, not a Method"),
        (lambda: build("outside_ascend"), "did you mean 'outside_ascent'"),
        (lambda: build("npo_mine.py:f"), "no file npo_mine.py for the method npo_mine.py:f"),
        (lambda: build("npo_mine.py"), "names no function; write npo_mine.py:FUNCTION"),
        (lambda: build("mgda", {"forget": "outside_no_loss"}), "outside_no_loss is a int, neither a function nor"),
        (
            lambda: build("combined", {"combiner": "pcgrad"}),
            "no such combiner; there are 'weighted_sum', 'outside_halves'",
        ),
        (lambda: build("combined", {"combiner": "outside_no_combiner"}), "is a int, neither a Combiner nor a function"),
        (lambda: build("combined", {"combiner": "gone.py:f"}), "no file gone.py for the combiner gone.py:f"),
        (
            lambda: metrics(["outside_bast"]),
            "no metric 'outside_bast', did you mean 'outside_best'.*or give FILE.py:NAME",
        ),
        (lambda: metrics(["outside_no_metric"]), "outside_no_metric is a int, not a function"),
        (lambda: metrics(["outside_best", "outside_best"]), "two metrics are called outside_best"),
        (lambda: measured("broken_metric"), "^the metric broken_metric failed on 'forget': KeyError$"),
        (lambda: measured("no_numbers"), "^the metric no_numbers failed on 'forget': ValueError$"),
        (lambda: scorer("outside_lenght"), "did you mean 'outside_length'"),
        (lambda: named("outside_no_bench"), "outside_no_bench of a package is a function, not a Benchmark"),
    ],
)
def test_what_is_wrong_with_a_plugin_is_one_sentence(package, call_plugin, message):
    with pytest.raises(InputError, match=message) as caught:
        call_plugin()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nraise KeyError('secret')\n", "mine.py cannot be run: KeyError in line 2$"),
        ("import nothing_of_that_name\n", "cannot be run: ModuleNotFoundError in line 1: No module named"),
        ("def f(:\n", "mine.py, line 1: not Python"),
        ("def made(scale):\n    return 1\n", "must take keyword-only parameters with defaults, unlike scale"),
        ("from expunge.method import method\n@method()\ndef npo():\n    pass\n", "there is a method 'npo' already"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InputError, match=message):
        build("mine.py:made")
    with pytest.raises(InputError, match=r"cannot be run|not Python|makes no BENCHMARK|already"):
        named("mine.py")


def test_nothing_from_outside_is_imported_for_a_name_of_the_library(package):
    build("npo")
    scorer("words:a")
    assert "outside_package" not in sys.modules and plugins.names("loss") == ["outside_loss", "outside_no_loss"]
