"""A run end to end on a tiny model: what is written, what it says, what is refused and when."""

from __future__ import annotations

import contextlib
import json
import math

import pytest
import torch

from expunge import losses, methods, record, unlearn
from expunge.combine import Bilevel, PrimalDual, WeightedSum
from expunge.errors import InputError
from expunge.method import Method, Objective
from expunge.unlearning import run as unlearning_run

TRAINING = {"max_steps": 4, "learning_rate": 0.02, "disable_tqdm": True, "use_cpu": True}
FAST = TRAINING | {"fluency_rows": 0}


def go(**kw):
    return unlearn("model", **({"forget": "forget.jsonl", "retain": "retain.jsonl", "method": "pdu"} | FAST | kw))


def text_of(folder):
    return (folder / "run.json").read_text() + (folder / "report.html").read_text()


def test_a_run_writes_a_record_a_model_and_a_report(workplace):
    result = go(method=methods.blur_npo(beta=0.2), fluency_rows=4)
    log = record.read(workplace / "unlearned")
    assert sorted(f.name for f in (workplace / "unlearned").iterdir()) == [
        "README.md",
        "model",
        "report.html",
        "run.json",
    ]
    assert log["method"]["name"] == "blur_npo" and log["method"]["parameters"]["beta"] == 0.2
    assert log["method"]["objectives"] == {"forget": "npo", "retain": "nll"}
    assert [s["step"] for s in log["steps"]] == [1, 2, 3, 4]
    for s in log["steps"]:
        assert {"loss/forget", "loss/retain", "weight/forget", "cosine", "norm/forget", "seconds", "grad_norm"} <= set(
            s
        )
        # BLUR's weight of the forget gradient is γ - <f, r>/‖f‖², from what the same row says of the gradients
        xi = 1.0 - s["cosine"] * s["norm/retain"] / s["norm/forget"]
        assert s["weight/forget"] == pytest.approx(xi, rel=1e-3) and s["weight/retain"] == 1.0
    assert log["data"]["forget"]["rows"] == 3 and log["data"]["retain"]["rows"] == 5
    assert log["before"]["forget"]["n"] == 3 and log["after"]["retain"]["n"] == 5
    assert log["training"]["learning_rate"] == 0.02 and log["seed"] == 0 and log["peak_memory_bytes"] > 0
    assert result.record == json.loads(json.dumps(result.record)) and result.folder.resolve() == workplace / "unlearned"
    assert log["after"]["forget"]["probability"] < log["before"]["forget"]["probability"]


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_a_run_under_sophia_says_so(workplace, adapter):
    log = go(method="npo", adapter=adapter, optimizer="sophia", optimizer_parameters={"rho": 0.1, "every": 2}).record
    said = log["training"]["optimizer"]
    assert (said["name"], said["rho"], said["every"], said["curvature"]) == ("sophia", 0.1, 2, "gauss_newton")
    assert "optim" not in log["training"] and log["training"]["weight_decay"] == 0.1
    assert ["clipped" in s for s in log["steps"]] == [True, False, True, False]
    assert log["after"]["forget"]["probability"] < log["before"]["forget"]["probability"]
    assert "gauss_newton" in (workplace / "unlearned" / "report.html").read_text()


def test_soul_brings_its_optimizer_and_adamw_takes_it_away(workplace):
    log = go(method=methods.soul_grad_diff(), learning_rate=0.001).record
    assert log["training"]["optimizer"]["name"] == "sophia"
    log = go(method="soul_grad_diff", optimizer="adamw", optim="adamw_torch_fused", out="adam").record
    assert "optimizer" not in log["training"]


def test_what_is_saved_loads_in_plain_transformers(workplace):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = go()
    m = AutoModelForCausalLM.from_pretrained("unlearned/model")
    AutoTokenizer.from_pretrained("unlearned/model")
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(m(ids).logits, result.model.eval()(ids).logits)
    assert not list((workplace / "unlearned").rglob("*.bin"))


