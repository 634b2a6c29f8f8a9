"""Every field of ``TrainingArguments`` works here, is set by expunge, or is refused; no field is unknown."""

from __future__ import annotations

import doctest

import pytest
import torch
from transformers.integrations import integration_utils

from expunge.errors import InputError
from expunge.method import build
from expunge.training import arguments, refused

WORKS = {  # each does what transformers says
    "per_device_train_batch_size", "num_train_epochs", "max_steps", "learning_rate", "lr_scheduler_type",
    "lr_scheduler_kwargs", "warmup_steps", "optim", "optim_args", "weight_decay", "adam_beta1", "adam_beta2",
    "adam_epsilon", "gradient_accumulation_steps", "max_grad_norm", "bf16", "fp16", "tf32", "activation_checkpointing",
    "activation_checkpointing_kwargs", "gradient_checkpointing", "gradient_checkpointing_kwargs", "neftune_noise_alpha",
    "logging_strategy", "logging_steps", "logging_first_step", "log_on_each_node", "log_level", "log_level_replica",
    "disable_tqdm", "report_to", "save_strategy", "save_steps", "ignore_data_skip",
    "restore_callback_states_from_checkpoint", "full_determinism", "use_cpu", "accelerator_config",
    "dataloader_drop_last", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_multiprocessing_context",
    "dataloader_in_order", "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph",
    "ddp_backend", "ddp_timeout", "debug", "resume_from_checkpoint", "deepspeed", "fsdp", "fsdp_config",
}  # fmt: skip
WITH_OTHERS = {"optim_target_modules", *refused.BESIDE, *refused.OF_SEVERAL, *refused.OF_OPTIMIZERS}
OURS = {"output_dir", "seed", "remove_unused_columns"}


def arguments_of(tmp_path, **given):
    return arguments.arguments({"use_cpu": True} | given, arguments.defaults(build("npo"), 8, lora=True), tmp_path, 0)


def test_doctests():
    assert not doctest.testmod(refused).failed and not doctest.testmod(arguments).failed


def test_every_field_has_its_place():
    kinds = [WORKS, WITH_OTHERS, OURS, refused.REASONS, refused.TRACKERS, refused.OF_CHECKPOINTS]
    kinds[0] -= WITH_OTHERS
    placed = [name for kind in kinds for name in kind]
    assert len(placed) == len(set(placed))
    assert set(arguments.names()) - set(placed) == set()


@pytest.mark.parametrize("key", sorted(refused.REASONS.keys() & arguments.names().keys()))
def test_what_asks_for_nothing_is_welcome_and_anything_else_is_refused(tmp_path, key):
    usual = refused._usual()[key]
    arguments.parsed({key: usual})
    arguments.parsed({key: str(getattr(usual, "value", usual))} if isinstance(usual, bool | int | float | str) else {})
    other = {bool: not usual, float: 0.5, int: 3}.get(type(usual), "something")
    with pytest.raises(InputError, match=f"the training argument {key} does nothing here: "):
        arguments.parsed({key: other})


def test_checkpoints_are_written_where_their_steps_are_given(tmp_path):
    assert arguments_of(tmp_path, save_steps="5").save_strategy == "steps"
    assert arguments_of(tmp_path, save_strategy="epoch", save_total_limit="2").save_total_limit == 2
    assert arguments_of(tmp_path).save_strategy == "no"


def test_trackers_are_none_one_or_several(tmp_path, monkeypatch):
    assert arguments_of(tmp_path, report_to="none").report_to == []
    for module in ("wandb", "tensorboard"):
        monkeypatch.setattr(f"transformers.integrations.is_{module}_available", lambda: True)
    assert arguments_of(tmp_path, report_to="wandb,tensorboard", run_name="x").report_to == ["wandb", "tensorboard"]
    monkeypatch.setattr("transformers.integrations.is_wandb_available", lambda: False)
    with pytest.raises(InputError, match="report_to=wandb needs the package wandb: pip install wandb"):
        arguments.parsed({"report_to": "wandb"})
    assert set(integration_utils.INTEGRATION_TO_CALLBACK) >= {"wandb", "tensorboard"}


def test_several_processes_without_an_accelerator_train_together_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert arguments._together_on_cpu() == {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert arguments._together_on_cpu() == {"use_cpu": True, "ddp_backend": "gloo"}
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert arguments._together_on_cpu() == {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"optim": "galore_adamw"}, "optim=galore_adamw needs the package galore-torch"),
        ({"optim": "lomo"}, "optim=lomo needs the package lomo-optim"),
        ({"deepspeed": "{}"}, "needs the package deepspeed"),
        ({"learning_rate": [1]}, r"learning_rate=\[1\] is not of type float"),
        ({"per_device_train_batch_size": None}, "per_device_train_batch_size=None is not of type int"),
        (
            {"lr_scheduler_kwargs": '{"a": 1}', "lr_scheduler_type": "polynomial"},
            "does not take these lr_scheduler_kwargs",
        ),
    ],
)
def test_what_is_missing_or_of_another_type(tmp_path, monkeypatch, given, said):
    monkeypatch.setattr(refused, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=said):
        arguments_of(tmp_path, **given)
