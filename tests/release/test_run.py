"""A release end to end on a tiny model: the loop, its arithmetic, its budget, its restarts, and what is refused."""

from __future__ import annotations

import gc
import json
import math
import os
import signal
import stat
import sys
import types
from dataclasses import replace
from functools import partial

import pytest
import tiny
import torch
import torch.nn.functional as F
from peft import PeftModel
from transformers import AutoModelForCausalLM

from expunge import files, losses, models, record
from expunge.combine import WeightedSum
from expunge.data.example import Row
from expunge.data.sources import load_rows
from expunge.errors import InputError, RunFailed
from expunge.method import Method, Objective
from expunge.models.lora import orthogonality, read_adapter
from expunge.release import Look, make, modules, override, read_file, release, steps
from expunge.release.modules import input_factors
from expunge.training import keeper, signals
from expunge.unlearning import describe as about_run
from expunge.unlearning import train

FAST = {"max_steps": 3, "learning_rate": 0.02, "disable_tqdm": True, "use_cpu": True, "steps": 2, "lora": {"r": 2}}
BIG = {"utility_budget": None}


def go(model="model", **kw):
    return release(model, **({"forget": "forget.jsonl", "retain": "retain.jsonl"} | FAST | BIG | kw))


def logits(model):
    with torch.no_grad():
        return model.eval()(torch.tensor([[5, 6, 7, 20, 31]])).logits


@pytest.fixture(autouse=True, scope="module")
def few_objects():
    """Each training collects garbage several times: let it pass over what the imports made."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def no_page(request, monkeypatch):
    """The page is drawn only where a test reads it."""
    if "page" not in request.fixturenames:
        monkeypatch.setattr("expunge.report.write_report", lambda *_: None)


@pytest.fixture
def page():
    """The page is drawn."""


def plain(name="model"):
    return AutoModelForCausalLM.from_pretrained(name)


def figures(log, part="forget", name="nll"):
    return [s["figures"][part][name] for s in log["release"]["trajectory"]]


# -- the penalty as an objective without a stream -------------------------------------------------------------------------
LR, WEIGHT = 0.05, 0.3


def with_penalty(weight=WEIGHT, **kw):
    """A trainer on a LoRA whose A is kept apart from another LoRA's, and the frozen one."""
    _, frozen = models.detach_lora(models.attach_lora(tiny.model(), r=3, alpha=3, seed=5))
    net = models.attach_lora(tiny.model(), r=2, alpha=4, seed=0)
    with torch.no_grad():
        for n, p in net.named_parameters():
            if "lora_B" in n:
                p.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(n)))
    method = modules.method(input_factors(net, frozen), weight)
    return tiny.trainer(method, m=net, **({"learning_rate": LR} | kw)), frozen


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters() if p.requires_grad])


def test_cutting_a_step_into_micro_batches_changes_nothing():
    whole, _ = with_penalty()
    whole.train()
    cut, _ = with_penalty(per_device_train_batch_size=1, gradient_accumulation_steps=4)
    cut.train()
    torch.testing.assert_close(weights(whole.model), weights(cut.model), atol=1e-6, rtol=1e-5)
    logs = [[h["loss/orthogonality"] for h in t.state.log_history if "loss/forget" in h] for t in (whole, cut)]
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)


def test_three_steps_equal_a_hand_written_loop():
    t, frozen = with_penalty()
    start = weights(t.model).clone()
    hand, _ = with_penalty()
    net, data = hand.model, hand.train_dataset
    moving = {n: p for n, p in net.named_parameters() if p.requires_grad}
    for step in range(3):
        nll = []
        for k in range(4 * step, 4 * step + 4):
            row = data[k]["forget"]
            z = net(torch.tensor([row["input_ids"]])).logits[0]
            nll.append(F.cross_entropy(z[:-1], torch.tensor(row["labels"])[1:], reduction="none", ignore_index=-100))
        scored = torch.cat([x[x != 0] for x in nll])
        penalty = sum(
            (frozen.state[n.replace(".default", "")] @ p.T).abs().sum() for n, p in moving.items() if "lora_A" in n
        )
        grads = torch.autograd.grad(scored.mean() + WEIGHT * penalty, list(moving.values()))
        with torch.no_grad():
            for p, g in zip(moving.values(), grads, strict=True):
                p -= LR * g
    t.train()
    assert (weights(t.model) - start).norm() > 1e-2
    torch.testing.assert_close(weights(t.model), weights(net), atol=5e-6, rtol=1e-4)


