"""Every recipe that is shipped is complete and names only what exists; nothing is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from expunge import methods, recipe  # noqa: F401  methods fills the table
from expunge.method import build
from expunge.training import arguments, defaults

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.toml"))


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=[p.stem for p in RECIPES])
def test_a_recipe_is_ready_to_run(path, tmp_path):
    settings = recipe.make(recipe.read(path), where=str(path))
    method = build(settings.method, settings.parameters)
    here = settings.training | {"bf16": False, "use_cpu": True}  # transformers refuses bf16 where no device has it
    args = arguments(here, defaults(method, 400, lora=settings.adapter == "lora"), tmp_path, settings.seed)
    assert args.learning_rate == settings.training["learning_rate"]
    for name in ("model", "forget", "retain", "compare_with"):
        value = getattr(settings, name)
        assert ".." not in value or Path(value).exists(), f"{name} = {value} is not there"
