"""Every recipe that is shipped is complete and names only what exists; nothing is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from expunge import bench, methods, recipe  # noqa: F401  methods fills the table
from expunge.api import method_of
from expunge.benchmarks import named
from expunge.method import build
from expunge.training import arguments, defaults

ALL = sorted((Path(__file__).parent.parent / "recipes").glob("*.toml"))
BENCHES = [p for p in ALL if p.stem.startswith("bench_")]
RECIPES = [p for p in ALL if p not in BENCHES]


def test_there_are_recipes():
    assert RECIPES and BENCHES
    for path in ALL:
        command = "bench" if path in BENCHES else "run"
        assert f"expunge {command} recipes/{path.name}\n" in path.read_text()


@pytest.mark.parametrize("path", RECIPES, ids=[p.stem for p in RECIPES])
def test_a_recipe_is_ready_to_run(path, tmp_path):
    settings = recipe.make(recipe.read(path), where=str(path))
    method = method_of(settings)
    here = settings.training | {"bf16": False, "use_cpu": True}  # transformers refuses bf16 where no device has it
    args = arguments(here, defaults(method, 400, lora=settings.adapter == "lora"), tmp_path, settings.seed)
    assert args.learning_rate == settings.training["learning_rate"]
    for name in ("model", "forget", "retain", "compare_with"):
        value = getattr(settings, name)
        assert ".." not in value or Path(value).exists(), f"{name} = {value} is not there"


@pytest.mark.parametrize("path", BENCHES, ids=[p.stem for p in BENCHES])
def test_a_benchmark_recipe_is_ready_to_run(path, tmp_path):
    settings = bench.make(bench.read_file(path), where=str(path))
    chosen = named(settings.benchmark)
    assert chosen.forget and chosen.retain and settings.retrained
    method = build(settings.method, settings.run["parameters"])
    here = settings.run["training"] | {"bf16": False, "use_cpu": True}
    assert arguments(here, defaults(method, 400, lora=False), tmp_path, 0).learning_rate == here["learning_rate"]
