"""A tuning on a tiny model: equal budgets, halves, the best recipe, going on, pruning, failures, and what is refused."""

from __future__ import annotations

import json
import math
import pickle
import shutil
import signal
import sys
from pathlib import Path

import pytest
import tiny_bench
import torch
from tiny_tune import SETTINGS, call, said, settings
from transformers import AutoModelForCausalLM, AutoTokenizer

from expunge import jobs, record, tune
from expunge.data import chat
from expunge.data.sources import load_rows
from expunge.errors import InputError, RunFailed
from expunge.evaluation.collect import one_pass
from expunge.jobs.tasks import Done, carry_out
from expunge.models.tokenizer import load_tokenizer
from expunge.training import signals
from expunge.tune import on_rows, study
from expunge.tune.study import Study
from expunge.unlearning import run as unlearning_run
from expunge.unlearning import settings as recipe

tuning = sys.modules["expunge.tune.run"]  # the room shows its function under that name


def never(*_, **__):
    raise AssertionError("a model was loaded or trained")


def value(figures, part):
    return next(f["value"] for f in figures if (f["part"], f["name"]) == (part, "probability"))


def probability(folder, file, which):
    """Mean over the rows ``which`` of a file of the answer's probability per token, by a plain loop over transformers."""
    model, words = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    out = []
    for row in [load_rows(file)[i] for i in which]:
        e = chat.encode(row, words)
        with torch.no_grad():
            logp = model(torch.tensor([e.input_ids])).logits[0].log_softmax(-1)
        answer = [t for t, label in enumerate(e.labels) if label != -100]
        out.append(math.exp(sum(logp[t - 1, e.labels[t]].item() for t in answer) / len(answer)))
    return sum(out) / len(out)


def test_equal_budgets_scores_of_both_halves_and_the_best_of_each_method(finished):
    whole = said()
    assert [r["name"] for r in whole["runs"]] == ["npo-0000", "npo-0001", "grad_diff-0000", "grad_diff-0001"]
    assert all(r["state"] == "finished" and r["steps"] == 3 for r in whole["runs"])
    assert whole["budget"] == {"steps": 3, "rows": 2} and whole["trials"] == 2
    assert whole["rows"] == {"first": {"forget": 2, "retain": 3}, "second": {"forget": 1, "retain": 2}}
    first = whole["runs"][0]["choice"]  # the method as it is
    assert first["beta"] == 0.1 and first["retain_weight"] == 1.0 and "forget_weight" not in first
    assert first["learning_rate"] == 1e-3  # its own, 1e-5, is below what is searched
    target, reference = whole["target"], whole["reference"]
    assert [value(target["figures_first"], "forget"), value(target["figures"], "forget")] == [
        pytest.approx(probability("model", "forget.jsonl", rows), rel=1e-4) for rows in ([0, 2], [1])
    ]
    assert value(reference["figures"], "retain") == pytest.approx(
        probability("other", "retain.jsonl", [1, 3]), rel=1e-4
    )
    for run in whole["runs"]:
        model = f"out/trials/{run['name']}/model"
        assert value(run["figures"], "forget") == pytest.approx(probability(model, "forget.jsonl", [1]), rel=1e-4)
        for half, figures in (("first", "figures_first"), ("second", "figures")):
            x, x0, level = (value(it[figures], "forget") for it in (run, target, reference))
            kept = min(1, value(run[figures], "retain") / value(target[figures], "retain"))
            forgotten = (x0 - x) / (x0 - level) if x >= level else x / level
            forgotten = min(1, max(0, forgotten))
            by_hand = 2 * forgotten * kept / (forgotten + kept) if forgotten and kept else 0
            assert run[f"score_{half}"] == pytest.approx(by_hand)
        assert run["forgotten"] == pytest.approx(forgotten) and run["retained"] == pytest.approx(kept)
    for method in whole["methods"]:
        of = [r for r in whole["runs"] if r["label"] == method["label"]]
        assert method["best"] == max(of, key=lambda r: r["score_first"])["name"]
    assert len({json.dumps(r["choice"]) for r in whole["runs"]}) == 4


def test_the_best_recipe_gives_the_figures_of_its_trial(finished, monkeypatch):
    """Typed as it is; the trial was measured while it trained, the run is not."""
    whole = said()
    best = next(r for r in whole["runs"] if r["name"] == whole["methods"][0]["best"])
    assert len(best["intermediate"]) == 2
    (finished / "elsewhere").mkdir()
    monkeypatch.chdir(finished / "elsewhere")
    done = unlearning_run.run(recipe.make(recipe.read("../out/best-npo.toml"), "best-npo.toml"))
    trial = record.read(f"../out/{best['record']}")
    assert done.folder == Path("unlearned-npo") and done.record["after"] == trial["after"]
    assert [s["loss/forget"] for s in done.record["steps"]] == [s["loss/forget"] for s in trial["steps"]]
    assert done.record["output"]["fingerprint"] == trial["output"]["fingerprint"]


