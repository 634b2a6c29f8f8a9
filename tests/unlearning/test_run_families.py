"""The contract of every family: it trains, is saved, and says in plain transformers or PEFT what the record says."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
import tiny_families
import torch
from conftest import QUESTIONS
from peft import PeftModel
from transformers import AutoModelForCausalLM

from expunge.data import chat, sources
from expunge.evaluation.collect.one_pass import collect
from expunge.evaluation.figures import figures, probes
from expunge.models import load
from expunge.unlearning.run import unlearn

FORGET, RETAIN = QUESTIONS[:2], QUESTIONS[3:5]
SLOW = [name for name in tiny_families.FAMILIES if name not in tiny_families.CONTRACT]
NAMES = [*tiny_families.CONTRACT, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@pytest.fixture
def folder(tmp_path, tokenizer, monkeypatch):
    """A function that saves the model of a family, as a plain user would have it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def saved(family):
        tiny_families.make(family).save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        return str(tmp_path / "model")

    return saved


def trained(model, **settings):
    rate = {"learning_rate": 1e-2 if settings.get("adapter") else 1e-3}
    few = {"max_steps": 2, "disable_tqdm": True, "device": "cpu", "out": "out", "method": "grad_diff"}
    few["fluency_rows"] = 0
    return unlearn(model, forget=FORGET, retain=RETAIN, **(few | rate | settings))


@torch.no_grad()
def nll(model, tokenizer):
    """The mean negative log-likelihood of the forget answers' tokens, row by row, by nothing of ours but the tokens."""
    losses = []
    for row in sources.load_rows(FORGET):
        example = chat.encode(row, tokenizer, max_length=512, chat_template=True)
        ids, labels = torch.tensor([example.input_ids]), torch.tensor(example.labels[1:])
        logits = model.eval()(input_ids=ids, use_cache=False).logits[0, :-1].float()
        losses.append(torch.nn.functional.cross_entropy(logits, labels, reduction="none")[labels != -100])
    return float(torch.cat(losses).mean())


@pytest.mark.parametrize("name", NAMES)
def test_whole_weights(name, folder, tokenizer):
    log = trained(folder(name)).record
    assert abs(log["after"]["forget"]["nll"] - log["before"]["forget"]["nll"]) > 1e-4
    plain, report = AutoModelForCausalLM.from_pretrained("out/model", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert nll(plain, tokenizer) == pytest.approx(log["after"]["forget"]["nll"], abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_lora(name, folder, tokenizer):
    model = folder(name)
    log = trained(model, adapter="lora").record
    assert abs(log["after"]["forget"]["nll"] - log["before"]["forget"]["nll"]) > 1e-3
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), "out/model")
    assert nll(plain, tokenizer) == pytest.approx(log["after"]["forget"]["nll"], abs=1e-4)
    again = load("out/model")  # as the next run or a benchmark loads it
    found = collect(again.model, again.tokenizer, probes("forget", sources.load_rows(FORGET)))
    assert figures(found, "forget")["nll"] == pytest.approx(log["after"]["forget"]["nll"], abs=1e-4)


@pytest.mark.parametrize(
    ("name", "adapter"), [*product(["gpt2", "qwen3_moe"], [None, "lora"]), ("gpt_neox", None), ("falcon_h1", None)]
)
def test_rmu_finds_its_layer_its_weights_and_its_coefficient(name, adapter, folder):
    log = trained(folder(name), method="rmu", adapter=adapter, learning_rate=1e-2).record
    chosen = log["method"]["chosen"]
    assert chosen["layer"] == 0 and chosen["steering_coefficient"] > 0
    before = tiny_families.make(name).state_dict()
    after = load("out/model").model.state_dict()
    moved = [n for n in before if not torch.equal(before[n], after[n])]
    ends = {
        "gpt2": "mlp.c_proj.weight",
        "gpt_neox": "mlp.dense_4h_to_h.weight",
        "qwen3_moe": "mlp.experts.down_proj",
        "falcon_h1": "feed_forward.down_proj.weight",
    }
    assert [n.split(".0.", 1)[1] for n in moved] == [ends[name]]


# -- adapters as the model ------------------------------------------------------------------------------------------------
def test_whole_weights_train_on_a_models_adapter(folder, tokenizer):
    """The default command on a PEFT adapter: the merged base is not frozen."""
    trained(folder("llama"), adapter="lora")
    log = trained("out/model", out="second").record
    assert log["model"]["trainable"] == log["model"]["parameters"]
    plain = AutoModelForCausalLM.from_pretrained("second/model")
    assert nll(plain, tokenizer) == pytest.approx(log["after"]["forget"]["nll"], abs=1e-4)


@pytest.mark.parametrize("targets", [r".*(q_proj|embed_tokens)", r".*(q_proj|lm_head)"])
def test_lora_on_a_shared_weight_says_the_same_when_merged(targets, folder, tokenizer):
    """qwen3 ties its embeddings: LoRA on one end changes that end only, before and after merging."""
    log = trained(folder("qwen3"), adapter="lora", merge=True, lora={"target_modules": targets}, max_steps=3).record
    assert abs(log["after"]["forget"]["nll"] - log["before"]["forget"]["nll"]) > 1e-2
    plain = AutoModelForCausalLM.from_pretrained("out/model")
    assert nll(plain, tokenizer) == pytest.approx(log["after"]["forget"]["nll"], abs=1e-4)
    assert not json.loads(Path("out/model/config.json").read_text())["tie_word_embeddings"]
