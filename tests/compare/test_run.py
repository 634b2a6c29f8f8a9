"""A comparison on a tiny model: end to end, gone on with, with a method that fails, and everything that is refused."""

from __future__ import annotations

import json
import re
import shutil
import sys

import numpy as np
import pytest
from tiny_bench import SECRET, rows
from tiny_compare import RECIPE, call, said
from typer.testing import CliRunner

from expunge import bench, compare, record
from expunge.cli import app
from expunge.compare import budget, sweep
from expunge.data.streams import PairedDataset
from expunge.errors import InputError
from expunge.evaluation.collect import cached as asking
from expunge.evaluation.evaluate import read
from expunge.models.tokenizer import load_tokenizer
from expunge.report import compare_page as compared
from expunge.report.compare_page import write_report
from expunge.unlearning import run as unlearning_run
from expunge.unlearning import train
from expunge.unlearning.rows import encode

ANSWER = rows("forget", 4, secret=f" {SECRET}")[0]["answer"]


ONE = RECIPE[: RECIPE.index("[methods.npo_low]")]  # where one method decides it


def never(*_, **__):
    raise AssertionError("a model was loaded, trained or asked")


def value(of, part, name):
    return next(f for f in of["figures"] if (f["part"], f["name"]) == (part, name))


def test_two_methods_end_to_end(finished):
    asked = json.loads((finished / "cache/asked.json").read_text())
    assert asked.count("model") == asked.count("retrained") == 1 and len(asked) == 4  # not once for every method
    whole = said()
    assert [r["name"] for r in whole["runs"]] == ["pdu-seed0", "npo_low-seed0"]
    assert whole["budget"] == {"steps": 2, "rows": 2} and whole["training"]["max_steps"] == 2
    assert [r["learning_rate"] for r in whole["runs"]] == [0.02, 0.01]
    for r in whole["runs"]:
        of_run, figures = record.read(f"out/{r['folder']}/run"), read(f"out/{r['folder']}")
        assert r["figures"] == figures["figures"] and r["steps"] == len(of_run["steps"]) == 2
        assert r["fingerprint"] == figures["model"]["fingerprint"] != whole["target"]["fingerprint"]
        assert figures["beside"]["target"] == whole["target"]["figures"]
        assert figures["beside"]["retrained"] == whole["retrained"]["figures"]
        assert r["seconds"]["steps"] == pytest.approx(sum(s["seconds"] for s in of_run["steps"]))
        folder = finished / "out" / r["folder"]
        assert (finished / "out" / r["record"]).is_file() and not (folder / "run" / "model").exists()
        assert (folder / "scores" / "scores.parquet").is_file()
    npo = whole["runs"][1]
    assert npo["method"]["name"] == "npo" and npo["method"]["parameters"]["beta"] == 0.05
    before = {w: value(whole[w], "forget", "probability")["value"] for w in ("target", "retrained")}
    assert len({value(npo, "forget", "probability")["value"], *before.values()}) == 3
    # the same run alone gives the same figures
    alone = CliRunner().invoke(
        app, ["bench", "tofu/forget01", "--model", "model", "--data", "tofu", "--retrained", "retrained", "--limit", "3",
              "--method", "npo", "-p", "beta=0.05", "max_steps=2", "per_device_train_batch_size=2", "learning_rate=0.01",
              "use_cpu=true", "--out", "alone"],
    )  # fmt: skip
    assert alone.exit_code == 0, alone.output[-600:]
    assert read("alone")["figures"] == npo["figures"]


def test_the_figure_and_the_page_name_every_method_and_model(finished, charts):
    write_report(said(), "out")
    whole, picture, page = (
        said(),
        (finished / "out/tradeoff.svg").read_text(),
        (finished / "out/report.html").read_text(),
    )
    for text in (picture, page):
        assert all(re.search(f">{word}</text>", text) for word in ("pdu", "npo_low", "target", "retrained"))
        assert "Model utility" in text and "Forget probability" in text and "better" in text
    assert picture.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert (finished / "out/tradeoff.png").read_bytes().startswith(b"\x89PNG")
    shown = f"{value(whole['runs'][0], 'forget', 'probability')['value']:.3g}"
    assert f"pdu: {shown} (" in picture  # in its words
    assert "<script" not in page and not re.search(r'(src|href)="(?!#|https://arxiv)|url\((?!#)|@import', page)