def test_nothing_of_the_data_is_in_what_is_written(finished):
    files = [p for p in (finished / "out").rglob("*") if p.is_file() and "model" not in p.parts]
    assert {"study.db", "tune.json", "setup.json", "report.html", "best-npo.toml"} <= {p.name for p in files}
    for file in files:
        content = file.read_bytes()
        assert b"lives" not in content and b"Oru" not in content, file


def test_the_same_again_runs_nothing_and_more_trials_go_on(finished, monkeypatch):
    before = said()
    with monkeypatch.context() as m:
        m.setattr(on_rows, "measured_model", never)
        m.setattr(unlearning_run, "run", never)
        again = tune.run(settings(keep_models=True, overwrite=True, lora={}))  # overwrite is for other settings only
    assert again["runs"] == before["runs"] and again["target"] == before["target"]
    more = tune.run(settings(trials=3))
    assert [r["number"] for r in more["runs"]] == [0, 1, 2, 0, 1, 2]
    assert [r for r in more["runs"] if r["number"] < 2] == [
        r | {"front": next(n["front"] for n in more["runs"] if n["name"] == r["name"])} for r in before["runs"]
    ]
    assert (finished / "out/trials/npo-0001/model").is_dir() and not (finished / "out/trials/npo-0002/model").exists()


def test_the_command_tells_the_best_trial_and_runs_none_again(place, monkeypatch):
    (place / "tuning.yaml").write_text(json.dumps(SETTINGS | {"methods": {"npo": {}}, "search": {"lr": "1e-3,1e-2"}}))
    told = call("tuning.yaml", "--trials", 1)
    assert told.exit_code == 0, told.output
    (method,) = said()["methods"]
    assert any(line.startswith(method["best"]) for line in told.stdout.splitlines()), told.stdout
    assert "out/best-npo.toml" in told.stdout and Path("out/best-npo.toml").is_file()
    monkeypatch.setattr(unlearning_run, "run", never)
    again = json.loads(call("tuning.yaml", "--trials", 1, "--json").stdout)
    assert again["out"] == "out" and again["runs"] == said()["runs"]


def test_a_tuning_that_was_killed_goes_on_as_if_it_had_not_been(finished, monkeypatch):
    own, calls = unlearning_run.run, []

    def killed(*a, **k):
        calls.append(k)
        if len(calls) == 2:
            raise signals.Interrupted(signal.SIGTERM)
        return own(*a, **k)

    monkeypatch.setattr(unlearning_run, "run", killed)
    with pytest.raises(KeyboardInterrupt, match="1 of 2 trials are finished"):
        tune.run(settings(out="again", trials=1))
    assert not Path("again/tune.json").exists()
    whole = tune.run(settings(out="again", trials=1))
    assert len(calls) == 3  # the one that was killed was begun again, the first was not
    same = ("name", "choice", "score_first", "score_second", "figures", "steps", "intermediate")
    before = [r for r in said()["runs"] if r["number"] == 0]
    assert [[r[k] for k in same] for r in whole["runs"]] == [[r[k] for k in same] for r in before]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"search": {"lr": "1e-3:1:log"}}, "methods: npo: search: learning_rate: '0.001:0.1:log', now '0.001:1:log'"),
        ({"training": {"max_steps": 4, "per_device_train_batch_size": 2}}, r"budget: \[3, 2\], now \[4, 2\]"),
        ({"prune": "none"}, "prune: "),
        ({"objective": "retain/probability"}, "objective: None, now 'retain/probability'"),
        ({"seed": 1}, "settings: seed: None, now 1"),
        ({"eval_rows": 4}, "settings: eval_rows: None, now 4"),
    ],
)
def test_a_folder_of_another_tuning_is_refused(finished, monkeypatch, changes, sentence):
    monkeypatch.setattr(on_rows, "measured_model", never)
    with pytest.raises(
        InputError, match=f"out holds a tuning with other settings \\({sentence}.*begin anew with --overwrite"
    ):
        tune.run(settings(**changes))


def test_other_rows_and_another_model_are_refused_and_overwrite_begins_anew(finished, monkeypatch):
    shutil.copytree("model", "kept")
    shutil.rmtree("model")
    shutil.copytree("other", "model")
    with pytest.raises(InputError, match="out holds a tuning with another target model"):
        tune.run(settings(trials=3))
    shutil.rmtree("model")
    shutil.move("kept", "model")
    rows = (finished / "forget.jsonl").read_text()
    (finished / "forget.jsonl").write_text(rows.replace("Ada", "Ida"))
    with pytest.raises(InputError, match=r"the rows are others"):
        tuning.ready(settings())
    (finished / "forget.jsonl").write_text(rows)
    monkeypatch.setattr(tuning, "sweep", lambda *a: None)
    whole = tune.run(settings(trials=1, seed=1, overwrite=True))
    assert (
        whole["runs"] == [] and not list((finished / "out").glob("best-*")) and not (finished / "out/trials").exists()
    )
    assert [m["best"] for m in whole["methods"]] == [None, None]