def test_the_penalty_falls_in_training_and_is_logged():
    t, _ = with_penalty(max_steps=8)
    t.train()
    path = [h["loss/orthogonality"] for h in t.state.log_history if "loss/forget" in h]
    assert path[-1] < 0.8 * path[0] and t.state.log_history[0]["weight/orthogonality"] == pytest.approx(WEIGHT)
    free, _ = with_penalty(0.0)
    assert list(free.method.objectives) == ["forget"]
    assert list(modules.method([], 0.5).objectives) == ["forget"]


def test_an_objective_without_a_stream_meets_a_gramian():
    from expunge.combine import Bilevel

    t, _ = with_penalty()
    t = tiny.trainer(Method(t.method.objectives, Bilevel()), m=t.model, learning_rate=LR, max_steps=1)
    t.train()
    assert {"loss/orthogonality", "cosine"} <= set(t.state.log_history[0])


# -- what a step does -----------------------------------------------------------------------------------------------------
def test_a_step_is_the_formula(workplace, monkeypatch):
    """W₁ = W₀ - η_f s B_f A_f + η_r s B_r A_r, from the factors as they came out of training."""
    trained = []
    whole = modules.train
    monkeypatch.setattr(modules, "train", lambda *a, **k: trained.append(whole(*a, **k)) or trained[-1])
    result = go(steps=1, forget_coefficient=0.7, retain_coefficient=0.2, lora={"r": 2, "alpha": 6})
    retain, forget = (m.adapter.state for m in trained)
    name = "model.layers.1.mlp.up_proj"
    key = f"base_model.model.{name}.lora_{{}}.weight"
    expected = plain().get_submodule(name).weight.detach().clone()
    expected -= 0.7 * 3.0 * forget[key.format("B")] @ forget[key.format("A")]
    expected += 0.2 * 3.0 * retain[key.format("B")] @ retain[key.format("A")]
    assert (forget[key.format("B")].abs().max() > 1e-3) and (retain[key.format("B")].abs().max() > 1e-3)
    torch.testing.assert_close(result.model.get_submodule(name).weight.detach(), expected, atol=1e-6, rtol=0)
    assert result.record["release"]["trajectory"][1]["penalty"] == pytest.approx(
        sum(
            (retain[k] @ forget[k].T).abs().sum().item() for k in forget if "lora_A" in k
        ), rel=1e-5
    )  # fmt: skip


def test_modules_start_fresh_on_the_new_weights(workplace, monkeypatch):
    nets, seeds, whole = [], [], modules.train

    def watch(net, tokenizer, rows, settings, args, frozen=None, **key):
        nets.append({n: p.detach().clone() for n, p in net.named_parameters()})
        seeds.append(args.seed)
        return whole(net, tokenizer, rows, settings, args, frozen, **key)

    monkeypatch.setattr(modules, "train", watch)
    go()
    name = "model.layers.0.self_attn.q_proj.weight"
    retain1, forget1, retain2, forget2 = (n[name] for n in nets)
    assert torch.equal(retain1, forget1) and torch.equal(retain2, forget2) and not torch.equal(forget1, retain2)
    assert len(set(seeds)) == 4


def test_zero_coefficients_change_nothing(workplace):
    result = go(forget_coefficient=0, retain_coefficient=0)
    assert torch.equal(logits(result.model), logits(plain()))
    on_base = PeftModel.from_pretrained(plain(), "unlearned/model")
    assert torch.equal(logits(on_base), logits(plain()))
    assert result.record["before"] == result.record["after"]