@pytest.mark.parametrize("merge", [False, True])
def test_lora_is_saved_as_an_adapter_or_merged(workplace, merge):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    result = go(adapter="lora", lora={"r": 2, "alpha": 4}, merge=merge)
    base = AutoModelForCausalLM.from_pretrained("unlearned/model" if merge else "model")
    m = base if merge else PeftModel.from_pretrained(base, "unlearned/model")
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(m(ids).logits, result.model.eval()(ids).logits, atol=1e-5, rtol=1e-4)
    moved = (result.model(ids).logits - AutoModelForCausalLM.from_pretrained("model")(ids).logits).abs().max()
    assert moved > 1e-3
    assert result.record["model"]["trainable"] < result.record["model"]["parameters"]


def test_the_multiplier_and_its_budget_stand_in_the_record(workplace):
    log = go(method=methods.pdu(multiplier=2.0, warmup=0.0, step_size=1.0, tolerance=0.0)).record
    start = log["before"]["retain"]["nll"]
    path = [s["multiplier"] for s in log["steps"]]
    assert path[0] == 2.0
    for before, s, after in zip(path, log["steps"], path[1:], strict=False):
        assert after == pytest.approx(before + s["loss/retain"] - start, abs=1e-3)


def test_an_infeasible_budget_is_warned_of(workplace):
    log = go(method=methods.pdu(budget=0.01)).record
    assert any("infeasible from the start" in w for w in log["warnings"])


def test_a_multiplier_that_sits_at_zero_is_warned_of(workplace):
    log = go(method=methods.pdu(budget=50.0, multiplier=0.0, warmup=0.0), max_steps=12).record
    assert any("λ has been 0" in w for w in log["warnings"])


def test_forget_data_stays_out_unless_asked_for(workplace):
    folder = go().folder
    assert "Oru" not in text_of(folder) and "Where does Ada" not in text_of(folder)
    shown = go(out="shown", examples=2, max_new_tokens=4)
    assert "Where does Ada" in text_of(shown.folder)
    assert {e["set"] for e in shown.record["examples"]} == {"forget", "retain"} and len(shown.record["examples"]) == 4


def test_an_earlier_run_is_not_written_over(workplace):
    go()
    with pytest.raises(InputError, match="overwrite"):
        go()
    go(overwrite=True)


def test_a_run_that_dies_leaves_no_record(workplace, monkeypatch):
    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("expunge.models.save", die)
    with pytest.raises(KeyboardInterrupt):
        go()
    assert not [f for f in (workplace / "unlearned").rglob("*") if f.is_file()]
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"forget": "forgot.jsonl"}, r"did you mean .*forget\.jsonl"),
        ({"retain": None, "self_retain": 0}, "give rows of what must stay with --retain"),
        ({"retain": "forget.jsonl"}, "also stand in the retain set"),
        ({"method": "blurnpo"}, "did you mean 'blur_npo'"),
        ({"method": "dpo"}, "needs the column 'alternate'"),
        ({"learning_rat": 1.0}, "did you mean"),
        ({"learning_rate": "fast"}, "learning_rate='fast' is not of type"),
        ({"max_length": 12}, "would remove the whole answer"),
        ({"adapter": "dora"}, "adapter = 'dora' does not fit"),
        ({"output_dir": "x"}, "there is no setting 'output_dir': it is --out"),
        ({"optimizer": "sofia"}, "did you mean 'sophia'"),
        ({"optimizer_parameters": {"rho": 1}}, "say --optimizer sophia"),
        ({"method": "soul_npo", "optim": "sgd"}, "the training argument optim is for"),
        (
            {"method": "blur_npo", "optimizer": "sophia", "optimizer_parameters": {"curvature": "hutchinson"}},
            "one loss",
        ),
    ],
)
def test_bad_input_is_told_before_a_model_is_loaded(workplace, monkeypatch, change, said):
    def never(*_, **__):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("expunge.models.load", never)
    with pytest.raises(InputError, match=said):
        go(**change)
    assert not (workplace / "unlearned" / "run.json").exists()


@pytest.mark.parametrize("adapter", [None, "lora"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": methods.rmu(layer=40)}, "layer 40 does not exist: the model has 2 layers, 0 to 1"),
        ({"method": "npo", "trainable": "gate_x"}, "trainable='gate_x' matches no weight"),
    ],
)
def test_what_the_model_does_not_have_is_told_before_it_is_measured(two_layers, monkeypatch, adapter, change, said):
    def never(*args, **kw):
        raise AssertionError("measured")

    monkeypatch.setattr(unlearning_run, "measure", never)
    with pytest.raises(InputError, match=said):
        go(adapter=adapter, **change)


