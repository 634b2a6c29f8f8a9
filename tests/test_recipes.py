"""Every recipe that is shipped is complete and names only what exists, and accelerate reads those in `launch`."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import tiny_tofu
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from expunge import bench, compare
from expunge.benchmarks import named
from expunge.evaluation.benchmark import data_of
from expunge.method import build
from expunge.training.arguments import arguments, defaults
from expunge.unlearning import settings as recipe
from expunge.unlearning.ready import method_of

ROOT = Path(__file__).parent.parent
LAUNCH = ROOT / "recipes" / "launch"
ALL = sorted((ROOT / "recipes").glob("*.toml"))
BENCHES = [p for p in ALL if p.stem.startswith("bench_")]
COMPARISONS = [p for p in ALL if p.stem.startswith("compare_")]
RECIPES = [p for p in ALL if p not in BENCHES + COMPARISONS]


def test_there_are_recipes():
    assert RECIPES and BENCHES and COMPARISONS
    for path in ALL:
        command = "bench" if path in BENCHES else "compare" if path in COMPARISONS else "run"
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


@pytest.mark.parametrize("path", COMPARISONS, ids=[p.stem for p in COMPARISONS])
def test_a_comparison_gives_every_method_the_same_budget(path, tmp_path):
    given = {"model": "m", "retrained": "r"}  # where they lie is said on the command line
    found = compare.trials(compare.make(given | compare.read_file(path), where=str(path)))
    assert len({t.label for t in found}) >= 10
    spent = set()
    for t in found:
        method = build(t.settings.method, t.settings.run["parameters"])
        here = t.settings.run["training"] | {"bf16": False, "use_cpu": True}
        spent.add(compare.budget.counted(arguments(here, defaults(method, 400, lora=True), tmp_path, 0), 400))
    assert len(spent) == 1


def test_the_slice_asks_a_part_of_what_tofu_asks(tmp_path):
    whole, thin = named("tofu/forget01"), named(str(ALL[0].parent / "tofu_slice.py"))
    data = data_of(whole, tiny_tofu.write(tmp_path / "tofu"))
    asked = {(p.part, p.index): p for p in whole.probes(data)}
    few = thin.probes(data)
    assert 0 < len(few) < len(asked) and all(p.texts == asked[p.part, p.index].texts for p in few)
    assert [p.index for p in few if p.part == "forget"] == [0, 1, 2, 3] and not any(p.grad_norm for p in few)


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero2", "zero3"])
def test_accelerate_reads_the_configurations(name):
    file = LAUNCH / f"{name}.yaml"
    assert f"accelerate launch --config_file recipes/launch/{name}.yaml -m expunge run" in file.read_text()
    config = load_config_from_file(str(file))
    assert config.num_processes == 8 and config.mixed_precision == "no"
    if name.startswith("zero"):
        assert config.deepspeed_config["zero_stage"] == int(name[-1])
        return
    args = launch_command_parser().parse_args(["--config_file", str(file), "--num_processes", "2", "-m", "expunge"])
    args, *_ = _validate_launch_command(args)
    assert args.num_processes == 2 and not args.use_cpu
    assert args.use_fsdp == (name == "fsdp2") and (args.multi_gpu or args.use_fsdp)
    if args.use_fsdp:
        assert str(args.fsdp_version) == "2" and str(args.fsdp_reshard_after_forward).lower() == "true"


def test_the_cluster_files_parse():
    script = LAUNCH / "slurm.sbatch"
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    for config in re.findall(r"recipes/launch/\w+\.\w+", script.read_text()):
        assert (ROOT / config).exists()
    runtime, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    assert job["spec"]["trainer"]["command"][:4] == ["torchrun", "-m", "expunge", "run"]
    gpus = job["spec"]["trainer"]["resourcesPerNode"]["limits"]["nvidia.com/gpu"]
    assert gpus == job["spec"]["trainer"]["numProcPerNode"]