def test_one_adapter_on_the_base_is_the_merged_model(workplace):
    result = go(forget_coefficient=1.0)
    adapter = read_adapter(workplace / "unlearned" / "model")
    assert adapter.config["r"] == 2 * (2 + 2)
    on_base = PeftModel.from_pretrained(plain(), "unlearned/model")
    torch.testing.assert_close(logits(on_base), logits(result.model), atol=1e-4, rtol=0)
    assert (logits(result.model) - logits(plain())).abs().max() > 0.01
    whole = go(forget_coefficient=1.0, merge=True, out="whole")
    assert torch.equal(logits(plain("whole/model")), logits(whole.model))
    assert torch.equal(logits(whole.model), logits(result.model))


def test_the_forget_loss_rises_and_more_than_the_retain_loss(workplace):
    """On a model that was taught both sets, without orthogonality doing the work of the minus sign."""
    from expunge.bench.teach import teach
    from expunge.unlearning import settings as recipe

    training = {"max_steps": 40, "learning_rate": 0.03, "use_cpu": True, "disable_tqdm": True}
    rows = load_rows("forget.jsonl") + load_rows("retain.jsonl")
    teach(rows, recipe.make({"model": "model", "forget": [], "training": training}), workplace / "taught")
    log = go("taught", steps=3, max_steps=10, learning_rate=0.02, forget_coefficient=0.6, retain_coefficient=0.2,
             lora={"r": 4, "alpha": 8}).record  # fmt: skip
    path = figures(log)
    assert path[0] < 1.0 and path == sorted(set(path)) and path[-1] > path[0] + 0.1
    assert log["after"]["forget"]["nll"] == path[-1]
    retain_figures = figures(log, "retain")
    assert retain_figures[-1] - retain_figures[0] < path[-1] - path[0]
    first = [s for s in log["steps"] if s["module"] == "forget" and s["release_step"] == 1]
    assert first[-1]["loss/orthogonality"] < first[0]["loss/orthogonality"]


def test_no_adapter_is_left_in_the_model(workplace):
    net = go().model
    assert not [n for n, _ in net.named_modules() if "lora" in n.lower()] and not hasattr(net, "peft_config")
    assert all(p.requires_grad for p in net.parameters()) and not net.training


def test_without_retain_rows_there_is_no_retain_module(workplace):
    log = go(retain=None).record
    assert [s["penalty"] for s in log["release"]["trajectory"]] == [None, 0.0, 0.0]
    assert {s["module"] for s in log["steps"]} == {"forget"} and "retain" not in log["before"]
    assert any("no retain module" in w for w in log["warnings"]) and any("no budget" in w for w in log["warnings"])
    assert log["method"]["objectives"] == {"forget": "nll"} and log["release"]["budget"] is None
    measured = go(retain_coefficient=0, out="measured").record  # then the retain rows are only measured
    assert {s["module"] for s in measured["steps"]} == {"forget"} and measured["after"]["retain"]["n"] == 5


