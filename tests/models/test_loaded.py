"""What a loaded model must be so that it can be saved again."""

from __future__ import annotations

import pytest
import tiny

from expunge.errors import InputError
from expunge.models.loaded import check_generation


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.6, "top_p": 0.9},
        {"top_k": 20, "min_p": 0.1, "typical_p": 0.9},
        {"length_penalty": 2.0, "early_stopping": True},
        {"do_sample": True, "temperature": 0.6, "top_p": 0.9},
        {"num_beams": 2, "length_penalty": 2.0},
    ],
)
def test_generation_settings_without_effect_do_not_hinder_saving(settings, tmp_path):
    model = tiny.model()
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    check_generation(model)
    model.save_pretrained(tmp_path)  # transformers itself refuses the second to the fourth
    remaining = {k: v for k, v in settings.items() if getattr(model.generation_config, k) == v}
    assert remaining == (settings if "do_sample" in settings or "num_beams" in settings else {})


def test_what_cannot_be_mended_is_one_sentence():
    model = tiny.model()
    model.generation_config.max_new_tokens = -5
    with pytest.raises(InputError, match=r"could not save this model again: mend its generation_config\.json"):
        check_generation(model)
