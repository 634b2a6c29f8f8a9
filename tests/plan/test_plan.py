"""A plan against numbers worked by hand, real optimizers' states, real passes, and the command line."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from typer.testing import CliRunner

from expunge import combine, losses, methods
from expunge.cli import app
from expunge.data.collate import collate
from expunge.errors import InputError
from expunge.method import Method, Objective
from expunge.plan import advice, describe, machine, optimizers, parts, setup, step, trace
from expunge.plan import model as planned_model
from expunge.plan.run import plan
from expunge.plan.settings import Plan, size
from expunge.settings import checked
from expunge.sophia import Settings as Sophia
from expunge.unlearning.settings import make

GIB = 2**30
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_key_value_heads": 8, "vocab_size": 128_256}
L8 = {**LLAMA, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 14336}
L70 = {**LLAMA, "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "intermediate_size": 28672}
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "intermediate_size": 96, "vocab_size": 512}  # fmt: skip


def folder(path, config):
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({**LLAMA, **config}))
    return str(path)


def settings(path, config=SMALL, **given):
    return make({"model": folder(path, config), "forget": [], **given})


def rows(n=16, tokens=24, answer=9):
    return setup.stated(("forget", "retain"), n, tokens, answer)


def state_bytes(optimizer):
    return sum(
        v.numel() * v.element_size()
        for state in optimizer.state.values()
        for v in state.values()
        if torch.is_tensor(v) and v.numel() > 1
    )


# -- parameters and bytes ---------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_parameters_of_the_published_llamas(tmp_path):
    """Llama-3.1-8B has 8,030,261,248 parameters, LoRA of rank r on a matrix (a, b) has r (a + b)."""
    given = settings(tmp_path / "m", {**L8, "tie_word_embeddings": False}, adapter="lora", dtype="bfloat16")
    net, _, loaded = planned_model.prepared(given, methods.npo())
    shape = planned_model.shape_of(net, loaded)
    d, between, kv = 4096, 14336, 1024
    factors = 32 * 16 * (2 * (d + d) + 2 * (d + kv) + 3 * (d + between))
    assert shape.trained_parameters == factors == 41_943_040
    assert shape.parameters == 8_030_261_248 + factors
    assert (shape.frozen, shape.trained, shape.loaded) == (2 * 8_030_261_248, 4 * factors, 2 * 8_030_261_248)
    assert shape.root == 2 * 128_256 * d + d and shape.layers == 32 and shape.adapter
    linear = 32 * (2 * d * d + 2 * d * kv + 3 * d * between)
    nf4 = planned_model.shape_of(net, loaded, "nf4")
    assert nf4.frozen == pytest.approx(2 * (8_030_261_248 - linear) + linear * 4.127 / 8, rel=1e-4)
    int8 = planned_model.shape_of(net, loaded, "int8")
    assert int8.frozen == pytest.approx(2 * 8_030_261_248 - linear)


@pytest.mark.parametrize("name", ["adamw_torch", "sgd", "adagrad", "rmsprop", "sophia"])
def test_an_optimizer_holds_what_is_said(name):
    net = torch.nn.Linear(40, 30)
    made = {
        "adamw_torch": lambda p: torch.optim.AdamW(p, lr=1e-3),
        "sgd": lambda p: torch.optim.SGD(p, lr=1e-3),
        "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-3),
        "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
        "sophia": lambda p: __import__("expunge.sophia", fromlist=["Sophia"]).Sophia(p, lr=1e-3),
    }[name](net.parameters())
    net(torch.ones(2, 40)).sum().backward()
    made.step()
    numbers = sum(p.numel() for p in net.parameters())
    assert state_bytes(made) == optimizers.state_of(name).bytes * numbers


def hand(shape, how, method, data, passes=None):
    passes = passes or dict.fromkeys(method.objectives, trace.Passes(0, 0))
    return parts.memory(shape, method, data, how, passes)


SHAPE = planned_model.Shape(
    parameters=1000, trained_parameters=1000, frozen=0, trained=4000, loaded=4000, largest_trained=800, largest_frozen=0,
    unit=200, root=100, unit_trained=200, root_trained=100, hidden=40, width=10, head=400, layers=4, adapter=False,
)  # fmt: skip
GPU = setup.Setup(rows=4, accumulation=1, steps=50, gpu=True, autocast=True, optimizer="adamw_torch_fused")


def test_a_step_by_hand():
    """Weights 4000, moments 8000; one gradient 4000, two where a Gramian is read; passes beside those held before them."""
    data, passes = rows(), {"forget": trace.Passes(7000, 100), "retain": trace.Passes(500, 600)}
    found = hand(SHAPE, GPU, methods.grad_diff(), data, passes)
    assert found.gradients == 4000 and found.optimizer_state == 8000
    assert found.phases["step"] == 4000 + 8000 + 7000  # the first objective's passes, before there is a gradient
    assert found.phases["optimizer step"] == 4000 + 8000 + 4000 and found.phases["loading"] == 4000
    several = hand(SHAPE, replace(GPU, accumulation=2), methods.grad_diff(), data, passes)
    assert several.phases["step"] == 4000 + 8000 + 4000 + 7000
    blur = hand(SHAPE, GPU, methods.blur_npo(), data, passes)
    assert blur.gradient_buffers == 2 and blur.gradients == 8000
    assert blur.phases["step"] == 4000 + 8000 + 8000  # two gradients at the end
    assert blur.main == 4000 + 4 * 16 * 9  # the copy of good weights, and cached log-probabilities
    both = hand(SHAPE, replace(GPU, accumulation=2), methods.blur_npo(), data, passes)
    assert both.phases["step"] == 4000 + 8000 + 8000 + 7000
    assert found.main == found.good_copy == 4000  # the copy of good weights
    ends = hand(SHAPE, GPU, methods.pdu_level(), data, passes)
    assert ends.good_copy == 8000 and ends.main == 8000 + 8 * 16 * 9  # those of the last test too; two numbers a token
    assert ends.phases["reading the level"] == 4000 + 4000  # a second model
    assert "reading the level" not in blur.phases
    cpu = hand(SHAPE, replace(GPU, gpu=False), methods.grad_diff(), data, passes)
    assert cpu.phases["step"] == found.phases["step"] + 4000 and cpu.main == 0


def test_several_processes_by_hand():
    data = rows()
    ddp = hand(SHAPE, replace(GPU, processes=4), methods.blur_npo(), data)
    assert ddp.exchange == 4000 and ddp.trained_weights == 4000
    shards = hand(SHAPE, replace(GPU, processes=4, sharded=True), methods.blur_npo(), data)
    assert (shards.trained_weights, shards.gradients, shards.optimizer_state) == (1000, 2000, 2000)
    assert shards.exchange == 2 * (2 * 200 + 100 + 200 + 100)
    assert shards.main == 4000 + 1000 + 4 * 16 * 9  # the model while it is loaded, the copy of a shard, what is cached


def test_sophia_by_hand():
    found = hand(SHAPE, replace(GPU, optimizer="sophia", curvature="gauss_newton"), methods.grad_diff(), rows())
    assert found.optimizer_state == 8000
    assert found.phases["optimizer step"] == 4000 + 8000 + 4000 + 8000  # the sampled gradient, and its square


@pytest.mark.parametrize(
    ("method", "shape", "form", "device", "main"),
    [
        (methods.pdu(budget=1.0), SHAPE, "none", 0, 0),
        (methods.npo(), SHAPE, "cached", 0, 4 * 16 * 9),
        (methods.level(), SHAPE, "cached", 0, 8 * 16 * 9),
        (methods.grad_diff(retain="kl"), replace(SHAPE, trained=1e6), "cached", 400, 16 * 9 * 40),
        (methods.grad_diff(retain="kl"), SHAPE, "copy", 4000, 0),
        (methods.grad_diff(retain="kl"), replace(SHAPE, adapter=True), "adapter off", 0, 0),
        (methods.rmu(layer=1, steering_coefficient=1.0), SHAPE, "copy", 2000, 0),
        (methods.rmu(layer=1, steering_coefficient=1.0), replace(SHAPE, trained=1e6), "cached", 0, 16 * 24 * 40),
    ],
)
def test_the_reference_by_hand(method, shape, form, device, main):
    found = parts.reference(shape, method, rows(), GPU)
    assert (found.form, found.device, found.main) == (form, device, main)


# -- passes -----------------------------------------------------------------------------------------------------------------
def test_what_is_traced_is_what_autograd_saves(tmp_path):
    """Beside a real model: the tensors that autograd keeps from forward to backward, each storage once."""
    given = settings(tmp_path / "m")
    net, method, _ = planned_model.prepared(given, methods.grad_diff())
    data = rows(4)
    how = setup.Setup(rows=4, accumulation=1, steps=1)
    found = step.traced(net, method, data, how)["retain"]
    real = tiny.LlamaForCausalLM(planned_model.configuration(given.model))
    own = {p.untyped_storage().data_ptr() for p in real.parameters()}
    kept = {}

    def keep(x):
        storage = x.untyped_storage()
        if storage.data_ptr() not in own and x.is_floating_point():
            kept[storage.data_ptr()] = (storage, storage.nbytes())
        return x

    batch = collate([{"input_ids": e.input_ids, "labels": e.labels, "index": i} for i, e in enumerate(data["retain"])],
                    pad_id=0)  # fmt: skip
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        losses.nll(__import__("expunge.forward.view", fromlist=["see"]).see(real, batch))
    saved = sum(n for _, n in kept.values())
    assert found.traced and saved < found.forward < 1.25 * saved  # what lives for a while comes on top
    assert found.backward > saved


@pytest.mark.slow
def test_deep_models_are_traced_by_three_layers(tmp_path, monkeypatch):
    deep = settings(tmp_path / "m", {**SMALL, "num_hidden_layers": 5}, adapter="lora")
    net, method, _ = planned_model.prepared(deep, methods.npo())
    how = setup.Setup(rows=2, accumulation=1, steps=1, gpu=True, autocast=True)
    few = step.traced(net, method, rows(), how)
    monkeypatch.setattr(step, "alike", lambda stack: False)
    whole = step.traced(net, method, rows(), how)
    for name in whole:
        assert few[name].most == pytest.approx(whole[name].most, rel=1e-3)


@pytest.mark.slow
def test_checkpointing_keeps_less_and_longer_rows_take_more(tmp_path):
    net, method, _ = planned_model.prepared(
        settings(tmp_path / "m", {**SMALL, "num_hidden_layers": 4}), methods.grad_diff()
    )
    how = setup.Setup(rows=4, accumulation=1, steps=1)
    plain, less = (step.traced(net, method, rows(), replace(how, checkpointing=c))["retain"] for c in (False, True))
    longer = step.traced(net, method, rows(tokens=48), how)["retain"]
    assert less.most < 0.8 * plain.most < 0.8 * longer.most


def test_a_loss_that_cannot_be_traced_gets_a_formula(tmp_path):
    def odd(x):
        return x.token_mean(-x.token_logp) * float(x.token_logp.sum())

    method = Method({"forget": Objective(odd, ("forget",))}, combine.WeightedSum())
    net, _, _ = planned_model.prepared(settings(tmp_path / "m"), methods.grad_diff())
    found = step.traced(net, method, rows(), setup.Setup(rows=4, accumulation=1, steps=1))["forget"]
    assert not found.traced and found.most > 0


# -- the set-up -------------------------------------------------------------------------------------------------------------
def test_the_set_up_is_that_of_the_run(tmp_path):
    given = settings(tmp_path / "m", training={"per_device_train_batch_size": 3, "max_steps": 7})
    made = setup.setup(given, methods.npo(), 400, gpu=False, processes=1)
    assert (made.rows, made.accumulation, made.steps, made.optimizer, made.autocast) == (3, 2, 7, "adamw_torch", False)
    on_card = setup.setup(settings(tmp_path / "m"), methods.npo(), 400, gpu=True, processes=4)
    assert (on_card.rows, on_card.accumulation, on_card.step_rows) == (2, 2, 16)
    assert on_card.steps == 250 and on_card.optimizer == "adamw_torch_fused" and on_card.autocast
    sophia = setup.setup(given, replace(methods.npo(), optimizer=Sophia()), 400, gpu=False, processes=1)
    assert (sophia.optimizer, sophia.curvature) == ("sophia", "gauss_newton")
    text = {"fsdp": "full_shard", "fsdp_config": '{"version": 2, "activation_checkpointing": true}'}
    sharded = setup.setup(settings(tmp_path / "m", training=text), methods.npo(), 400, gpu=True, processes=4)
    assert sharded.sharded and sharded.checkpointing


# -- what fits --------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_8b_on_one_card_of_24_gb(tmp_path):
    given = settings(tmp_path / "m", {**L8, "tie_word_embeddings": False}, method="npo")
    how = Plan(memory="24GB", row_tokens=103, answer_tokens=45, rate=400)
    found = plan(given, how, typed=["plan", "--model", "m", "--memory", "24GB", "--json", "batch_size=8"])
    assert not found["fits"] and found["memory"]["trained_weights"] == 4 * 8_030_261_248
    assert found["operations"] == pytest.approx(6 * 2 * 8 * 2 * (103 * 6_979_321_856 + 45 * 525_336_576), rel=0.01)
    assert found["least_seconds_a_step"] == found["operations"] / 4e14
    better = found["would_fit"]
    assert better["memory"]["peak"] < 23.4e9 and better["changes"]["adapter"] == "lora"
    words = better["command"].split()
    assert words[:4] == ["expunge", "run", "--model", "m"] and "--memory" not in words and "batch_size=8" not in words
    assert better["setup"]["rows"] * better["setup"]["accumulation"] == found["setup"]["step_rows"]


def test_the_ladder_keeps_the_rows_of_a_step_and_ends_with_more_cards(tmp_path):
    given = settings(tmp_path / "m")
    how = replace(GPU, rows=8, accumulation=2)
    groups = [group for group in advice.changes(given, how, cards=8) if group]
    for group in groups:
        for change in group:
            n = change.options.get("processes", 1)
            assert (
                math.prod(change.pairs[k] for k in ("per_device_train_batch_size", "gradient_accumulation_steps")) * n
                == 16
            )
    assert groups[0][0].options == {} and groups[1][0].pairs["gradient_checkpointing"]
    assert groups[2][0].options["adapter"] == "lora" and groups[-1][0].options["processes"] == 8
    tried = []
    found = advice.first_that_fits(
        iter(groups), lambda c: tried.append(c) or c.pairs["per_device_train_batch_size"] <= 2
    )
    assert found.options == {} and found.pairs["per_device_train_batch_size"] == 2 and tried[0].pairs[
        "per_device_train_batch_size"] == 1  # fmt: skip
    assert advice.first_that_fits(iter(groups), lambda c: False) is None


def test_machines():
    memory = hand(SHAPE, GPU, methods.grad_diff(), rows())
    card = machine.Machine("card", memory.peak, main=2 * memory.main, cards=2)
    assert machine.fits(memory, card, 2, gpu=True) and not machine.fits(memory, card, 3, gpu=True)
    assert not machine.fits(memory, replace(card, usable=memory.peak - 1), 1, gpu=True)
    assert not machine.fits(memory, replace(card, main=memory.main), 2, gpu=True)
    assert machine.stated(24e9).usable == 24e9 - machine.CONTEXT and machine.this_one(gpu=False).usable > 0


# -- the command ------------------------------------------------------------------------------------------------------------
def test_the_command(tmp_path):
    model = folder(tmp_path / "m", SMALL)
    base = ["plan", "--model", model, "--row-tokens", "24", "--answer-tokens", "9", "--method", "blur_npo"]
    done = CliRunner().invoke(app, [*base, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["command"] == "plan" and found["fits"] and found["memory"]["gradient_buffers"] == 2
    numbers = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96 + 2 * 64) + 2 * 512 * 64 + 64
    assert found["parameters"] == {"all": numbers, "trained": numbers}
    text = "\n".join(describe.lines(found))
    assert "2 of them: one an objective" in text and "fits        yes" in text and "--probe measures it" in text
    assert "fits" in describe.summary(found)["memory"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "give --forget"),
        (["--row-tokens", "9"], "--answer-tokens"),
        (["--row-tokens", "9", "--answer-tokens", "9"], "at most 8 labelled"),
        (["--memory", "lots"], "write 24GB"),
        (["--row-tokens", "9", "--answer-tokens", "3", "lerning_rate=1"], "did you mean 'learning_rate'"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path, given, said):
    done = CliRunner().invoke(app, ["plan", "--model", folder(tmp_path / "m", SMALL), *given])
    assert done.exit_code == 2 and said in done.stderr and done.stderr.strip().count("\n") == 0, done.output


@pytest.mark.slow
def test_the_page_of_large_models_is_what_the_plan_says():
    script = Path(__file__).parents[2] / "scripts" / "memory.py"
    assert subprocess.run([sys.executable, script, "--check"]).returncode == 0


def test_sizes():
    assert checked(Plan, {"memory": "80GiB"}, "the plan").memory == 80 * GIB and size("24 gb") == 24e9
    with pytest.raises(InputError, match="memory"):
        checked(Plan, {"memory": "-1GB"}, "the plan")