def test_what_is_published_names_no_path_and_quotes_no_data(warm):
    names = ["--model-name", "TinyTarget", "--data-name", "slice", "--retrained-name", "TinyRetrained"]
    given = ["--model", warm / "model", "--data", warm / "tofu", "--retrained", warm / "retrained"]
    done = call(*given, *names, "--out", warm / "out", "methods.pdu.budget=1e-9", "methods.npo_low.beta=0.1")
    assert done.exit_code == 0, done.output[-600:]
    for name in ("compare.json", "report.html", "tradeoff.svg"):
        text = (warm / "out" / name).read_text()
        assert str(warm) not in text and SECRET not in text, name
    whole = said()
    assert (whole["target"]["source"], whole["retrained"]["source"]) == ("TinyTarget", "TinyRetrained")
    assert whole["data"]["source"] == "slice" and whole["runs"][1]["method"]["parameters"]["beta"] == 0.1


def test_what_is_there_is_not_made_again(finished, monkeypatch):
    (finished / "r.toml").write_text(ONE)
    assert call("seeds=0,1").exit_code == 0
    before = said()
    assert [r["name"] for r in before["runs"]] == ["pdu-seed0", "pdu-seed1"]
    assert before["runs"][0]["fingerprint"] != before["runs"][1]["fingerprint"]
    shutil.rmtree(finished / "out/runs/pdu-seed1")
    (finished / "out/compare.json").unlink()
    trained, own = [], unlearning_run.run
    monkeypatch.setattr(unlearning_run, "run", lambda plan, **k: (trained.append(plan.out), own(plan, **k))[1])
    done = call("seeds=0,1")
    assert done.exit_code == 0 and done.output.count("which is there already") == 1, done.output
    assert trained == ["out/runs/pdu-seed1/run"]
    times = ("seconds", "created", "command")
    again = said()
    for r, s in zip(before["runs"], again["runs"], strict=True):
        assert {k: v for k, v in r.items() if k not in times} == {k: v for k, v in s.items() if k not in times}
    monkeypatch.setattr(asking, "collect", never)
    monkeypatch.setattr(unlearning_run, "run", never)
    assert call("seeds=0,1").exit_code == 0 and said()["runs"] == again["runs"]


def test_other_settings_data_or_models_are_not_taken_for_the_same(warm, monkeypatch):
    assert call("--keep", "all").exit_code == 0
    assert (warm / "out/runs/pdu-seed0/run/model/config.json").exists()
    with monkeypatch.context() as m:
        m.setattr("expunge.models.load", never)
        for change, words in (
            ("methods.npo_low.beta=0.1", "npo_low-seed0 holds a run with other settings (parameters"),
            ("weight_decay=0.5", "pdu-seed0 holds a run with other settings (training"),
            ("limit=2", "other settings (limit: 3, now 2)"),
            ("trainable=down_proj", "other settings (trainable: None, now 'down_proj')"),
            ("optimizer=sophia", "other settings (optimizer: None, now {"),
        ):
            done = call(change)
            assert done.exit_code == 2 and words in done.output, done.output
        text = (warm / "tofu/retain99.json").read_text()
        (warm / "tofu/retain99.json").write_text(text + "\n" + json.dumps(rows("more", 1)[0]))
        assert "the retain rows are others" in call().output
        (warm / "tofu/retain99.json").write_text(text)
    done = call("--retrained", "model")
    assert done.exit_code == 2 and "another retrained model" in done.output
    before = said()
    change = "methods.npo_low.training.learning_rate=0.05"
    assert call(change, "--overwrite").exit_code == 0
    after = said()
    assert after["runs"][1]["learning_rate"] == 0.05
    assert after["runs"][0] == before["runs"][0] and after["runs"][1]["figures"] != before["runs"][1]["figures"]


