"""A release end to end on a tiny model: the loop, its arithmetic, its record."""

from __future__ import annotations

import json
import shutil
import stat
import sys
import types

import pytest
import torch
from peft import PeftModel
from tiny_release import figures, go, logits, plain

from expunge import models, record
from expunge.data.example import Row
from expunge.data.sources import load_rows
from expunge.errors import InputError
from expunge.models.lora import read_adapter
from expunge.release import Measurement, modules


def test_a_step_is_the_formula(workplace, monkeypatch):
    """W₁ = W₀ - η_f s B_f A_f + η_r s B_r A_r, from the factors as they came out of training."""
    trained = []
    whole = modules.train
    monkeypatch.setattr(modules, "train", lambda *a, **k: trained.append(whole(*a, **k)) or trained[-1])
    result = go(steps=1, forget_coefficient=0.7, retain_coefficient=0.2, lora={"r": 2, "alpha": 6})
    retain, forget = (m.adapter.state for m in trained)
    name = "model.layers.0.mlp.up_proj"
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
    shutil.copytree("unlearned/steps", "whole/steps")  # of the same settings: they are gone on from
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
    net = go(lora={"r": 2}).model
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
    result = go(orthogonality=0.25, lora={"r": 2})
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
    # one module: rank 2 on the 7 projections of a layer, q k v o 16+16, gate and up 16+32, down 32+16
    assert log["model"]["trainable"] == 2 * (4 * 32 + 3 * 48)
    assert log["before"]["forget"]["nll"] == figures(log)[0] and log["data"]["retain"]["rows"] == 5
    assert result.record == json.loads(json.dumps(result.record))
    text = (folder / "report.html").read_text() + (folder / "run.json").read_text()
    text += "".join(f.read_text() for f in (folder / "steps").glob("*.json"))
    assert "Oru" not in text and "Where does Ada" not in text
    assert (folder / "report.html").read_text().count("Step by step") == 1


def test_examples_are_shown_where_asked_for(workplace):
    log = go(steps=1, examples=1, max_new_tokens=3).record
    assert [e["set"] for e in log["examples"]] == ["forget", "retain"]
    assert log["examples"][0]["question"] == "Where does Cy live?" and log["examples"][0]["after"] is not None


def test_a_lower_rank_says_what_it_lost_and_is_what_is_measured(workplace):
    every = {"forget_coefficient": 1.0, "lora": {"r": 2}}
    exact = go(**every, out="exact")
    shutil.copytree("exact/steps", "unlearned/steps")
    cut = go(**every, rank=2)
    lost = cut.record["release"]["svd_error"]
    assert lost["rank"] == 2 and 0.01 < lost["overall"] < 1 and len(lost["modules"]) == 7
    name = "model.layers.0.mlp.down_proj"
    change = [m.get_submodule(name).weight.detach() - plain().get_submodule(name).weight.detach()
              for m in (exact.model, cut.model)]  # fmt: skip
    sizes = torch.linalg.svdvals(change[0])
    assert lost["modules"][name] == pytest.approx(float(sizes[2:].norm() / sizes.norm()), rel=1e-3)
    assert torch.linalg.matrix_rank(change[1], atol=1e-5) == 2
    on_base = PeftModel.from_pretrained(plain(), "unlearned/model")
    torch.testing.assert_close(logits(on_base), logits(cut.model), atol=1e-5, rtol=0)
    assert cut.record["after"] != exact.record["after"] and figures(cut.record) == figures(exact.record)
    shutil.copytree("exact/steps", "enough/steps")
    assert go(**every, rank=8, out="enough").record["release"]["svd_error"] is None


def test_a_target_that_is_an_adapter_itself(workplace):
    first = models.attach_lora(models.load("model").model, r=3, alpha=6, seed=9)
    with torch.no_grad():
        for n, p in first.named_parameters():
            if "lora_B" in n:
                p.normal_(0, 0.05)
    base = models.load("model")
    models.save(first, base.tokenizer, "first", base=base)
    result = go("first", steps=1, forget_coefficient=1.0, lora={"r": 2})
    adapter = read_adapter(workplace / "unlearned" / "model")
    assert adapter.config["r"] == 3 + 2 + 2 and adapter.config["base_model_name_or_path"].endswith("model")
    on_base = PeftModel.from_pretrained(plain(), "unlearned/model")
    torch.testing.assert_close(logits(on_base), logits(result.model), atol=1e-5, rtol=0)
    config = workplace / "first" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"velora_config": {"x": 1}}))
    with pytest.MonkeyPatch.context() as m:  # one that cannot be joined: whole weights
        m.setattr(sys.modules["expunge.models.load"], "_load_adapter", lambda *_: (plain(), str(workplace / "model")))
        whole = go("first", steps=1, out="whole", lora={"r": 2})
    assert torch.equal(logits(plain("whole/model")), logits(whole.model))


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


def test_bad_input_that_only_the_model_shows(workplace, monkeypatch):
    monkeypatch.setattr(modules, "train", lambda *_, **__: pytest.fail("a module was trained"))
    with pytest.raises(InputError, match="cannot be attached"):
        go(lora={"target_modules": ["nothing"]})
    with pytest.raises(InputError, match="no factor of a linear layer"):
        go(lora={"target_modules": ["embed_tokens"]})
    with pytest.raises(InputError, match="has no figure u y"):
        go(look=Measurement(lambda _: {"f": {"x": 1.0}}, ("f", "x"), ("u", "y")), utility_budget=0.1, out="looked")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="one process"):
        go()
