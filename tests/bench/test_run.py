"""A benchmark as one recipe on a tiny model: taught, unlearned, measured before and after, gone on with, and bad input."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from tiny_bench import SECRET, copied, prepare, rows
from typer.testing import CliRunner

from expunge import bench, files, record
from expunge.cli import app
from expunge.errors import InputError
from expunge.evaluation.collect import cached as asking
from expunge.evaluation.evaluate import read
from expunge.unlearning import settings as recipe
from expunge.unlearning import train

FAST = ["max_steps=2", "learning_rate=0.02", "use_cpu=true", "disable_tqdm=true", "fluency_rows=0"]
TEACH = [
    "--teach",
    "--teach-setting",
    "max_steps=2",
    "--teach-setting",
    "use_cpu=true",
    "--teach-setting",
    "learning_rate=0.1",
]
METHOD = ["--method", "npo", "-p", "beta=0.2"]


@pytest.fixture
def place(workplace, tokenizer, monkeypatch):
    """A folder to work in: ``tofu/`` with all of a benchmark's files, ``model`` and ``retrained``; its own cache."""
    prepare(workplace, tokenizer, monkeypatch)
    return workplace


def one_run():
    done = call(*METHOD, *FAST, "--retrained", "retrained")
    assert done.exit_code == 0, done.output[-600:]
    Path("cache/printed").write_text(done.output)


@pytest.fixture
def warm(place, tmp_path_factory):
    """``place`` with what its two models answered in the cache."""
    copied(tmp_path_factory, "bench", place, one_run, "cache")
    return place


@pytest.fixture
def finished(place, tmp_path_factory):
    """``place`` after the command was run once, beside a retrained model."""
    copied(tmp_path_factory, "bench", place, one_run, "cache", "out")
    return place


def call(*args, out="out", data="tofu"):
    given = ["bench", "tofu/forget01", "--data", str(data), "--limit", "2", "--out", str(out)]
    given += [] if "--model" in args else ["--model", "model"]
    return CliRunner().invoke(app, [*given, *map(str, args)])


def never(*_, **__):
    raise AssertionError("a model was loaded or trained")


def value(said, name, who=None, part="forget"):
    figures = said["figures"] if who is None else said["beside"][who]
    return next(f["value"] for f in figures if (f["part"], f["name"]) == (part, name))


def test_unlearned_and_measured_before_and_after(finished):
    printed = (finished / "cache" / "printed").read_text()
    assert all(word in printed for word in ("target", "unlearned", "retrained", "model_utility", "report.html"))
    log, said = record.read("out/run"), read("out")
    assert log["method"]["name"] == "npo" and log["method"]["parameters"]["beta"] == 0.2 and len(log["steps"]) == 2
    assert log["data"]["forget"]["source"] == "tofu/forget01.json" and log["data"]["retain"]["rows"] == 5
    assert said["unlearning"]["name"] == "npo" and said["model"]["source"] == "run/model" and "taught" not in said
    assert said["target"]["fingerprint"] == log["model"]["fingerprint"] != said["model"]["fingerprint"]
    before, after = value(said, "probability", "target"), value(said, "probability")
    assert after < before and value(said, "probability", "retrained") not in (before, after)
    assert value(said, "mia_reference_auc") is not None is not value(said, "forget_quality", "target")
    assert not [f for f in said["beside"]["retrained"] if f["name"] in ("privleak", "forget_quality")]
    alone = call("--model", "out/run/model", out="alone")  # the same figures as of any checkpoint
    assert alone.exit_code == 0, alone.output
    assert value(read("alone"), "probability") == after and read("alone")["beside"] == {}
    page = (finished / "out" / "report.html").read_text()
    assert SECRET not in page + (finished / "out" / "figures.json").read_text() and "unlearned with npo" in page


def test_sophia_unlearns_and_adamw_teaches(warm, monkeypatch):
    sophia = ["--optimizer", "sophia", "optimizer.every=1"]
    done = call(*TEACH, *METHOD, *FAST, *sophia)
    assert done.exit_code == 0, done.output[-600:]
    log = record.read("out/run")
    assert log["training"]["optimizer"]["every"] == 1 and all("clipped" in s for s in log["steps"])
    assert "optimizer" not in json.loads((warm / "out" / "target" / "made.json").read_text())["settings"]
    (warm / "out" / "figures.json").unlink()
    monkeypatch.setattr(train, "train", never)
    assert call(*TEACH, *METHOD, *FAST, *sophia).exit_code == 0  # the same run is not done again
    (warm / "out" / "figures.json").unlink()
    told = call(*TEACH, *METHOD, *FAST, "--optimizer", "sophia", "optimizer.every=2")  # another is not taken for it
    assert told.exit_code == 2 and "an earlier run's run.json is here" in told.output


