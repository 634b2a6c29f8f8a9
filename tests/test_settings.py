"""What the settings of all commands share: recipe files, key=value, short names, one sentence for each mistake."""

from __future__ import annotations

import doctest
from types import SimpleNamespace

import pytest
from pydantic import BaseModel, ConfigDict, Field

from expunge import bench, compare, release, settings
from expunge.errors import InputError
from expunge.reveal import settings as reveal
from expunge.unlearning import run as unlearning_run
from expunge.unlearning import settings as recipe
from expunge.unlearning.ready import method_of
from expunge.unlearning.rows import load_streams
from expunge.unlearning.run import unlearn

TOML = """
model = "m"
forget = "forget.jsonl"
adapter = "lora"
seed = 3
retain = "elsewhere.jsonl"
[method]
name = "npo"
beta = 0.5
[training]
learning_rate = 1e-4
max_steps = 7
weight_decay = 1.5e-2
"""
YAML = """
model: m
forget: forget.jsonl
adapter: lora
seed: 3
retain: elsewhere.jsonl
method:
  name: npo
  beta: 0.5
training:
  learning_rate: 1e-4
  max_steps: 7
  weight_decay: 1.5e-2
"""


class Some(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rows: int = Field(1, ge=1)
    model: str


def test_doctests():
    result = doctest.testmod(settings)
    assert result.attempted == 8 and not result.failed


@pytest.mark.parametrize("ending", ["yaml", "yml"])
def test_a_yaml_recipe_equals_the_toml_recipe(tmp_path, ending):
    (tmp_path / "forget.jsonl").touch()
    (tmp_path / "r.toml").write_text(TOML)
    (tmp_path / f"r.{ending}").write_text(YAML)
    values = recipe.read(tmp_path / f"r.{ending}")
    assert values == recipe.read(tmp_path / "r.toml")
    assert values["training"]["learning_rate"] == 1e-4 and values["forget"] == str(tmp_path / "forget.jsonl")
    assert recipe.make(values) == recipe.make(recipe.read(tmp_path / "r.toml"))


def test_recipes_of_every_command_may_be_yaml(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("benchmark: tofu/forget01\nmodel: m\nmethods:\n  npo: {beta: 0.1}\ntraining: {lr: 1e-4}\n")
    checked = compare.make(compare.override(compare.read_file(file), []))
    assert checked.methods["npo"].parameters == {"beta": 0.1} and checked.shared["training"] == {"learning_rate": 1e-4}
    file.write_text("benchmark: tofu/forget01\nmodel: m\nteach: {epochs: 2}\n")
    assert bench.make(bench.read_file(file)).teach == {"num_train_epochs": 2}
    file.write_text("model: m\nforget: f\nutility: r.yaml\nsteps: 3\n")
    checked = release.make(release.read_file(file))
    assert checked.steps == 3 and checked.utility == str(file)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.yaml", "model: [", "r.yaml is not YAML: .*line 1"),
        ("r.yaml", "- model", "r.yaml holds no settings; write key: value"),
        ("r.yaml", "1: x", "r.yaml holds no settings"),
        ("r.yaml", "", "r.yaml holds no settings"),
        ("r.yaml", "model: !!python/name:os.system ''", "r.yaml is not YAML"),
        ("r.toml", "model: m", "r.toml is not TOML"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as error:
        settings.read_recipe(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(InputError, match="is a folder; a recipe is a file that ends in"):
        settings.read_recipe(tmp_path)


def test_what_does_not_fit_is_one_sentence():
    assert settings.checked(Some, {"rows": "2", "model": "m"}, "x") == Some(rows=2, model="m")
    for values, message in (
        ({}, "x: model is missing; give --model"),
        ({"model": "m", "rows": 0}, "x: rows = 0 does not"),
    ):
        with pytest.raises(InputError, match=message):
            settings.checked(Some, values, "x")
    with pytest.raises(InputError, match="x: there is no setting 'modle', did you mean 'model'"):
        settings.check_keys(["rows", "modle"], Some.model_fields, "x")


SHORT = {"lr": 0.01, "epochs": 2, "batch_size": 3}
LONG = {"learning_rate": 0.01, "num_train_epochs": 2, "per_device_train_batch_size": 3}


def test_short_names_as_key_value():
    pairs = [f"{k}={v}" for k, v in SHORT.items()]
    as_text = {k: str(v) for k, v in LONG.items()}
    required = {"model": "m", "forget": "f"}
    assert recipe.make(recipe.override(required, pairs)).training == as_text
    assert release.make(release.override(required, pairs)).run.training == as_text
    of_bench = bench.make(bench.override({"benchmark": "b", "model": "m", "method": "npo"}, [*pairs, "teach.lr=1"]))
    assert of_bench.run["training"] == as_text and of_bench.teach == {"learning_rate": "1"}
    tables = {"benchmark": "b", "model": "m", "methods": {"npo": {"training": {"lr": 1}}}}
    of_compare = compare.make(compare.override(tables, [*pairs, "methods.npo.training.lr=5"]))
    assert of_compare.shared["training"] == as_text
    assert of_compare.methods["npo"].training == {"learning_rate": "5"}


def test_a_full_name_on_the_command_line_wins_over_a_short_one_in_the_recipe():
    for table in ({"training": {"lr": 1}}, {"lr": 1}, {"learning_rate": 1}):
        for pair in ("learning_rate=2", "lr=2"):
            values = recipe.override({"model": "m", "forget": "f", **table}, [pair])
            assert recipe.make(values).training == {"learning_rate": "2"}, (table, pair)


def test_short_names_in_recipes_and_from_python(monkeypatch):
    for values in (SHORT, {"training": SHORT}, {"training": {"lr": 0.01}, **{k: SHORT[k] for k in SHORT if k != "lr"}}):
        assert recipe.make({"model": "m", "forget": "f", **values}).training == LONG
    chosen = []
    monkeypatch.setattr(
        unlearning_run,
        "run",
        lambda one, **_: (chosen.append(one), SimpleNamespace(record={"warnings": []}, folder=None))[1],
    )
    monkeypatch.setattr(unlearning_run.hub, "after", lambda *_: None)  # there is no run to describe
    unlearn("m", forget="f", **SHORT)
    assert chosen.pop().training == LONG
    unlearn("m", forget="f", training={"lr": 1, "max_steps": 2}, lr=0.01, seed=1)
    assert chosen.pop().training == {
        "learning_rate": 0.01,
        "max_steps": 2,
    }


@pytest.mark.parametrize("name", SHORT)
def test_a_short_name_and_its_full_name_at_once(name):
    full = settings.ALIASES[name]
    message = f"{name} and {full} are the same setting; give one of them"
    required = {"model": "m", "forget": "f"}
    for values in ({name: 1, full: 1}, {"training": {name: 1, full: 1}}):
        with pytest.raises(InputError, match=message):
            recipe.make(required | values)
    for override in (recipe.override, release.override, bench.override, compare.override):
        with pytest.raises(InputError, match=message):
            override(required, [f"{name}=1", f"{full}=1"])


def test_pairs():
    assert settings.extract_settings({"a": 1, "b": 2}, ["a=3", "c=4", "d"], ["a", "b"]) == (
        {"a": "3", "b": 2},
        ["c=4", "d"],
    )
    assert reveal.override({"model": "m"}, ["queries=4"]) == {"model": "m", "queries": "4"}
    with pytest.raises(InputError, match="'fast' is no setting; write key=value, such as queries=40"):
        reveal.override({}, ["fast"])


def test_a_quick_look_at_a_benchmark_trains_on_all_rows_in_full_precision():
    values = {"benchmark": "b", "model": "m", "method": "npo", "limit": 2, "dtype": "bfloat16", "device": "cpu"}
    settings = bench.make(values)
    assert (settings.how.limit, settings.how.dtype, settings.how.device) == (2, "bfloat16", "cpu")
    assert settings.run == {"device": "cpu"}


def test_the_number_format_of_a_run():
    values = {"model": "m", "forget": "f", "dtype": "bfloat16"}
    assert recipe.make(values | {"adapter": "lora"}).dtype == "bfloat16"
    whole = recipe.make(values)
    assert (whole.dtype, whole.loaded) == ("bfloat16", "float32")  # it is saved so, and trains in float32
    assert recipe.make(values | {"adapter": "lora"}).loaded == "bfloat16"
    for more in ({"adapter": "lora", "merge": True}, {"adapter": "lora", "dtype": "float16"}):
        with pytest.raises(InputError, match="dtype"):
            recipe.make(values | more)
    assert release.make(values).run.dtype == "bfloat16"
    with pytest.raises(InputError, match="dtype"):
        release.make(values | {"merge": True})


def test_the_first_rows_of_each_set(tmp_path):
    rows = [{"question": f"{i}?", "answer": f"{i}!"} for i in range(5)]
    settings = recipe.make({"model": "m", "forget": rows, "retain": rows, "limit": 2, "method": "grad_diff"})
    streams = load_streams(settings, method_of(settings))
    assert {name: [r.answer for r in part] for name, part in streams.items()} == {
        "forget": ["0!", "1!"],
        "retain": ["0!", "1!"],
    }