def test_a_trial_that_is_pruned_or_breaks_down_is_recorded_so(place, monkeypatch):
    monkeypatch.setattr(Study, "report", lambda self, number, step, value: (number, step) == (1, 2))
    own = unlearning_run.run

    def run(it, **k):
        if it.out.endswith("0002"):
            raise RunFailed("the loss is nan at step 2 of Ada lives in Oru.")
        if it.out.endswith("0003"):
            raise ValueError("no memory")
        return own(it, **k)

    monkeypatch.setattr(unlearning_run, "run", run)
    lines = []
    whole = tune.run(settings(methods=["grad_diff"], search={"lr": "1e-3:1e-1:log"}, trials=4), tell=lines.append)
    assert [r["state"] for r in whole["runs"]] == ["finished", "pruned", "failed", "failed"]
    _, pruned, bad, broken = whole["runs"]
    assert pruned["steps"] == 2 and "score_first" not in pruned and not (place / "out/trials/grad_diff-0001").exists()
    assert bad["said"] == "its message quotes the data" and "ValueError in test_run.py" in broken["said"]
    values = Study(place / "out/study.db", "grad_diff").study.get_trials()
    assert [v.value for v in values[2:]] == [0.0, None]  # TPE keeps away from settings that break a model down
    assert any("2 of 4 trials failed; the first, grad_diff-0002" in w for w in whole["warnings"])
    assert any("pruned after step 2" in line for line in lines) and lines[-1].startswith(
        "   4 of 4 done: grad_diff-0003"
    )


def test_in_other_processes_the_trials_are_the_same_and_a_lost_one_has_failed(finished, monkeypatch):
    """Tasks as in another process: pickled there and back."""

    def spread(tasks, _, **__):
        for task in tasks:
            if task.name == "grad_diff-0000":
                yield Done(task.name, error="its process was killed 3 times", code=1)
            else:
                yield pickle.loads(pickle.dumps(carry_out(pickle.loads(pickle.dumps(task)))))

    monkeypatch.setattr(jobs, "spread", lambda *a, **k: (one for one in spread(*a, **k)))
    apart = tune.run(settings(out="apart", jobs=2, trials=1))
    assert apart["runs"][0]["figures"] == said()["runs"][0]["figures"]
    assert apart["runs"][1]["said"] == "its process was killed 3 times" and apart["methods"][1]["best"] is None


def test_measuring_leaves_the_model_as_it_trained(place):
    words = load_tokenizer("model")
    model = AutoModelForCausalLM.from_pretrained("model").train()
    prepared = on_rows.ready(settings(), place / "out")
    from expunge.tune import pruning

    seen = []
    callback = pruning.PruningCallback(
        2, lambda m: one_pass.collect(m, words, prepared.probes) and 0.5, lambda step, _: seen.append(step) or step == 4
    )
    state = lambda n: type("State", (), {"global_step": n, "max_steps": 6})  # noqa: E731
    for step in (1, 2, 3):
        callback.on_step_end(None, state(step), None, model=model)
        assert model.training
    with pytest.raises(pruning.Pruned, match="after step 4"):
        callback.on_step_end(None, state(4), None, model=model)
    callback.on_step_end(None, state(6), None, model=model)
    assert seen == [2, 4]  # the last step is not measured: the trial is


def test_on_a_benchmark_its_figures_are_the_halves(place, tokenizer, monkeypatch):
    tiny_bench.prepare(place, tokenizer, monkeypatch)
    whole = tune.run(
        tune.make(
            {
                "benchmark": "tofu/forget01", "model": "model", "retrained": "retrained", "data": "tofu", "out": "out",
                "methods": ["grad_diff"], "trials": 1, "max_steps": 2, "use_cpu": True, "disable_tqdm": True,
                "utility_figure": "retain/probability", "objective": "retain/probability",
            }
        )
    )  # fmt: skip
    (run,) = whole["runs"]
    assert run["state"] == "finished" and whole["benchmark"] == "tofu/forget01"
    figures = json.loads(Path("out/trials/grad_diff-0000/figures.json").read_text())
    of_all = next(f for f in figures["figures"] if (f["part"], f["name"]) == ("retain", "probability"))
    halves = [value(run[k], "retain") for k in ("figures_first", "figures")]
    n = whole["rows"]["first"]["retain"], whole["rows"]["second"]["retain"]
    assert of_all["value"] == pytest.approx((halves[0] * n[0] + halves[1] * n[1]) / sum(n)) and halves[0] != halves[1]
    assert (run["score_first"], run["score_second"]) == tuple(halves)
    assert not Path("out/trials/grad_diff-0000/run/model").exists()
    assert 'benchmark = "tofu/forget01"' in Path("out/best-grad_diff.toml").read_text()