def test_a_third_model_is_measured_for_comparison(workplace):
    log = go(compare_with="model", compare_name="retrained model").record
    assert log["reference"] == log["before"] and log["reference_name"] == "retrained model"


def test_alternates_and_refusals(workplace):
    lines = (workplace / "forget.jsonl").read_text().splitlines()
    rows = [json.loads(line) | {"alternate": "Somewhere."} for line in lines]
    assert go(method="dpo", forget=rows).record["data"]["alternate"]["rows"] == 3
    assert go(method="idk_dpo", out="idk").record["data"]["alternate"]["rows"] == 3


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_a_task_vector_is_learnt_then_subtracted(two_layers, adapter):
    log = go(method="task_vector", retain=None, adapter=adapter, max_steps=6).record
    learnt = [s["loss/forget"] for s in log["steps"]]
    assert learnt[-1] < learnt[0]  # what the training itself does
    assert log["after"]["forget"]["nll"] > log["before"]["forget"]["nll"]  # what is saved
    further = go(method=methods.task_vector(scale=2.0), retain=None, adapter=adapter, max_steps=6, out="further").record
    assert further["after"]["forget"]["nll"] > log["after"]["forget"]["nll"]


def test_resume_goes_on_from_a_checkpoint(workplace):
    kw = {"method": methods.pdu(multiplier=2.0, warmup=0.0), "save_strategy": "steps", "save_steps": 2}
    whole = go(**kw, out="whole")
    go(**kw, out="cut", lr_scheduler_type="constant_with_warmup", warmup_steps=1)
    (workplace / "cut" / "run.json").unlink()
    import shutil

    shutil.rmtree(workplace / "cut" / "checkpoints" / "checkpoint-4")
    again = go(**kw, out="cut", lr_scheduler_type="constant_with_warmup", warmup_steps=1, resume_from_checkpoint=True)
    assert [s["step"] for s in again.record["steps"]] == [1, 2, 3, 4]
    assert not math.isnan(whole.record["after"]["forget"]["nll"])


def test_answers_shown_of_a_plain_text_continue_its_first_half(workplace):
    log = go(
        forget=[{"text": "one two three four"}], retain=[{"text": "five six seven eight"}], examples=1, max_new_tokens=3
    ).record
    first = log["examples"][0]
    assert (first["question"], first["expected"]) == ("one two", "three four")


def test_display_names_stand_in_place_of_paths(workplace):
    from expunge.unlearning import run as unlearning_run
    from expunge.unlearning import settings as recipe

    given = {"model": workplace / "model", "forget": workplace / "forget.jsonl", "retain": workplace / "retain.jsonl"}
    paths = {k: str(v) for k, v in given.items()}
    names = {"model_name": "Tiny", "data_name": "people", "out": str(workplace / "out")}
    made = unlearning_run.run(
        recipe.make(paths | names | {"method": "pdu", "training": TRAINING, "fluency_rows": 0}),
        command=f"expunge run --model {paths['model']} --out {names['out']}",
    )
    assert made.record["command"] == "expunge run --model Tiny --out out" and made.record["model"]["source"] == "Tiny"
    assert made.record["data"]["forget"]["source"] == "people/forget.jsonl"
    assert str(workplace) not in text_of(made.folder)


RMU = {"layer": 0, "steering_coefficient": 5.0}


def test_only_the_weights_that_the_method_names_move(workplace):
    from safetensors.torch import load_file

    result = go(method="rmu", parameters=RMU)
    assert result.record["model"]["trains"] == r"\.layers\.(0)\.(mlp\.down_proj\.weight)$"
    before, after = (load_file(workplace / d / "model.safetensors") for d in ("model", "unlearned/model"))
    assert [n for n in before if not torch.equal(before[n], after[n])] == ["model.layers.0.mlp.down_proj.weight"]


def test_lora_goes_where_the_method_or_the_user_says(workplace, two_layers):
    small = {"r": 2, "alpha": 4}
    for given, modules in (
        ({}, ["model.layers.0.mlp.down_proj"]),
        ({"trainable": r"q_proj\.weight"}, ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]),
        ({"lora": small | {"target_modules": ["up_proj"]}}, ["up_proj"]),
    ):
        go(method="rmu", parameters=RMU, adapter="lora", overwrite=True, **({"lora": small} | given))
        config = json.loads((workplace / "unlearned/model/adapter_config.json").read_text())
        assert sorted(config["target_modules"]) == modules