def test_rescoring_writes_the_same_again(finished):
    before = {name: (finished / "out" / name).read_bytes() for name in ("figures.json", "report.html")}
    (finished / "out" / "report.html").unlink()
    said = read("out")
    said["figures"], said["beside"] = [], {}
    (finished / "out" / "figures.json").write_text(json.dumps(said))
    done = CliRunner().invoke(app, ["rescore", "out"])
    assert done.exit_code == 0 and "unlearned" in done.output, done.output
    assert {name: (finished / "out" / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("adapter", [[], ["--adapter", "lora"]])
def test_a_taught_target_and_a_taught_retrained_model(place, adapter, monkeypatch):
    done = call(*TEACH, "--teach-retrained", *METHOD, *FAST, *adapter)
    assert done.exit_code == 0, done.output[-600:]
    said, log = read("out"), record.read("out/run")
    made = {name: json.loads((place / "out" / name / "made.json").read_text()) for name in ("target", "retrained")}
    assert (made["target"]["rows"], made["retrained"]["rows"]) == (9, 5) and made["target"]["steps"] == 2
    assert made["target"]["loss"][0] != made["retrained"]["loss"][0]
    assert (place / "out/target/adapter_config.json").exists() == bool(adapter)
    prints = {log["model"]["fingerprint"], said["retrained"]["fingerprint"], made["target"]["model"]}
    assert len(prints) == 3 and said["target"]["fingerprint"] == log["model"]["fingerprint"]
    assert value(said, "probability", "target") != value(said, "probability", "retrained")
    assert said["taught"]["training"]["max_steps"] == "2"
    # an interrupted command goes on: nothing is trained or asked again
    (place / "out" / "figures.json").unlink()
    for module, name in ((train, "train"), (asking, "collect")):
        monkeypatch.setattr(module, name, never)
    again = call(*TEACH, "--teach-retrained", *METHOD, *FAST, *adapter)
    assert again.exit_code == 0, again.output
    assert read("out")["figures"] == said["figures"]


def test_other_settings_or_data_are_not_taken_for_the_same(warm, monkeypatch):
    assert call(*TEACH, *METHOD, *FAST).exit_code == 0
    (warm / "out" / "figures.json").unlink()
    with monkeypatch.context() as m:
        m.setattr(train, "train", never)
        told = call(*TEACH, "--teach-setting", "seed=1", *METHOD, *FAST)
        assert told.exit_code == 2 and "seed is set by expunge" in told.output
        told = call(*TEACH, "--teach-setting", "weight_decay=0.5", *METHOD, *FAST)
        assert told.exit_code == 2 and "was taught with other settings or data" in told.output
        told = call(*TEACH, "--method", "grad_diff", *FAST)
        assert told.exit_code == 2 and "an earlier run's run.json is here" in told.output
        other = (warm / "tofu" / "retain99.json").read_text()
        (warm / "tofu" / "retain99.json").write_text(other + "\n" + json.dumps(rows("more", 1)[0]))
        told = call(*TEACH, *METHOD, *FAST)
        assert told.exit_code == 2 and "was taught with other settings or data" in told.output
    weights = warm / "out" / "target" / "model.safetensors"
    made = json.loads((warm / "out" / "target" / "made.json").read_text())
    assert call(*TEACH, *METHOD, *FAST, "--overwrite").exit_code == 0
    again = json.loads((warm / "out" / "target" / "made.json").read_text())
    assert (
        again["rows"] == 10
        and again["output"] == files.sha256_folder(weights.parent, "*.safetensors") != made["output"]
    )


def test_weights_that_were_not_taught_here_are_left_alone(place):
    shutil.copytree("model", "out/target")
    told = call(*TEACH, *METHOD, *FAST)
    assert told.exit_code == 2 and "holds target/, which expunge did not write" in told.output


def test_a_recipe_is_the_same_as_flags(warm):
    (warm / "r").mkdir()
    (warm / "r" / "bench.toml").write_text(
        'benchmark = "tofu/forget01"\nmodel = "../model"\ndata = "../tofu"\nretrained = "../retrained"\n'
        'out = "file"\nlimit = 2\n'
        '[method]\nname = "npo"\nbeta = 0.2\n[teach]\nmax_steps = 2\nuse_cpu = true\n[training]\nmax_steps = 9\n'
    )
    values = bench.read_file("r/bench.toml")
    flags = {
        "benchmark": "tofu/forget01",
        "model": "r/../model",
        "data": "r/../tofu",
        "retrained": "r/../retrained",
        "out": "file",
        "limit": "2",
        "method": "npo",
        "teach": {"max_steps": 2},
    }
    a = bench.make(bench.override(values, ["max_steps=2", "seed=3"]))
    b = bench.make(bench.override(flags, ["method.beta=0.2", "teach.use_cpu=true", "max_steps=2", "seed=3"]))
    assert a.how == b.how and a.how.limit == 2 and a.teach["max_steps"] == 2
    same = {"how", "run", "teach"}
    assert a.model_dump(exclude=same) == b.model_dump(exclude=same)
    assert recipe.make({"model": "-", "forget": "-", **a.run}).seed == 3 and a.run["training"] == {"max_steps": "2"}
    done = CliRunner().invoke(app, ["bench", "r/bench.toml", *FAST, "--limit", "3", "--out", "there"])
    assert done.exit_code == 0, done.output[-600:]
    assert read("there")["limit"] == 3 and len(record.read("there/run")["steps"]) == 2
    assert value(read("there"), "probability", "retrained") != value(read("there"), "probability")


def test_what_is_published_names_no_path_of_this_machine(warm):
    names = ["--model-name", "TinyTarget", "--data-name", "tofu-slice", "--retrained-name", "TinyRetrained"]
    argv = ["--model", warm / "model", "--retrained", warm / "retrained", *METHOD, *FAST, *TEACH, *names]
    done = call(*argv, out=warm / "out", data=warm / "tofu")
    assert done.exit_code == 0, done.output[-600:]
    told = {
        name: (warm / "out" / name).read_text()
        for name in ("figures.json", "report.html", "run/run.json", "run/report.html")
    }
    for name, text in told.items():
        assert str(warm) not in text, name
    said, log = read("out"), record.read("out/run")
    assert said["retrained"]["source"] == "TinyRetrained" and said["data"]["source"] == "tofu-slice"
    assert said["target"]["source"] == log["model"]["source"] == "TinyTarget taught tofu/forget01"
    assert log["data"]["forget"]["source"] == "tofu-slice/forget01.json"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--method", "nppo"], "did you mean 'npo'"),
        ([*METHOD, "-p", "gamma=1"], "npo has no parameter 'gamma'"),
        ([*METHOD, "learning_rat=1"], "did you mean 'learning_rate'"),
        ([*METHOD, "learning_rate=fast"], "learning_rate='fast' is not of type"),
        ([*METHOD, *TEACH, "--teach-setting", "max_step=2"], "did you mean 'max_steps'"),
        ([*METHOD, "forget=x.jsonl"], "forget is the benchmark's to say"),
        (["max_steps=2"], "max_steps is for unlearning; say with --method"),
        (["--adapter", "lora"], "adapter is for unlearning"),
        (["--optimizer", "sophia", *TEACH], "optimizer is for unlearning"),
        ([*METHOD, "--optimizer", "sofia"], "did you mean 'sophia'"),
        ([*METHOD, "--optimizer", "sophia", "optimizer.roh=1"], "did you mean 'rho'"),
        ([*METHOD, "--teach-retrained"], "--teach-retrained needs --teach"),
        ([*METHOD, "--dtype", "int4"], "dtype must be float32"),
        ([*METHOD, "limit=x"], "limit = 'x' does not fit"),
        ([*METHOD, "--data", "nowhere"], "there is no folder nowhere"),
        ([*METHOD, "--model", "nowhere/model"], "nowhere/model"),
    ],
)
def test_bad_input_is_told_before_a_model_is_loaded(place, monkeypatch, args, said):
    monkeypatch.setattr("expunge.models.load", never)
    done = call(*args)
    assert done.exit_code == 2 and re.search(re.escape(said), done.output), (done.output, done.exception)
    assert not (place / "out").exists()


def test_missing_files_and_earlier_results_are_told_before_a_model_is_loaded(place, monkeypatch):
    monkeypatch.setattr("expunge.models.load", never)
    (place / "tofu" / "retain99.json").rename(place / "elsewhere.json")
    assert "lacks retain99.json" in call(*METHOD).output
    (place / "tofu" / "retain99.json").write_text((place / "tofu" / "forget01.json").read_text())
    assert "also stand in the retain set" in call(*METHOD).output
    (place / "out").mkdir()
    (place / "out" / "figures.json").write_text("{}")
    assert "figures of an earlier evaluation are here" in call(*METHOD).output
    (place / "own.py").write_text(
        "from dataclasses import replace\nfrom expunge.benchmarks.tofu import ALL\n"
        "BENCHMARK = replace(ALL[0], name='own', forget=None)\n"
    )
    done = CliRunner().invoke(app, ["bench", "own.py", "--model", "model", "--data", "tofu", *METHOD])
    assert done.exit_code == 2 and "own does not say what is to be forgotten" in done.output
    (place / "r.toml").write_text('model = "model"\n')
    with pytest.raises(InputError, match="names no benchmark"):
        bench.read_file("r.toml")
