"""The settings of a release: a recipe, and what is refused before a model is loaded."""

from __future__ import annotations

import pytest
from tiny_release import go

from expunge.errors import InputError
from expunge.release import make, override, read_file


def test_a_recipe(workplace):
    (workplace / "r.toml").write_text(
        'model="model"\nforget="forget.jsonl"\nutility="retain.jsonl"\nsteps=3\nutility_budget="none"\n[lora]\nr=4\n'
    )
    chosen = make(
        override(read_file("r.toml"), ["orthogonality=0", "learning_rate=1e-3", "lora.dropout=0.1", "rank=none"])
    )
    assert (chosen.steps, chosen.orthogonality, chosen.utility_budget, chosen.rank) == (3, 0.0, None, None)
    assert (chosen.run.lora.r, chosen.run.lora.dropout) == (4, 0.1) and chosen.utility == "retain.jsonl"
    assert chosen.run.training == {"learning_rate": "1e-3"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"forget": "forgot.jsonl"}, r"did you mean .*forget\.jsonl"),
        ({"retain": "forget.jsonl"}, "also stand in the retain set"),
        ({"steps": 0}, "steps = 0 does not fit"),
        ({"forget_coefficient": -1}, "forget_coefficient = -1 does not fit"),
        ({"utility_budget": "much"}, "utility_budget = 'much' does not fit"),
        ({"rank": 0}, "rank = 0 does not fit"),
        ({"rank": 4, "merge": True}, "leave out one of the two"),
        ({"as_published": True}, "as_published is for `expunge run`"),
        ({"self_retain": 3}, "leave out one of the two"),
        ({"method": "npo"}, "method is for `expunge run`"),
        ({"adapter": "lora"}, "adapter is for `expunge run`"),
        ({"learning_rat": 1.0}, "did you mean"),
        ({"learning_rate": "fast"}, "learning_rate='fast' is not of type"),
        ({"resume_from_checkpoint": True}, "goes on after its last whole step by itself"),
        ({"utility": "nothing.jsonl"}, "there is no file"),
        ({"max_length": 12}, "would remove the whole answer"),
        ({"device": "banana"}, "there is no device 'banana'"),
        ({"device": "cuda:1"}, "the device cuda:1 is not to be had"),
        ({"attn": "flash_attention_9"}, "there is no attention 'flash_attention_9'"),
    ],
)
def test_bad_input_is_told_before_a_model_is_loaded(workplace, monkeypatch, change, message):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    monkeypatch.setattr("expunge.models.load", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(InputError, match=message):
        go(**change)


def test_a_renamed_public_name_keeps_working():
    from expunge.release import Look, Measurement

    assert Look is Measurement