def test_a_holdout_set_stands_in_the_record_and_ends_the_run(workplace):
    """Of two sets one is better known to the tiny model: that one can be forgotten down to the other, not the reverse."""
    rows = [json.dumps({"question": f"What is {n}?", "answer": f"It is the number {n} of all."}) for n in range(6)]
    (workplace / "kept.jsonl").write_text("\n".join(rows))
    ended = []
    for forget, holdout in (("forget", "retain"), ("retain", "forget")):
        sets = {"forget": f"{forget}.jsonl", "holdout": f"{holdout}.jsonl", "retain": "kept.jsonl"}
        with contextlib.suppress(InputError):  # there is nothing to forget
            log = go(method="blur_margin", overwrite=True, **sets, learning_rate=1e-3, max_steps=30).record
        if not (workplace / "unlearned/run.json").exists():
            continue
        ended.append(log["training"]["stopped_after"])
        assert log["data"]["holdout"]["source"] == f"{holdout}.jsonl" and log["training"]["max_steps"] == 30
        last, stop = log["steps"][-1], log["stopped"]
        assert (stop["reason"], stop["step"]) == ("holdout", ended[-1])
        assert stop["figures"]["forget_loss"] == log["training"]["forget_loss"]
        assert "Stopped at the level of the holdout set" in (workplace / "unlearned/report.html").read_text()
        (workplace / "unlearned/run.json").unlink()
        assert last["step"] == ended[-1] < 30 and last["loss/forget"] <= log["training"]["holdout_level"]
    assert len(ended) == 1


def test_a_holdout_set_that_holds_forget_rows_is_told(workplace):
    with pytest.raises(
        InputError, match=r"3 forget row.* also stand in the holdout set .* text that the model never saw"
    ):
        go(method="blur_margin", holdout="forget.jsonl")


def test_a_holdout_set_is_refused_before_the_model_is_loaded(workplace):
    with pytest.raises(InputError, match="npo cannot stop at a holdout set"):
        unlearn("no-such-model", forget="forget.jsonl", retain="retain.jsonl", holdout="retain.jsonl", method="npo")


@pytest.mark.parametrize(
    "combine", [WeightedSum(1.0, 1.0), PrimalDual(multiplier=2.0), Bilevel(), PrimalDual(budget=0.01)]
)
def test_objectives_of_any_name_train_and_keep_their_record(workplace, combine):
    """What forgets is the first and what keeps the second, so the names change nothing else."""

    def steps(forget, retain, out):
        objectives = {
            forget: Objective(losses.gradient_ascent, ("forget",)),
            retain: Objective(losses.nll, ("retain",)),
        }
        log = go(method=Method(objectives, combine), out=out).record
        assert log["method"]["objectives"] == {forget: "gradient_ascent", retain: "nll"}
        return log

    plain, renamed = steps("forget", "retain", "plain"), steps("erase", "keep", "renamed")
    words = {"forget": "erase", "retain": "keep"}
    for a, b in zip(plain["steps"], renamed["steps"], strict=True):
        expected = {"/".join(words.get(w, w) for w in k.split("/")): v for k, v in a.items()}
        assert expected | {"seconds": b["seconds"]} == b
    assert len(renamed["steps"]) == 4 and renamed["warnings"] == plain["warnings"]
    assert renamed["after"] == plain["after"]


def test_a_run_with_objectives_of_any_name_stops_at_a_holdout_set(workplace):
    objectives = {"erase": Objective(losses.gradient_ascent, ("forget",))}
    holdout = [{"question": "Who was it?", "answer": "Zyx Q. W."}]
    with pytest.raises(InputError, match="there is nothing to forget"):
        go(method=Method(objectives, WeightedSum()), holdout=holdout, retain=None)


def test_a_combiner_that_has_too_few_weights_is_refused(workplace):
    objectives = {n: Objective(losses.nll, ("forget",)) for n in ("a", "b", "c")}
    with pytest.raises(InputError, match="WeightedSum gives 2 weights, and custom has 3 objectives: a, b, c"):
        go(method=Method(objectives, WeightedSum()))
