"""lm-evaluation-harness: what it is called with, shown by one that writes it down; its numbers as figures; bad input."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import scipy.stats
from typer.testing import CliRunner

from expunge.benchmarks import named
from expunge.cli import app
from expunge.errors import InputError
from expunge.evaluation import lm_eval
from expunge.evaluation.collect import cached as asking
from expunge.evaluation.evaluate import read, rescore
from expunge.evaluation.probe import EvaluationOptions

RESULTS = {
    "results": {
        "arc_easy": {
            "name": "arc_easy",
            "alias": "arc_easy",
            "sample_len": 50,
            "acc,none": 0.5,
            "acc_stderr,none": 0.1,
            "acc_norm,none": 0.25,
            "acc_norm_stderr,none": "N/A",
        },
        "wikitext": {"alias": "wikitext", "word_perplexity,strict": 12.5},
    },
    "groups": {"both": {"alias": "both", "sample_len": 52, "acc,none": 0.75, "acc_stderr,none": 0.0}},
    "n-samples": {"wikitext": {"original": 62, "effective": 2}},
    "n-shot": {"arc_easy": 5, "wikitext": 0},
    "versions": {"arc_easy": 1.0},
    "lm_eval_version": "9.9",
}


@pytest.fixture
def calls(workplace, monkeypatch):
    """A harness that notes how it is called and answers with ``SAID``."""
    noted: dict[str, dict] = {}

    class HFLM:
        def __init__(self, pretrained, tokenizer=None, batch_size: int | str | None = 1, max_length: int | None = None):
            noted["wrapper"] = {
                "pretrained": pretrained,
                "tokenizer": tokenizer,
                "batch_size": batch_size,
                "max_length": max_length,
            }

    class TaskManager:
        def __init__(self, include_path=None):
            noted["tasks"] = {"include_path": include_path}
            self.all_tasks = ["arc_easy", "hellaswag"]

    def simple_evaluate(
        model: str | HFLM,
        model_args: str | None = None,
        tasks: list[str] | None = None,
        num_fewshot: int | None = None,
        batch_size: int | str | None = None,
        limit: int | float | None = None,
        log_samples: bool = True,
        system_instruction: str | None = None,
        apply_chat_template: bool | str = False,
        gen_kwargs: str | dict[str, str | float | int] | None = None,
        task_manager: TaskManager | None = None,
    ):
        noted["harness"] = {k: v for k, v in locals().items() if k != "noted"}
        return {**RESULTS, "samples": {"arc_easy": [{"doc_id": 0}]}} if log_samples else RESULTS

    modules = {
        name: ModuleType(name) for name in ("lm_eval", "lm_eval.models", "lm_eval.models.huggingface", "lm_eval.tasks")
    }
    modules["lm_eval"].simple_evaluate = simple_evaluate  # type: ignore[attr-defined]
    modules["lm_eval.models.huggingface"].HFLM = HFLM  # type: ignore[attr-defined]
    modules["lm_eval.tasks"].TaskManager = TaskManager  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return noted


def bench(*more):
    return CliRunner().invoke(app, ["bench", "lm-eval:arc_easy,hellaswag", "--model", "model", *more])


def test_arguments_arrive(calls):
    pairs = [
        "num_fewshot=5",
        "batch_size=8",
        "apply_chat_template=True",
        "system_instruction=5",
        'gen_kwargs={"do_sample": true}',
        "max_length=64",
    ]
    done = bench(*[part for text in pairs for part in ("--arg", text)], "--limit", "7")
    assert done.exit_code == 0 and "acc_norm" in done.output, done.output
    harness, wrapper = calls["harness"], calls["wrapper"]
    assert harness["tasks"] == ["arc_easy", "hellaswag"]
    assert harness["num_fewshot"] == 5 and harness["limit"] == 7 and harness["batch_size"] == 8
    assert harness["apply_chat_template"] is True
    assert harness["system_instruction"] == "5"
    assert harness["gen_kwargs"] == {"do_sample": True}
    assert harness["log_samples"] is False
    assert type(harness["model"]).__name__ == "HFLM" and harness["model_args"] is None
    assert type(wrapper["pretrained"]).__name__ == "LlamaForCausalLM" and wrapper["tokenizer"].eos_token == "<|end|>"
    assert wrapper["batch_size"] == 8 and wrapper["max_length"] == 64
    assert read("figures")["arguments"] == {
        "num_fewshot": 5,
        "batch_size": 8,
        "apply_chat_template": True,
        "system_instruction": "5",
        "gen_kwargs": {"do_sample": True},
        "max_length": 64,
        "limit": 7,
    }


def test_what_is_not_given_is_the_harness_s_own(calls, workplace):
    (workplace / "own").mkdir()
    lm_eval.measure(["arc_easy"], "model", "out", data="own", arguments=["log_samples=true", "batch_size=auto"])
    assert calls["harness"]["num_fewshot"] is None and calls["harness"]["apply_chat_template"] is False
    assert calls["harness"]["limit"] is None and calls["wrapper"]["max_length"] is None
    assert calls["harness"]["batch_size"] == calls["wrapper"]["batch_size"] == "auto"
    assert calls["tasks"] == {"include_path": "own"}
    assert "doc_id" in (workplace / "out" / "samples.json").read_text()


def test_figures_of_its_numbers():
    """0.5 with a standard error of 0.1 is in Wilson's interval of 25 examples; 39 of 52 in Clopper and Pearson's."""
    got = {(f.part, f.name): f for f in lm_eval.figures(RESULTS)}
    assert set(got) == {("arc_easy", "acc"), ("arc_easy", "acc_norm"), ("wikitext", "word_perplexity"), ("both", "acc")}
    acc = got["arc_easy", "acc"]
    assert (acc.value, acc.n) == (0.5, 50)
    assert acc.low == pytest.approx(0.3175, abs=1e-4) and acc.high == pytest.approx(0.6825, abs=1e-4)
    assert acc.note.startswith("filter none, 5-shot, lm-evaluation-harness ")
    assert got["arc_easy", "acc_norm"].low is None and got["arc_easy", "acc_norm"].high is None
    assert (
        got["wikitext", "word_perplexity"].n == 2 and "filter strict, 0-shot" in got["wikitext", "word_perplexity"].note
    )
    both = scipy.stats.binomtest(39, 52).proportion_ci(0.95, method="exact")
    assert (got["both", "acc"].low, got["both", "acc"].high, got["both", "acc"].n) == (
        pytest.approx(both.low),
        pytest.approx(both.high),
        52,
    )


@pytest.mark.parametrize(
    ("metric", "value", "error", "n", "low", "high"),
    [
        ("acc", 0.1, 0.1, 10, 0.0166, 0.4227),  # it was -0.096 to 0.296
        ("acc", 0.0, 0.0, 10, 0.0, 0.3085),  # it was 0 to 0
        ("acc", 1.0, 0.0, 10, 0.6915, 1.0),
        ("exact_match", 0.0, "N/A", 1, 0.0, 0.975),
        ("mcc", -0.95, 0.1, 20, -1.0, -0.754),
        ("mcc", 0.0, 0.1, 20, -0.196, 0.196),
        ("bleu", 1.2, 1.0, 20, 0.0, 3.16),
        ("word_perplexity", 12.5, "N/A", 2, None, None),
    ],
)
def test_an_interval_stays_where_the_figure_can_be(metric, value, error, n, low, high):
    results = {"results": {"t": {"sample_len": n, f"{metric},none": value, f"{metric}_stderr,none": error}}}
    (figure,) = lm_eval.figures(results)
    assert (figure.low, figure.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_the_folder(calls):
    lm_eval.measure(["arc_easy"], "model", "out")
    record = read("out")
    assert record["benchmark"] == "lm-eval:arc_easy" and record["versions"]["lm_eval"]
    assert [f["name"] for f in record["figures"]] == ["acc", "acc_norm", "word_perplexity", "acc"]
    assert record["model"]["source"] == "model" and record["model"]["fingerprint"].startswith("sha256:")
    with pytest.raises(InputError, match="out: there is nothing to rescore"):
        rescore(named, "out")
    with pytest.raises(InputError, match="figures of an earlier evaluation are here"):
        lm_eval.measure(["arc_easy"], "model", "out")
    lm_eval.measure(["arc_easy"], "model", "out", overwrite=True)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--arg", "num_fewshots=1"], "no argument 'num_fewshots' here, did you mean 'num_fewshot'?"),
        (["--arg", "model_args=x=1"], "takes no argument 'model_args' here"),
        (["--arg", "num_fewshot"], "is NAME=VALUE, not 'num_fewshot'"),
        (["--arg", "num_fewshot=many"], "num_fewshot=many does not fit: lm-evaluation-harness wants int | None"),
        (["--arg", "num_fewshot=true"], "num_fewshot=true does not fit"),
        (["--arg", "limit=3", "--limit", "3"], "'limit' is given twice"),
        (["--arg", "limit=3", "--arg", "limit=4"], "'limit' is given twice"),
        (["--data", "nowhere"], "there is no folder nowhere"),
        (["--dtype", "float8"], "dtype must be float32, bfloat16, float16"),
        (["--retrained", "model"], "leave out --retrained"),
    ],
)
def test_bad_input_is_told_before_a_model_is_loaded(calls, monkeypatch, more, message):
    monkeypatch.setattr(asking, "load", lambda *_: pytest.fail("a model was loaded"))
    done = bench(*more)
    assert done.exit_code == 2 and message in done.output, done.output


def test_more_bad_input(calls, monkeypatch):
    with pytest.raises(InputError, match="has no task 'arc_eazy', did you mean 'arc_easy'"):
        lm_eval.measure(["arc_eazy"], "model", "out")
    with pytest.raises(InputError, match="name the tasks"):
        lm_eval.measure([""], "model", "out")
    done = CliRunner().invoke(app, ["bench", "tofu/forget01", "--model", "model", "--arg", "a=1"])
    assert done.exit_code == 2 and "--arg is for lm-eval:TASKS" in done.output
    with pytest.raises(InputError, match="'apply_chat_template' is given twice"):
        lm_eval.measure(
            ["arc_easy"], "m", "out", how=EvaluationOptions(chat_template=True), arguments=["apply_chat_template=true"]
        )

    def fails(**_):
        raise ValueError("no such split\nand more")

    monkeypatch.setattr(sys.modules["lm_eval"], "simple_evaluate", fails)
    with pytest.raises(InputError, match=r"cannot run arc_easy: no such split$"):
        lm_eval.measure(["arc_easy"], "model", "out")
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(InputError, match=r"pip install 'expunge\[lm-eval\]'"):
        lm_eval.measure(["arc_easy"], "model", "out")
