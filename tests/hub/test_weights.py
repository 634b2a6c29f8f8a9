"""What goes to the Hub of a model's folder: names that are allowed, and settings without a path of this machine."""

from __future__ import annotations

import json

import pytest

from expunge.errors import InputError
from expunge.hub import weights


def test_only_names_that_are_allowed_go_and_no_link(run_folder):
    going, left_out = weights.chosen(run_folder / "model")
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in going}
    assert set(left_out) == {"notes.txt", "stolen.py", "vocab.json"}  # vocab.json is a link out of the folder


def test_code_goes_where_the_configuration_names_it(run_folder):
    config = run_folder / "model" / "config.json"
    values = json.loads(config.read_text()) | {"auto_map": {"AutoModelForCausalLM": "stolen.Model"}}
    config.write_text(json.dumps(values))
    assert "stolen.py" in [p.name for p in weights.chosen(run_folder / "model")[0]]


def test_settings_lose_the_paths_of_this_machine(tmp_path):
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps({"name_or_path": "/home/someone/model", "extra": [str(tmp_path)], "pad_token": "</s>"}))
    assert json.loads(weights.content(file, None)) == {"extra": [tmp_path.name], "pad_token": "</s>"}


def test_an_adapter_names_its_base_on_the_hub_or_is_refused(tmp_path):
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({"base_model_name_or_path": "/home/someone/model", "r": 4}))
    with pytest.raises(InputError, match="--base-model user/name"):
        weights.content(file, weights.base_of(tmp_path, {}))
    base = weights.base_of(tmp_path, {}, "EleutherAI/pythia-14m")
    assert json.loads(weights.content(file, base)) == {"base_model_name_or_path": "EleutherAI/pythia-14m", "r": 4}
    with pytest.raises(InputError, match="no name on the Hub"):
        weights.base_of(tmp_path, {}, "/home/someone/model")
    file.write_text(json.dumps({"base_model_name_or_path": "EleutherAI/pythia-14m"}))
    assert weights.base_of(tmp_path, {}) == "EleutherAI/pythia-14m"


def test_a_folder_without_weights_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="no safetensors"):
        weights.chosen(tmp_path)