def test_what_a_run_no_longer_has_is_another_setting_too(warm):
    (warm / "r.toml").write_text(ONE)
    assert call("optimizer=sophia", "trainable=down_proj").exit_code == 0
    done = call("optimizer=sophia")
    assert done.exit_code == 2 and "(trainable: 'down_proj', now None)" in done.output, done.output
    done = call("trainable=down_proj")
    assert done.exit_code == 2 and "(optimizer: {" in done.output, done.output


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_stops_at_a_holdout_set_says_so_and_is_not_the_same_without_it(warm):
    (warm / "r.toml").write_text(RECIPE.replace('method = "npo"\nbeta = 0.05', 'method = "grad_diff"'))
    text = "\n".join(json.dumps({"question": f"Who {i}?", "answer": f"uvw {i} xyz"}) for i in range(3))
    (warm / "h.jsonl").write_text(text)
    given = ("max_steps=12", "learning_rate=0.05")
    call("holdout=h.jsonl", *given)
    whole = said()
    (early,) = (r for r in whole["runs"] if r["done"] and r["label"] == "npo_low")
    assert early["steps"] == len(record.read(f"out/{early['folder']}/run")["steps"]) < 12
    assert whole["warnings"][-1:] == [
        f"Not every run took all 12 steps; stopped: npo_low-seed0 after {early['steps']}."
    ]
    assert "each at most 12 steps" in compared.summary(whole)
    done = call(*given)
    assert done.exit_code == 2 and "the holdout rows are others" in done.output, done.output


def test_a_run_that_was_broken_off_leaves_no_figures_of_an_earlier_one(finished, monkeypatch):
    before = said()["runs"][1]
    change = "methods.npo_low.training.learning_rate=0.05"

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(sys.modules["expunge.bench.run"], "evaluate", killed)  # trained anew, and then the machine stopped
        assert call(change, "--overwrite").exit_code == 130
    assert call(change).exit_code == 0
    after = said()["runs"][1]
    assert after["fingerprint"] != before["fingerprint"] and after["figures"] != before["figures"]
    (finished / "out/runs/pdu-seed0/run/run.json").unlink()
    assert call(change).exit_code == 0 and said()["runs"][0]["done"]


def test_a_failure_is_one_line_without_paths_and_data(place):
    it = bench.ready(compare.trials(compare.make(compare.read_file("r.toml")))[0].settings)

    def sentence_of(error):
        with pytest.raises(type(error)) as caught:
            raise error
        return sweep.sentence(caught.value, it)

    start = r"^ValueError in test_run\.py, line \d+: "
    assert re.search(f"{start}c.bin broke$", sentence_of(ValueError("/a/b/c.bin broke\nand more")))
    assert re.search(f"{start}no reason given$", sentence_of(ValueError(" ")))
    assert re.search(f"{start}its message quotes the data$", sentence_of(ValueError(f"at {ANSWER}")))
    assert sentence_of(InputError("/a/b/c.bin is damaged")) == "c.bin is damaged"


def test_a_method_that_fails_is_recorded_and_the_others_go_on(warm, monkeypatch):
    own, trouble = train.train, RuntimeError(f"/home/me/x.py broke at {ANSWER}")

    def failing(net, tokenizer, data, method, *a, **k):
        if method.name == "pdu":
            raise trouble
        return own(net, tokenizer, data, method, *a, **k)

    with monkeypatch.context() as m:
        m.setattr(train, "train", failing)
        done = call()
    assert done.exit_code == 1 and "pdu-seed0 failed" in done.output and "1 run failed" in done.output, done.output
    first, second = said()["runs"]
    assert not first["done"] and first["said"].startswith("RuntimeError in test_run.py")
    assert SECRET not in json.dumps(said()) and "/home/me" not in first["said"]
    assert second["done"] and second["figures"]
    page = (warm / "out/report.html").read_text()
    assert "<strong>pdu-seed0</strong> failed: " in page and SECRET not in page
    assert call().exit_code == 0 and [r["done"] for r in said()["runs"]] == [True, True]  # it is tried again


def test_a_grid_makes_a_run_of_every_choice(place):
    text = RECIPE.replace("[methods.pdu]", "[methods.pdu]\n[methods.pdu.grid]\nstep_size = [1.0, 5.0]")
    (place / "r.toml").write_text(
        text.replace("training.learning_rate = 0.01", "[methods.npo_low.grid]\nlearning_rate = [0.01, 0.02]")
    )
    found = compare.trials(compare.make(compare.read_file("r.toml")))
    assert [t.name for t in found] == [
        "pdu-step_size=1.0-seed0", "pdu-step_size=5.0-seed0",
        "npo_low-learning_rate=0.01-seed0", "npo_low-learning_rate=0.02-seed0",
    ]  # fmt: skip
    assert [t.settings.run["parameters"] for t in found[:3]] == [{"step_size": 1.0}, {"step_size": 5.0}, {"beta": 0.05}]
    assert [t.settings.run["training"]["learning_rate"] for t in found] == [0.02, 0.02, 0.01, 0.02]
    assert found[2].shown == "npo_low learning_rate=0.01"
    of_both_seeds = compare.trials(compare.make(compare.read_file("r.toml") | {"seeds": [0, 1]}))
    assert [t.name for t in of_both_seeds] == [t.name.replace("seed0", f"seed{s}") for s in (0, 1) for t in found]


