"""Where a run trains, on machines that this one is not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from expunge import methods
from expunge.errors import InputError
from expunge.models.check import check_attention, check_device, usual_device
from expunge.training import arguments, devices

CARDS = [torch.device("cuda", i) for i in range(2)]


@pytest.fixture
def cards(monkeypatch):
    """Two cards that can be named, not used."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    return chosen


def args_of_two_cards():
    """As transformers makes them where one process sees two cards."""
    made = SimpleNamespace(n_gpu=2, distributed_state=SimpleNamespace(device=CARDS[0]))
    made.__dict__["_setup_devices"] = made.device = CARDS[0]
    return made


def test_one_process_trains_on_one_card(cards):
    args = args_of_two_cards()
    devices.place(args, None)
    assert args._n_gpu == 1 and args._setup_devices == CARDS[0] and not cards


def test_a_card_that_is_named_is_the_one_that_trains(cards):
    args = args_of_two_cards()
    devices.place(args, "cuda:1")
    assert args._setup_devices == CARDS[1] == args.distributed_state.device and cards == [CARDS[1]]


def test_the_names_are_those_of_transformers(tmp_path):
    """What ``place`` sets is what ``TrainingArguments`` and the accelerator read."""
    args = arguments.arguments({"use_cpu": True}, {}, tmp_path, 0)
    wanted = torch.device("meta")
    args.__dict__["_setup_devices"] = wanted
    args.distributed_state.device = wanted
    from accelerate import PartialState

    assert args.device == wanted and PartialState().device == wanted and args.n_gpu == 0
    args.distributed_state.device = torch.device("cpu")


def test_a_card_by_number_is_refused_under_a_launcher(cards, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="the launcher gives each process its own; say cuda"):
        devices.place(args_of_two_cards(), "cuda:1")


def test_the_cpu_may_be_named_where_there_are_cards(cards):
    assert devices.on_cpu("cpu", {}) == {"use_cpu": True} and devices.on_cpu("cuda:1", {}) == {}
    with pytest.raises(InputError, match="device=cuda and use_cpu=true contradict each other"):
        devices.on_cpu("cuda", {"use_cpu": True})


def test_what_suits_a_card(cards, tmp_path):
    suited = arguments.defaults(methods.npo(), 40, lora=False)
    assert suited["bf16"] is True and suited["optim"] == "adamw_torch_fused"
    exact = arguments.optimized(methods.grad_diff(), "sophia", {"curvature": "hutchinson"}, {})
    assert arguments.defaults(exact, 40, lora=False)["bf16"] is False
    for given, device in (({"use_cpu": True}, None), ({}, "cpu")):
        args = arguments.arguments(given, suited, tmp_path, 0, device)
        assert not args.bf16 and args.optim.value == "adamw_torch" and args.device.type == "cpu"


def test_without_a_card_nothing_is_changed():
    suited = arguments.defaults(methods.npo(), 40, lora=False)
    assert "bf16" not in suited and suited["optim"] == "adamw_torch"


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1", "mps"])
def test_a_device_that_is_not_there_is_refused(name, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(InputError, match=f"the device {name} is not to be had: this machine has no accelerator"):
        check_device(name)
    assert usual_device(None) is None and usual_device("cpu") == "cpu"


def test_a_card_that_is_not_there_is_refused(cards):
    check_device("cuda:1")
    assert usual_device(None) == torch.device("cuda") and usual_device("cuda:1") == "cuda:1"
    with pytest.raises(InputError, match="this machine has 2 of type cuda"):
        check_device("cuda:2")


@pytest.mark.parametrize(
    ("attn", "dtype", "said"),
    [
        ("flash_attention_2", "bfloat16", "needs the package flash-attn, which is not installed"),
        ("kernels-community/flash-attn", "bfloat16", "needs the package kernels"),
        ("flash-attention-2", None, "there is no attention 'flash-attention-2', did you mean 'flash_attention_2'?"),
    ],
)
def test_attention_that_is_not_there_is_refused(attn, dtype, said, monkeypatch):
    monkeypatch.setattr("expunge.models.check.find_spec", lambda _: None)
    with pytest.raises(InputError) as error:
        check_attention(attn, dtype)
    assert said in str(error.value)


def test_flash_attention_computes_in_16_bits(monkeypatch):
    monkeypatch.setattr("expunge.models.check.find_spec", lambda _: True)
    check_attention("flash_attention_2", "bfloat16")
    with pytest.raises(InputError, match="computes in 16 bits only"):
        check_attention("flash_attention_2", "float32")
    for attn in ("sdpa", "eager", "flex_attention", None):
        check_attention(attn, "float32")


def test_what_a_record_says_of_training_moves_no_run_to_another_device(monkeypatch, tmp_path):
    """On a machine with an accelerator, of which this one makes do with "meta", a run on the CPU stays there."""
    from accelerate.state import AcceleratorState, PartialState

    from expunge.unlearning.describe import describe_training

    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(PartialState, "default_device", property(lambda self: torch.device("meta")))
    args = arguments.arguments({"use_cpu": True}, {}, tmp_path, 0, "cpu")
    assert PartialState().device == args.device == torch.device("cpu")
    assert describe_training(args, 3)["use_cpu"] is True
    assert PartialState().device == torch.device("cpu")
    PartialState._reset_state()
    assert PartialState().device == torch.device("meta"), "this test would not see it"
    AcceleratorState._reset_state(reset_partial_state=True)
