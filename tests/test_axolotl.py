"""The plugin for Axolotl, called as Axolotl 0.19 calls it: its settings, the rows, and the trainer that they make."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import tiny
import torch
import yaml

from expunge import axolotl
from expunge.data import sources
from expunge.errors import InputError
from expunge.trainer import UnlearningTrainer

CONFIG = {
    "base_model": "tiny",
    "micro_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "num_epochs": 3,
    "sequence_len": 41,
}
GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "axolotl.md"


@pytest.fixture
def config(workplace):
    """The settings of a run, as the file of a user gives them."""
    return CONFIG | {"expunge": {"forget": "forget.jsonl", "retain": "retain.jsonl"}}


@pytest.fixture
def of_axolotl(monkeypatch):
    """Its module of rows, with the one class that the plugin makes."""
    module = ModuleType("axolotl.common.datasets")
    module.TrainDatasetMeta = SimpleNamespace
    for name in ("axolotl", "axolotl.common"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "axolotl.common.datasets", module)


def test_what_axolotls_own_check_wants_is_filled_in(config):
    axolotl.UnlearningPlugin().register(config)
    assert config["datasets"] == [{"path": "forget.jsonl"}] and config["val_set_size"] == 0
    module, _, name = axolotl.UnlearningPlugin().get_input_args().rpartition(".")
    section = getattr(sys.modules[module], name)(expunge=config["expunge"]).model_dump()["expunge"]
    assert axolotl.section_of({"expunge": section}) == axolotl.section_of(config)  # as it comes back from that check
    checked = config | {"expunge": section, "datasets": [{"path": "forget.jsonl", "type": None}]}
    axolotl.UnlearningPlugin().register(checked)  # once more, in a worker of Ray
    assert checked["datasets"] == config["datasets"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"expunge": None}, "needs a section expunge with forget"),
        ({"expunge": {"retain": "retain.jsonl"}}, "needs a section expunge with forget"),
        ({"expunge": {"forget": "forget.jsonl"}}, "npo reads retain rows"),
        ({"expunge": {"forget": "forget.jsonl", "methd": "npo"}}, "did you mean 'method'"),
        ({"expunge": {"forget": "forget.jsonl", "retain": "retain.jsonl", "method": "idk_dpo"}}, "use expunge.unlearn"),
        ({"expunge": {"forget": "forget.jsonl", "retain": "retain.jsonl", "method": "pdu_level"}}, "needs a level"),
        ({"datasets": [{"path": "other.jsonl"}]}, "datasets does not go with"),
        ({"sample_packing": True}, "sample_packing does not go with"),
    ],
)
def test_refused_before_anything_is_loaded(config, changes, said):
    with pytest.raises(InputError, match=said):
        axolotl.UnlearningPlugin().register(config | changes)


def test_the_rows_and_the_steps(config, of_axolotl):
    plugin = axolotl.UnlearningPlugin()
    plugin.register(config)
    made = plugin.load_datasets(config)
    assert {name: len(rows) for name, rows in made.train_dataset.items()} == {
        name: len(sources.load_rows(f"{name}.jsonl")) for name in ("forget", "retain")
    }
    n = len(made.train_dataset["forget"])
    assert made.total_num_steps == 3 * -(-n // 2) and config["datasets"] is None
    assert plugin.load_datasets(config | {"max_steps": 5}).total_num_steps == 5


def test_its_trainer_trains_as_ours_does(config, of_axolotl, tokenizer):
    """Made with all that Axolotl gives a trainer: the same weights as without it."""
    config["expunge"] |= {"method": "npo", "parameters": {"beta": 0.3}}
    plugin = axolotl.UnlearningPlugin()
    plugin.register(config)
    rows = plugin.load_datasets(config).train_dataset
    models = [tiny.model(vocab_size=len(tokenizer)) for _ in range(2)]
    common = {"train_dataset": rows, "processing_class": tokenizer}
    of_axolotl_too = {"data_collator": None, "eval_data_collator": list, "bench_data_collator": list, "eval_dataset": None,
                      "dataset_tags": ["x"], "callbacks": []}  # fmt: skip
    trainer = plugin.get_trainer_cls(config)(
        model=models[0], args=tiny.arguments(max_steps=2), **common, **of_axolotl_too
    )
    assert isinstance(trainer, UnlearningTrainer)
    lengths = [len(e.input_ids) for of in trainer.train_dataset.streams.values() for e in of]
    assert max(lengths) == config["sequence_len"] > min(lengths)  # the longest row is cut there
    trainer.train()
    ours = axolotl.build("npo", {"beta": 0.3})
    UnlearningTrainer(models[1], tiny.arguments(max_steps=2), method=ours, max_length=41, **common).train()
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)
    assert tiny.delta(models[0], tiny.model(vocab_size=len(tokenizer))).abs().max() > 0


def test_the_guides_configuration(workplace, of_axolotl):
    """It is accepted, and its steps are those of its epochs."""
    (text,) = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    config = yaml.safe_load(text)
    (name,) = config["plugins"]
    plugin = getattr(axolotl, name.removeprefix("expunge.axolotl."))()
    plugin.register(config)
    assert plugin.load_datasets(config).total_num_steps == 10
    assert issubclass(plugin.get_trainer_cls(config), UnlearningTrainer)
    table = GUIDE.read_text(encoding="utf-8")
    assert all(f"`{field}`" in table for field in axolotl.Unlearning.model_fields)
