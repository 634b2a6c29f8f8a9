"""A run as a value: TOML, overrides, and the sentence for each way it can be wrong."""

from __future__ import annotations

import math

import pytest

from expunge.errors import InputError
from expunge.method import build
from expunge.training import arguments as training
from expunge.unlearning import settings as recipe

TOML = """
model = "model"
forget = "forget.jsonl"
retain = "retain.jsonl"
[method]
name = "pdu"
step_size = 5
[training]
learning_rate = 1e-4
"""


def test_a_recipe_and_what_stands_over_it(tmp_path):
    (tmp_path / "forget.jsonl").touch()
    file = tmp_path / "r.toml"
    file.write_text(TOML)
    values = recipe.override(
        recipe.read(file), ["method.budget=0.4", "max_steps=7", "adapter=lora", "lora.r=4", "seed=3", "bf16=false"]
    )
    made = recipe.make(values)
    assert (made.method, made.parameters) == ("pdu", {"step_size": 5, "budget": "0.4"})
    assert made.forget == str(tmp_path / "forget.jsonl") and made.retain == "retain.jsonl"  # only what is there moves
    assert made.lora.r == 4 and made.seed == 3
    assert {k: training.parse(k, v) for k, v in made.training.items()} == {
        "learning_rate": 1e-4,
        "max_steps": 7,
        "bf16": False,
    }
    assert build(made.method, made.parameters).combine.budget == 0.4


def test_the_optimizer_is_a_table_or_a_word(tmp_path):
    def read(text, *pairs):
        (tmp_path / "r.toml").write_text("model = 'm'\nforget = 'f'\n" + text)
        made = recipe.make(recipe.override(recipe.read(tmp_path / "r.toml"), pairs))
        return made.optimizer, made.optimizer_parameters

    assert read("optimizer = 'sophia'", "optimizer.rho=0.1") == ("sophia", {"rho": "0.1"})
    assert read("[optimizer]\nname = 'sophia'\nevery = 5") == ("sophia", {"every": 5})
    assert read("[optimizer]\nevery = 5", "optimizer=adamw", "optimizer.every=2") == ("adamw", {"every": "2"})
    assert read("") == (None, {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model = ", "is not TOML"),
        ("[method]\nbeta = 1", "needs a name"),
        ("modle = 'x'", "did you mean 'model'"),
        ("model = 'x'", "forget is missing"),
        ("model = 'x'\nforget = 'y'\nseed = -1", "seed = -1 does not fit"),
        ("model = 'x'\nforget = 'y'\ntrainable = '('", "it is not a regular expression, missing"),
    ],
)
def test_bad_recipes(tmp_path, text, said):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(InputError, match=said):
        recipe.make(recipe.read(tmp_path / "r.toml"), "r.toml")


@pytest.mark.parametrize(
    ("pair", "said"), [("fast", "write key=value"), ("lerning_rate=1", "did you mean 'learning_rate'")]
)
def test_bad_settings(pair, said):
    with pytest.raises(InputError, match=said):
        recipe.override({}, [pair])


def test_a_recipe_that_is_not_there():
    with pytest.raises(InputError, match="no recipe"):
        recipe.read("nowhere.toml")


@pytest.mark.parametrize(
    ("rows", "batch", "accumulation", "steps"),
    [
        (3, 3, 1, 50),  # one step an epoch, 50 epochs
        (40, 8, 1, 50),  # 5 an epoch, 10 epochs
        (400, 8, 2, 250),  # 25 an epoch
        (4000, 8, 4, 1250),  # the papers' 32 rows a step
    ],
)
def test_defaults_grow_with_the_forget_set(rows, batch, accumulation, steps):
    d = training.defaults(build("pdu"), rows, lora=True)
    assert (d["per_device_train_batch_size"], d["gradient_accumulation_steps"]) == (batch, accumulation)
    per_epoch = math.ceil(math.ceil(rows / batch) / accumulation)
    assert d["num_train_epochs"] * per_epoch == steps
    assert d["learning_rate"] == pytest.approx(2e-4)
    assert training.defaults(build("pdu"), rows, lora=False)["learning_rate"] == 1e-5


def test_a_paper_that_trains_lora_has_its_own_learning_rate_for_it():
    for method in (build("undial"), build("blur", {"forget": "undial"})):
        assert [training.defaults(method, 40, lora=lora)["learning_rate"] for lora in (False, True)] == [1e-4, 1e-4]
    assert training.defaults(build("altpo"), 40, lora=True)["learning_rate"] == pytest.approx(20 * 5e-5)


@pytest.mark.parametrize(("given", "steps", "warm"), [({}, 50, 5), ({"max_steps": 25}, 25, 3)])
def test_the_learning_rate_warms_up_for_a_tenth_of_the_steps_there_are(tmp_path, given, steps, warm):
    args = training.arguments({**given, "use_cpu": True}, training.defaults(build("pdu"), 40, lora=True), tmp_path, 0)
    assert args.get_warmup_steps(steps) == warm