# -- the record -----------------------------------------------------------------------------------------------------------
def test_what_is_written(workplace, page):
    result = go(orthogonality=0.25)
    folder = workplace / "unlearned"
    assert sorted(f.name for f in folder.iterdir()) == ["model", "report.html", "run.json", "steps"]
    log = record.read(folder)
    assert log["method"]["name"] == "release" and log["method"]["parameters"]["orthogonality"] == 0.25
    assert log["method"]["parameters"]["steps"] == 2 and "run" not in log["method"]["parameters"]
    assert log["method"]["objectives"] == {"forget": "nll", "retain": "nll", "orthogonality": "orthogonality"}
    assert [s["step"] for s in log["release"]["trajectory"]] == [0, 1, 2] and log["release"]["kept"] == 2
    assert log["release"]["stopped"] == "all steps were taken" and log["release"]["svd_error"] is None
    assert (log["release"]["forget_figure"], log["release"]["utility_figure"]) == ("forget/nll", "retain/nll")
    for role in ("retain", "forget"):
        rows = [s for s in log["steps"] if s["module"] == role]
        assert [s["step"] for s in rows] == list(range(1, 2 * 3 + 1)) and all(f"loss/{role}" in s for s in rows)
        assert all(("loss/forget" in s) == (role == "forget") for s in rows)
    assert log["training"]["max_steps"] == 3 and "seed" not in log["training"] and log["seed"] == 0
    # one module: rank 2 on 7 layers of 2 blocks, q k v o 16+16, gate and up 16+32, down 32+16
    assert log["model"]["trainable"] == 2 * 2 * (4 * 32 + 3 * 48)
    assert log["before"]["forget"]["nll"] == figures(log)[0] and log["data"]["retain"]["rows"] == 5
    assert result.record == json.loads(json.dumps(result.record))
    text = (folder / "report.html").read_text() + (folder / "run.json").read_text()
    text += "".join(f.read_text() for f in (folder / "steps").glob("*.json"))
    assert "Oru" not in text and "Where does Ada" not in text
    assert (folder / "report.html").read_text().count("Step by step") == 1


def test_examples_are_shown_where_asked_for(workplace):
    log = go(steps=1, examples=1, max_new_tokens=3).record
    assert [e["set"] for e in log["examples"]] == ["forget", "retain"]
    assert log["examples"][0]["question"] == "Where does Ada live?" and log["examples"][0]["after"] is not None


def test_a_lower_rank_says_what_it_lost_and_is_what_is_measured(workplace):
    exact = go(forget_coefficient=1.0, out="exact")
    cut = go(forget_coefficient=1.0, rank=2)
    lost = cut.record["release"]["svd_error"]
    assert lost["rank"] == 2 and 0.01 < lost["overall"] < 1 and len(lost["modules"]) == 14
    name = "model.layers.0.mlp.down_proj"
    change = [m.get_submodule(name).weight.detach() - plain().get_submodule(name).weight.detach()
              for m in (exact.model, cut.model)]  # fmt: skip
    sizes = torch.linalg.svdvals(change[0])
    assert lost["modules"][name] == pytest.approx(float(sizes[2:].norm() / sizes.norm()), rel=1e-3)
    assert torch.linalg.matrix_rank(change[1], atol=1e-5) == 2
    on_base = PeftModel.from_pretrained(plain(), "unlearned/model")
    torch.testing.assert_close(logits(on_base), logits(cut.model), atol=1e-5, rtol=0)
    assert cut.record["after"] != exact.record["after"] and figures(cut.record) == figures(exact.record)
    assert go(forget_coefficient=1.0, rank=8, out="enough").record["release"]["svd_error"] is None


def test_a_target_that_is_an_adapter_itself(workplace):
    first = models.attach_lora(models.load("model").model, r=3, alpha=6, seed=9)
    with torch.no_grad():
        for n, p in first.named_parameters():
            if "lora_B" in n:
                p.normal_(0, 0.05)
    base = models.load("model")
    models.save(first, base.tokenizer, "first", base=base)
    result = go("first", steps=1, forget_coefficient=1.0)
    adapter = read_adapter(workplace / "unlearned" / "model")
    assert adapter.config["r"] == 3 + 2 + 2 and adapter.config["base_model_name_or_path"].endswith("model")
    on_base = PeftModel.from_pretrained(plain(), "unlearned/model")
    torch.testing.assert_close(logits(on_base), logits(result.model), atol=1e-5, rtol=0)
    config = workplace / "first" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"velora_config": {"x": 1}}))
    with pytest.MonkeyPatch.context() as m:  # one that cannot be joined: whole weights
        m.setattr(sys.modules["expunge.models.load"], "_load_adapter", lambda *_: (plain(), str(workplace / "model")))
        whole = go("first", steps=1, out="whole")
    assert torch.equal(logits(plain("whole/model")), logits(whole.model))