def test_a_level_is_left_to_the_methods_that_read_it(place):
    values = compare.read_file("r.toml") | {"methods": {"npo": {}, "ends": {"method": "level"}}, "level": "other"}
    npo, ends = compare.trials(compare.make(values))
    assert "level" not in npo.settings.run and ends.settings.run["level"] == "other"


def test_the_rows_of_a_grid_are_read_and_checked_once(place, monkeypatch):
    text = RECIPE.replace("seeds = [0]", "seeds = [0, 1]").replace(PDU, f"{GRID}step_size = [1.0, 5.0]")
    (place / "r.toml").write_text(text)
    encoded, own = [], encode
    monkeypatch.setattr(sys.modules["expunge.bench.run"], "encode", lambda *a: (encoded.append(a), own(*a))[1])
    settings = compare.make(compare.read_file("r.toml") | {"unequal_trials": True})
    assert len(compare.planned(settings)["method"]) == 6 and len(encoded) == 2
    found = compare.trials(settings)
    again = bench.ready(found[-1].settings, rows=bench.ready(found[0].settings).rows)
    assert again.rows == bench.ready(found[-1].settings).rows


PDU = "[methods.pdu]"
GRID = f"{PDU}\n[methods.pdu.grid]\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((PDU, f"{PDU}\ntraining.max_steps = 3"), "pdu-seed0 takes 3 steps of 2 rows, npo_low-seed0 2"),
        ((PDU, f"{PDU}\ntraining.gradient_accumulation_steps = 2"), "takes 2 steps of 4 rows"),
        ((PDU, f"{GRID}step_size = [1, 5]"), "unequal numbers of trials (pdu 2, npo_low 1)"),
        ((PDU, f"{GRID}max_steps = [1, 5]"), "every run has the same budget"),
        ((PDU, f"{GRID}step_sise = [1, 5]"), "did you mean 'step_size'"),
        ((PDU, f"{PDU}\nstep_size = 1\n[methods.pdu.grid]\nstep_size = [1, 5]"), "leave out one"),
        ((PDU, f"{GRID}step_size = [1, 1]\n[methods.npo_low.grid]\nretain=['nll', 'kl']"), "twice"),
        ((PDU, "[methods.pdy]"), "there is no method 'pdy', did you mean 'pdu'?"),
        (("beta = 0.05", "bete = 0.05"), "npo has no parameter 'bete', did you mean 'beta'?"),
        (("beta = 0.05", "beta = -1"), "npo: beta=-1 does not fit"),
        ((PDU, '[methods."a/b"]'), "is no name for a folder"),
        ((PDU, f"{PDU}\ntraining = 3"), "training = 3 does not fit"),
        (("learning_rate = 0.02", "learning_rat = 0.02"), "did you mean 'learning_rate'"),
        (("seeds = [0]", "seeds = [0, 0]"), "a seed stands twice"),
        (("seeds = [0]", "seeds = []"), "seeds = [] does not fit"),
        (("seeds = [0]", "seed = 0"), "seed is not for a comparison; use seeds"),
        (("seeds = [0]", 'method = "npo"'), "use the table [methods.NAME]"),
        (("seeds = [0]", 'forget_figure = "forget/probabilty"'), "did you mean 'forget/probability'?"),
        (("seeds = [0]", 'utility_figure = "utility"'), "tofu/forget01 has no figure 'utility' for utility_figure"),
        (("seeds = [0]", 'keep = "some"'), "keep = 'some' does not fit"),
        (("seeds = [0]", 'out = "r.toml"'), "a file of that name is in the way"),
        (('model = "model"', ""), "model is missing; give --model"),
        (('"tofu/forget01"', '"tofu/forget02"'), "did you mean"),
        (('data = "tofu"', 'data = "nowhere"'), "there is no folder nowhere"),
    ],
)  # fmt: skip
def test_bad_input_is_told_before_a_model_is_loaded(place, monkeypatch, change, words):
    monkeypatch.setattr("expunge.models.load", never)
    (place / "r.toml").write_text(
        RECIPE.replace('out = "out"\n' if "out =" in change[1] else "\0", "").replace(*change)
    )
    done = call()
    assert done.exit_code == 2 and words in " ".join(done.output.split()), (done.output, done.exception)
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["methods.pdi.budget=1"], "there is no table [methods.pdi], did you mean 'pdu'?"),
        (["method.beta=1"], "parameters is not for a comparison"),
        (["max_step=1"], "did you mean 'max_steps'"),
        (["methods.pdu.training.max_steps=5"], "the budgets are not equal"),
    ],
)
def test_bad_settings_over_the_recipe(place, monkeypatch, args, words):
    monkeypatch.setattr("expunge.models.load", never)
    done = call(*args)
    assert done.exit_code == 2 and words in done.output, (done.output, done.exception)