def test_a_dry_run_and_json_and_refusals_need_no_model(place, monkeypatch):
    monkeypatch.setattr(on_rows, "measured_model", never)
    usual = [
        "--model",
        "model",
        "--forget",
        "forget.jsonl",
        "--retain",
        "retain.jsonl",
        "--method",
        "npo",
        "max_steps=5",
    ]
    done = call(*usual, "--search", "beta=0.1,1", "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    plan = json.loads(done.output)
    assert plan["steps"] == 5 and plan["trials"] == 20 and plan["data"] == {"forget": 3, "retain": 5}
    assert plan["method"][0].startswith("npo (beta=0.1,1.0, forget_weight=0.1:10:log")
    assert not Path("tuned").exists()
    for words, sentence in (
        (["--search", "betta=1:2"], "search: betta is no parameter of npo"),
        (["--search", "beta"], "'beta' is no setting; write key=value, such as lr=1e-5:1e-3:log"),
        (["--trials", "0"], "trials = 0 does not fit"),
        (["--data", "tofu"], "data is not for this tuning: that is of a benchmark (--benchmark NAME)"),
        (["--benchmark", "tofu/forget01"], "forget is not for this tuning: with a benchmark its own rows are used"),
        (["--objective", "mine.py:f"], "there is no file mine.py for the objective mine.py:f"),
        (["--out", "model"], "the output folder is the model"),
        (["--jobs", "2", "--device", "cuda:1"], "--device cuda:1 and --jobs 2 contradict each other"),
        (["processes=2"], "processes is not for a tuning; use --jobs N"),
    ):
        refused = call(*usual, *words)
        assert refused.exit_code == 2 and sentence in " ".join(refused.output.split()), (words, refused.output)
    few = place / "one.jsonl"
    few.write_text((place / "forget.jsonl").read_text().splitlines()[0] + "\n")
    refused = call(*[w if w != "forget.jsonl" else "one.jsonl" for w in usual])
    assert refused.exit_code == 2 and "the forget set has a single row" in refused.output


def test_a_recipe_names_the_method_and_what_stays(place, monkeypatch):
    (place / "r.toml").write_text(
        'model = "model"\nforget = "forget.jsonl"\nretain = "retain.jsonl"\n[method]\nname = "npo"\nbeta = 0.2\n'
        '[training]\nmax_steps = 4\n[search]\nlearning_rate = "1e-4:1e-2:log"\n[search.npo]\nretain_weight = [1, 2]\n'
    )
    values, where = tune.from_words(["r.toml", "trials=3", "search.forget_weight=1"], {"seed": 2}, [])
    made = tune.make(values, where)
    assert made.methods == {"npo": {"beta": 0.2}} and (made.trials, made.shared["seed"]) == (3, 2)
    assert made.search == {"learning_rate": "1e-4:1e-2:log", "npo.retain_weight": "1,2", "forget_weight": "1"}
    _, _, spent, spaces = tuning.ready(made)
    assert {k: str(v) for k, v in spaces["npo"].items()} == {
        "forget_weight": "1.0", "learning_rate": "0.0001:0.01:log", "retain_weight": "1.0,2.0"
    }  # fmt: skip
    assert spent.steps == 4
    values, where = tune.from_words(["r.toml"], {}, ["npo", "pdu"])
    assert tune.make(values, where).methods == {"npo": {"beta": 0.2}, "pdu": {}}


def test_without_given_steps_the_longest_method_sets_the_budget_of_all(place):
    made = settings(methods=["npo", "level"], search={}, training={"per_device_train_batch_size": 2}, level="other")
    _, prepared, spent, spaces = tuning.ready(made)
    own = {label: it.budget.steps for label, it in prepared.own.items()}
    assert own["level"] == 4 * own["npo"] == spent.steps
    assert {str(of["max_steps"]) for of in spaces.values()} == {f"{spent.steps // 8}:{spent.steps}:log"}
    assert prepared.reference == "other"
    assert "learning_rate" in spaces["npo"] and "learning_rate" not in spaces["level"]  # a run finds its own


def test_a_file_that_is_no_study_is_told(finished):
    study.forget_opened()
    (finished / "out/study.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(InputError, match=r"study.db cannot be read \(\w+\); remove it, and the trials are made again"):
        tune.run(settings())