# -- the budget -----------------------------------------------------------------------------------------------------------
def watched(values, better="lower"):
    """A look that says ``values`` one after the other, whatever the model."""
    remaining = iter(values)
    return Look(
        lambda _: {"f": {"x": 1.0}, "u": {"y": next(remaining)}}, forget=("f", "x"), utility=("u", "y"), better=better
    )


@pytest.mark.parametrize(
    ("values", "better", "kept"),
    [
        ([10.0, 10.4, 10.6, 9.0], "lower", 1),
        ([10.0, 10.5, 10.5, 10.5], "lower", 3),
        ([10.0, 10.6, 9.0, 9.0], "lower", 0),
        ([10.0, 9.6, 9.4, 11.0], "higher", 1),
        ([10.0, 12.0, 14.0, 9.5], "higher", 3),
        ([10.0, 10.1, float("nan"), 9.0], "lower", 1),
        ([-10.0, -10.4, -10.6, -10.6], "higher", 1),  # a log-probability: 5 % worse is -10.5
        ([-10.0, -9.6, -9.4, -9.6], "lower", 1),
    ],
)
def test_the_last_step_inside_the_budget_is_the_result(workplace, values, better, kept):
    result = go(look=watched(values, better), utility_budget=0.05, steps=3, max_steps=2)
    log = result.record["release"]
    assert log["kept"] == kept and log["budget"]["limit"] == pytest.approx(
        values[0] + (0.5 if better == "lower" else -0.5)
    )
    assert len(log["trajectory"]) == min(kept + 2, 4) and log["better"] == better
    assert log["stopped"].startswith("u y is" if kept < 3 else "all steps")
    expected = models.load("model").model
    for at in range(1, kept + 1):  # bit for bit, though a later step was taken and given up
        step = json.loads((workplace / "unlearned" / "steps" / f"{at:02d}.json").read_text())
        models.add(expected, steps._update(workplace / "unlearned" / "steps" / f"{at:02d}.safetensors", step))
    assert torch.equal(logits(result.model), logits(expected))
    on_base = PeftModel.from_pretrained(plain(), "unlearned/model")
    torch.testing.assert_close(logits(on_base), logits(result.model), atol=1e-5, rtol=0)
    assert any("target unchanged" in w for w in result.record["warnings"]) == (kept == 0)


