"""The best trial as a recipe: what is written is what the trial ran with."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from tiny_tune import settings

from expunge import bench
from expunge.tune import recipes
from expunge.tune.settings import make, trial
from expunge.unlearning import settings as recipe

CHOICE = {"beta": 0.3, "learning_rate": 2e-3, "max_steps": 2}
OUTSIDE = {"out", "overwrite", "model", "forget", "retain", "compare_with"}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"adapter": "lora", "lora": {"r": 4}, "optimizer": "adamw", "columns": {"question": 'a "q"', "answer": "ä\\n"}},
        {"template_arguments": {"thinking": False, "n": 3}, "metric": ["a.py:f"], "eval_rows": 7, "save_every": "90s"},
    ],
)
def test_a_recipe_is_read_as_the_trial_that_it_is_of(place, monkeypatch, more):
    monkeypatch.setattr(recipe, "metrics", lambda names: {})
    made = settings(**more)
    text = recipes.toml(recipes.recipe(made, "npo", CHOICE), "a comment\nof two lines")
    assert text.startswith("# a comment\n# of two lines\n") and tomllib.loads(text)["out"] == "unlearned-npo"
    Path("best.toml").write_text(text)
    again, own = recipe.make(recipe.read("best.toml")), trial(made, "npo", CHOICE, "out")
    assert again.model_dump(exclude=OUTSIDE) == own.model_dump(exclude=OUTSIDE)
    assert Path(again.model).is_absolute() and Path(again.forget).samefile("forget.jsonl")


def test_a_level_is_left_to_the_methods_that_read_it(place):
    made = settings(methods=["npo", "level"], level="other", search={})
    assert [trial(made, label, {}, "out").level for label in made.methods] == [None, "other"]
    assert "level" not in recipes.recipe(made, "npo", {})
    assert Path(recipes.recipe(made, "level", {})["level"]).samefile("other")


def test_of_a_benchmark_it_is_one_for_bench(place):
    values = {"benchmark": "tofu/forget01", "model": "model", "methods": ["npo"], "max_steps": 4, "seed": 3}
    made = make(values)
    Path("best.toml").write_text(recipes.toml(recipes.recipe(made, "npo", CHOICE)))
    again, own = bench.make(bench.read_file("best.toml")), trial(made, "npo", CHOICE, "out")
    assert again.run == {**own.run, "training": {"max_steps": 2, "learning_rate": 2e-3}}
    assert (again.benchmark, again.method, again.run["parameters"]) == ("tofu/forget01", "npo", {"beta": 0.3})
