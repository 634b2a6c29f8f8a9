"""Saving: what is saved loads in plain transformers and PEFT, and nothing else is overwritten."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tiny_lora import logits, lora, tiny, words
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
)

from expunge.errors import InputError
from expunge.models import fingerprint_state, load, save
from expunge.models.lora import read_adapter


def test_a_full_model_is_saved_and_replaced(base: Path, tmp_path: Path) -> None:
    loaded = load(base)
    for seed in (1, 2):
        model = tiny(seed)
        save(model, loaded.tokenizer, tmp_path / "out")
        assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), logits(model))
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("a b").input_ids == [1, 2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "out"]
    assert not list((tmp_path / "out").glob("*.bin"))


def test_an_adapter_names_its_base(base: Path, tmp_path: Path) -> None:
    loaded = load(base)
    model = lora(loaded.model, 1)
    save(model, loaded.tokenizer, tmp_path / "out", base=loaded)
    assert read_adapter(tmp_path / "out").config["base_model_name_or_path"] == str(base)
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "out")
    assert torch.equal(logits(again), logits(model))
    save(model, loaded.tokenizer, tmp_path / "out", base=replace(loaded, base="some/name"))
    assert read_adapter(tmp_path / "out").config["base_model_name_or_path"] == "some/name"


def test_a_merged_copy_leaves_the_live_model_alone(base: Path, tmp_path: Path) -> None:
    loaded = load(base)
    model = lora(loaded.model, 1)
    before, fingerprint = logits(model), fingerprint_state(model)
    save(model, loaded.tokenizer, tmp_path / "out", base=loaded, merge=True)
    assert fingerprint_state(model) == fingerprint and isinstance(model, PeftModel)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(plain), before, atol=1e-5, rtol=0)
    assert load(tmp_path / "out").adapter is None


def test_nothing_else_is_overwritten(base: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("mine")
    with pytest.raises(InputError, match="no model's folder"):
        save(tiny(), words(), tmp_path / "notes")
    with pytest.raises(InputError, match="no model's folder"):
        save(tiny(), words(), tmp_path / "notes" / "diary.txt")
    assert (tmp_path / "notes" / "diary.txt").read_text() == "mine"


def test_a_failed_save_leaves_the_old_model(base: Path, tmp_path: Path) -> None:
    class Broken:
        def save_pretrained(self, folder: Path) -> None:
            (folder / "config.json").write_text("half")
            raise OSError("disk full")

    before = {p.name: p.read_bytes() for p in base.iterdir()}
    with pytest.raises(OSError, match="disk full"):
        save(Broken(), words(), base)
    assert {p.name: p.read_bytes() for p in base.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["base"]