def test_the_retain_loss_is_watched_or_the_perplexity_of_rows(workplace):
    log = go(utility_budget=0.0, forget_coefficient=3.0, steps=1).record
    assert log["release"]["budget"] == {"relative": 0.0, "limit": log["before"]["retain"]["nll"]}
    rows = [{"text": "The sky is blue."}, {"text": "Water is wet."}]
    (workplace / "text.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    log = go(utility="text.jsonl", utility_budget=0.5, steps=1, out="two").record
    start = log["before"]["utility"]
    assert log["release"]["utility_figure"] == "utility/perplexity" and log["data"]["utility"]["rows"] == 2
    assert log["release"]["budget"]["limit"] == pytest.approx(1.5 * start["perplexity"])
    net, total, n = models.load("model"), 0.0, 0
    for r in rows:
        ids = torch.tensor([net.tokenizer(r["text"]).input_ids])
        z = net.model(ids).logits[0, :-1].log_softmax(-1)
        total -= z.gather(1, ids[0, 1:, None]).sum().item()
        n += ids.shape[1] - 1
    assert start["nll"] == pytest.approx(total / n, rel=1e-4)
    assert start["perplexity"] == pytest.approx(torch.tensor(total / n).exp().item(), rel=1e-4)


def test_a_model_that_is_destroyed_ends_the_loop(workplace):
    with pytest.raises(
        RunFailed, match=r"broke down in step 1: no step was good, and .*unlearned/model is the target"
    ) as caught:
        go(forget_coefficient=1e30, steps=3)
    log = caught.value.record
    assert (
        log["release"]["kept"] == 0
        and log["failed"] in str(caught.value)
        and "cannot be measured after step 1" in log["release"]["stopped"]
    )
    assert any("cannot be measured after step 1" in w for w in log["warnings"]) and log["after"] == log["before"]


def test_a_module_whose_training_breaks_down_ends_the_loop(workplace, monkeypatch):
    whole = modules.train

    def train(net, tokenizer, rows, settings, args, frozen=None, **key):
        broken = "/02-forget" in str(args.output_dir)
        return whole(
            net, tokenizer, rows, settings, replace(args, learning_rate=1e6) if broken else args, frozen, **key
        )

    monkeypatch.setattr(modules, "train", train)
    with pytest.raises(RunFailed, match="broke down in step 2: step 1 is saved in") as caught:
        go(steps=3, max_steps=4)
    log = caught.value.record
    assert log["release"]["kept"] == 1 and log["after"]["forget"]["nll"] > 0
    assert any("step 2, forget module: training broke down at step" in w for w in log["warnings"])


def test_a_cut_that_leaves_the_budget_is_warned_of(workplace):
    values = [10.0, 10.1, 10.2, 20.0]  # the last look is at the cut adapter
    log = go(look=watched(values), utility_budget=0.05, steps=2, rank=1, max_steps=2).record
    assert log["release"]["kept"] == 2 and log["after"]["u"]["y"] == 20.0
    assert any("cut to rank 1, the result is outside the budget" in w for w in log["warnings"])


# -- interrupted and restarted --------------------------------------------------------------------------------------------
DROPOUT = {"lora": {"r": 2, "dropout": 0.3}, "steps": 3}


def test_a_restart_goes_on_after_the_last_whole_step(workplace, monkeypatch):
    whole = go(**DROPOUT, out="whole")
    train, calls = modules.train, []

    def die(*a, **k):
        calls.append(1)
        if len(calls) == 4:  # in the forget module of the second step
            raise KeyboardInterrupt
        return train(*a, **k)

    monkeypatch.setattr(modules, "train", die)
    with pytest.raises(KeyboardInterrupt):
        go(**DROPOUT, out="cut")
    files_left = sorted(f.name for f in (workplace / "cut" / "steps").iterdir())
    assert files_left == ["00.json", "01.json", "01.safetensors"] and not (workplace / "cut" / "run.json").exists()
    calls[:] = [1] * 10
    again = go(**DROPOUT, out="cut")
    assert len(calls) == 14  # two steps of two modules
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert figures(again.record) == figures(whole.record)
    weights = [files.sha256_file(workplace / w / "model" / "adapter_model.safetensors") for w in ("whole", "cut")]
    assert weights[0] == weights[1]
    rows = [[{k: v for k, v in s.items() if k != "seconds"} for s in r.record["steps"]] for r in (whole, again)]
    assert rows[0] == rows[1]


def test_a_restart_goes_on_within_a_module(workplace, monkeypatch):
    """Told to end in the second step's training of a module: the same call goes on from that training's checkpoint."""
    how = DROPOUT | {"steps": 2, "save_every": 0}
    whole = go(**how, out="whole")

    def on_step_begin(self, args, state, control, **kwargs):
        if args.output_dir.endswith("02-forget") and state.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as m:
        m.setattr(keeper.Keeper, "on_step_begin", on_step_begin, raising=False)
        with pytest.raises(signals.Interrupted, match="after step 2 of 3, which is saved"):
            go(**how, out="cut")
    begun, own = [], train.train
    monkeypatch.setattr(train, "train", lambda *a, **k: (begun.append(k["begin"]), own(*a, **k))[1])
    again = go(**how, out="cut")
    assert [place.name for place in begun] == ["checkpoint-3", "checkpoint-2"]
    weights = [files.sha256_file(workplace / w / "model" / "adapter_model.safetensors") for w in ("whole", "cut")]
    assert weights[0] == weights[1] and figures(again.record) == figures(whole.record)
    assert not (workplace / "cut" / "checkpoints").exists()


def test_fresh_starts_over(workplace, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(modules, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        go(out="cut")
    first = (workplace / "cut" / "steps" / "00.json").read_text()
    with pytest.raises(KeyboardInterrupt):
        go(out="cut", seed=1, fresh=True)  # other settings would be refused
    assert (workplace / "cut" / "steps" / "00.json").read_text() != first


def test_figures_that_are_no_number_are_read_back_as_they_were(tmp_path):
    figures = {"u": {"nan": math.nan, "up": math.inf, "down": -math.inf, "n": 3, "y": 0.1}}
    steps.write(steps.Step(0, figures), tmp_path, {"seed": 0})
    text = (tmp_path / "00.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["schema"] == 1
    (read,) = steps.read(tmp_path, {"seed": 0})
    assert repr(read.figures) == repr(figures)
    before = {k: v for k, v in json.loads(text).items() if k != "schema"} | {"figures": figures}
    (tmp_path / "00.json").write_text(json.dumps(before))  # as it was written before: no schema, NaN as Python says it
    assert steps.read(tmp_path, {"seed": 0})[0].figures["u"]["y"] == 0.1
    (tmp_path / "00.json").write_text(json.dumps(before | {"schema": 2}))
    with pytest.raises(InputError, match="has schema 2"):
        steps.read(tmp_path, {"seed": 0})


def test_a_damaged_step_is_taken_again(workplace):
    first = go(out="one")
    (workplace / "one" / "run.json").unlink()
    weights = workplace / "one" / "steps" / "02.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    again = go(out="one")
    assert torch.equal(logits(again.model), logits(first.model))


def test_steps_of_other_settings_are_not_gone_on_from(workplace):
    few = {"max_steps": 1, "steps": 1}
    go(**few)
    (workplace / "unlearned" / "run.json").unlink()
    (workplace / "other.jsonl").write_text((workplace / "retain.jsonl").read_text().replace("Ven", "Van"))
    other = models.load("model")
    with torch.no_grad():
        other.model.lm_head.weight[0, 0] += 1
    models.save(other.model, other.tokenizer, "other")
    for change, message in [
        ({"forget_coefficient": 0.31}, "another forget_coefficient;"),
        ({"seed": 1}, "another seed;"),
        ({"lora": {"r": 3}}, "another r;"),
        ({"learning_rate": 0.03, "orthogonality": 0}, "another learning_rate, orthogonality;"),
        ({"retain": "other.jsonl"}, "another retain set;"),
        ({"utility": "other.jsonl"}, "another utility;"),
        ({"model": "other"}, "another model;"),
        ({"look": watched([1.0] * 9)}, "another look;"),
    ]:
        with pytest.raises(InputError, match=message):
            go(**(few | change))
    (workplace / "unlearned" / "steps" / "notes.txt").write_text("mine")
    log = go(**few, seed=1, overwrite=True).record
    assert len(log["release"]["trajectory"]) == 2 and (workplace / "unlearned" / "steps" / "notes.txt").exists()


def test_steps_that_something_else_was_measured_after_are_not_gone_on_from(workplace):
    few, ten = {"max_steps": 1, "steps": 1}, replace(watched([1.0] * 9), name="ten rows")
    go(look=ten, **few)
    (workplace / "unlearned" / "run.json").unlink()
    with pytest.raises(InputError, match="another look;"):
        go(look=replace(ten, name="fifty rows"), **few)


def test_more_steps_a_budget_and_another_rank_go_on_from_the_same_steps(workplace, monkeypatch):
    first = go(steps=1).record
    calls, train = [], modules.train
    monkeypatch.setattr(modules, "train", lambda *a, **k: calls.append(1) or train(*a, **k))
    with pytest.raises(InputError, match=r"an earlier run's run\.json is here"):
        go(steps=2)
    more = go(steps=2, rank=2, utility_budget=10.0, overwrite=True, learning_rate="0.02").record
    assert len(calls) == 2 and figures(more)[:2] == figures(first)
    fewer = go(steps=1, overwrite=True).record
    assert len(calls) == 2 and fewer["release"]["kept"] == 1 and len(fewer["release"]["trajectory"]) == 2
    assert fewer["after"] == first["after"] and fewer["output"] == first["output"]


# -- rows that the model writes itself ------------------------------------------------------------------------------------
def test_retain_rows_that_the_model_writes(workplace, monkeypatch):
    prompts = []

    def neutral_rows(model, tokenizer, n, *, seed, chat_template=True):
        prompts.append((n, seed, model.training))
        rows = [Row(({"role": "user", "content": f"Say {i}"},), f"It is {i}.") for i in range(n - 2)]
        return [*rows, Row(None, "Plain text here."), Row("Once upon", " a time.")]

    monkeypatch.setattr("expunge.generation.sample.neutral_rows", neutral_rows)
    log = go(retain=None, self_retain=5, seed=3, steps=1).record
    assert prompts == [(5, 3, False)] and log["data"]["retain"]["rows"] == 5
    assert log["data"]["retain"]["source"] == "written by the model itself"
    assert {s["module"] for s in log["steps"]} == {"forget", "retain"} and "retain" in log["before"]
    written = [*(workplace / "unlearned" / "steps").glob("*.json*")]
    assert len(written) == 3 and all(stat.S_IMODE(f.stat().st_mode) == 0o600 for f in written)
    rows = load_rows(workplace / "unlearned" / "steps" / "retain.jsonl")
    assert [(r.prompt, r.answer) for r in rows] == [(r.prompt, r.answer) for r in neutral_rows(
        types.SimpleNamespace(training=False), None, 5, seed=3)]  # fmt: skip
    go(retain=None, self_retain=5, seed=3, steps=2, overwrite=True)
    assert len(prompts) == 2  # by the test itself: those of before were read back


# -- settings -------------------------------------------------------------------------------------------------------------
def test_module_training_is_short_unless_told_otherwise(workplace):
    chosen = make({"model": "m", "forget": [], "training": {"use_cpu": True}})
    many = modules.arguments(chosen, "forget", 1, 5000, workplace)
    assert many.num_train_epochs == 2 and many.learning_rate == pytest.approx(2e-4)
    few = modules.arguments(chosen, "forget", 1, 16, workplace)
    assert few.num_train_epochs == 25  # 2 optimizer steps an epoch: 50 in all
    assert few.seed != modules.arguments(chosen, "forget", 2, 16, workplace).seed
    explicit = make({"model": "m", "forget": [], "training": {"use_cpu": True, "num_train_epochs": 1}})
    assert modules.arguments(explicit, "forget", 1, 16, workplace).num_train_epochs == 1
    assert (chosen.run.lora.r, chosen.run.lora.alpha, chosen.run.adapter) == (8, 16, "lora")


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


def test_bad_input_that_only_the_model_shows(workplace, monkeypatch):
    monkeypatch.setattr(modules, "train", lambda *_, **__: pytest.fail("a module was trained"))
    with pytest.raises(InputError, match="cannot be attached"):
        go(lora={"target_modules": ["nothing"]})
    with pytest.raises(InputError, match="no factor of a linear layer"):
        go(lora={"target_modules": ["embed_tokens"]})
    with pytest.raises(InputError, match="has no figure u y"):
        go(look=Look(lambda _: {"f": {"x": 1.0}}, ("f", "x"), ("u", "y")), utility_budget=0.1, out="looked")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="one process"):
        go()


def test_the_penalty_is_the_objective_that_the_trainer_sees():
    pairs = [(torch.ones(1, 2), torch.nn.Parameter(torch.ones(1, 2)))]
    method = modules.method(pairs, 0.5)
    assert method.objectives["orthogonality"] == Objective(method.objectives["orthogonality"].loss, on=())
    assert method.objectives["orthogonality"].loss.func is orthogonality and method.combine == WeightedSum(1.0, 0.5)
    assert (
        isinstance(method.objectives["orthogonality"].loss, partial) and method.objectives["forget"].loss is losses.nll
    )
    assert (
        method.streams == ("forget",) and about_run.describe(method)["objectives"]["orthogonality"] == "orthogonality"
    )