def test_one_process_only_and_not_a_bench_recipe(place, monkeypatch):
    (place / "b.toml").write_text('benchmark = "tofu/forget01"\nmodel = "model"\n')
    done = CliRunner().invoke(app, ["compare", "b.toml"])
    assert done.exit_code == 2 and "has no methods to compare" in done.output
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = call()
    assert done.exit_code == 2 and "runs in one process" in done.output


def test_from_python(warm):
    whole = compare.compare(
        "tofu/forget01", ["grad_diff", "npo"], "model", data="tofu", retrained="retrained", limit=3, max_steps=2,
        learning_rate=0.02, use_cpu=True, disable_tqdm=True, out="py", utility_figure="retain/probability",
    )  # fmt: skip
    assert whole == said("py") and [r["label"] for r in whole["runs"]] == ["grad_diff", "npo"]
    assert "Retain: probability" in (warm / "py/tradeoff.svg").read_text()
    with pytest.raises(InputError, match="has no methods"):
        compare.compare("tofu/forget01", [], "model")


def test_unequal_trials_that_are_allowed_are_told(finished):
    grid = "[methods.pdu]\n[methods.pdu.grid]\nstep_size = [1, 5]"
    text = RECIPE.replace("[methods.pdu]", grid).replace("seeds = [0]", "unequal_trials = true")
    (finished / "r.toml").write_text(text)
    assert call().exit_code == 0
    assert len(said()["runs"]) == 3 and "unequal numbers of trials" in (finished / "out/report.html").read_text()


def test_adapters_are_kept_and_whole_models_are_not(warm):
    (warm / "r.toml").write_text(ONE)
    assert call("--adapter", "lora").exit_code == 0
    assert (warm / "out/runs/pdu-seed0/run/model/adapter_config.json").exists()
    assert call("--adapter", "lora", "--keep", "none").exit_code == 0
    assert not (warm / "out/runs/pdu-seed0/run/model").exists() and (warm / "out/runs/pdu-seed0/scores").exists()


def test_the_budget_is_what_the_trainer_does(warm):
    """Steps of epochs against the trainer's own count, tokens against a count by hand."""
    assert (
        call("max_steps=-1", "num_train_epochs=3", "gradient_accumulation_steps=2", "--adapter", "lora").exit_code == 0
    )
    whole = said()
    assert whole["budget"] == {"steps": 3, "rows": 4} and whole["runs"][0]["steps"] == 3
    settings = compare.trials(compare.make(compare.read_file("r.toml")))[0].settings
    it = bench.ready(settings.model_copy(update={"overwrite": True}))
    data = encode(it.rows, load_tokenizer("model"), it.plan)
    paired = PairedDataset(data.examples, seed=0, window=4)
    total = 0
    for start in range(0, 12, 2):  # three epochs of four rows, in micro-batches of two
        for stream in ("forget", "retain"):
            total += 2 * max(len(paired[k][stream]["input_ids"]) for k in (start, start + 1))
    assert [r["tokens"] for r in whole["runs"]] == [total, total]
    assert budget.Budget(3, 4) == budget.equal({"a": budget.Budget(3, 4), "b": budget.Budget(3, 4)})


def test_numbers_of_the_table_are_those_of_the_record(finished):
    whole = said()
    shown = {line.name: [float(v) for v, _ in line.cells[:2]] for line in compared.lines(whole)}
    for who, of in (("target", whole["target"]), ("pdu", whole["runs"][0])):
        real = [value(of, "forget", "probability")["value"], value(of, "all", "model_utility")["value"]]
        assert np.allclose(shown[who], real, rtol=0.06, atol=6e-4)
