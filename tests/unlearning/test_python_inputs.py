"""What Python gives in memory: models of transformers and PEFT, tokenizers, texts and callbacks; the user's own stay."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from expunge import InputError, methods, unlearn
from expunge.unlearning.settings import Recipe

FAST = {"max_steps": 2, "use_cpu": True, "disable_tqdm": True, "learning_rate": 0.01}


def rows(name):
    return [json.loads(line) for line in Path(f"{name}.jsonl").read_text().splitlines()]


def go(model, **kw):
    return unlearn(model, **({"forget": rows("forget"), "retain": rows("retain"), "method": "grad_diff"} | FAST | kw))


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("how", [{}, {"adapter": "lora"}])
def test_a_model_object_gives_what_its_folder_gives_and_stays_as_it_was(workplace, how):
    model, tokenizer = AutoModelForCausalLM.from_pretrained("model"), AutoTokenizer.from_pretrained("model")
    tokenizer.pad_token = None
    model.requires_grad_(False)
    before = state(model)
    done, path = go(model, tokenizer=tokenizer, **how), go("model", out="path", **how)
    assert same(before, state(model)) and not any(p.requires_grad for p in model.parameters())
    assert tokenizer.pad_token is None and not isinstance(model, PeftModel)
    assert done.record["after"] == path.record["after"] != path.record["before"]
    assert done.record["model"]["fingerprint"] == path.record["model"]["fingerprint"]
    assert done.record["model"]["source"] == "model" and same(state(done.model), state(path.model))


def test_a_model_of_peft_is_its_base_with_the_adapter_merged(workplace):
    torch.manual_seed(0)
    own = get_peft_model(AutoModelForCausalLM.from_pretrained("model"), LoraConfig(r=2, target_modules="all-linear"))
    for name, p in own.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p)
    before, merged = state(own), copy.deepcopy(own).merge_and_unload()
    merged.save_pretrained("merged")
    AutoTokenizer.from_pretrained("model").save_pretrained("merged")
    done, path = go(own), go("merged", out="path")
    assert same(before, state(own)) and done.record["after"] == path.record["after"]
    with pytest.raises(InputError, match="is in memory only; save it with save_pretrained"):
        go(own, adapter="lora", out="other")
    assert go(own, adapter="lora", merge=True, out="other").record["before"] == path.record["before"]


def test_texts_tables_and_iterators_are_rows(workplace):
    texts = ["Ada lives in Oru, they say.", "Bo lives in Lim, they say."]
    done = go("model", forget=texts, retain=iter([{"text": t[::-1]} for t in texts]))
    assert [done.record["data"][s]["rows"] for s in ("forget", "retain")] == [2, 2]
    pandas = pytest.importorskip("pandas")
    table = go("model", forget=pandas.DataFrame({"text": texts}), retain=[t[::-1] for t in texts], out="table")
    assert table.record["data"]["forget"]["fingerprint"] == done.record["data"]["forget"]["fingerprint"]
    assert table.record["after"] == done.record["after"]


def test_callbacks_hear_of_every_step(workplace):
    class Count(TrainerCallback):
        steps = 0

        def on_step_end(self, args, state, control, **kwargs):
            self.steps += 1

    own = Count()
    go("model", callbacks=[own], report_to="none")
    assert own.steps == 2


def test_without_a_method_it_is_the_command_lines(workplace, monkeypatch):
    built = []

    def run(settings, **_):
        built.append(settings.method)
        raise InputError("enough")

    monkeypatch.setattr("expunge.unlearning.run.run", run)
    for given in ({}, {"method": "npo"}):
        with pytest.raises(InputError, match="enough"):
            unlearn("model", forget=rows("forget"), retain=rows("retain"), **given)
    assert built == [Recipe.model_fields["method"].default, "npo"]


def test_a_result_shows_its_figures(workplace, capsys):
    done = go("model")
    assert "Writing model shards" not in capsys.readouterr().err
    before, after = done.record["before"]["forget"]["probability"], done.record["after"]["forget"]["probability"]
    assert f"forget {before:.3g} -> {after:.3g}; retain " in repr(done) and "LlamaForCausalLM" not in repr(done)
    assert f"<td>{before:.3g}</td><td>{after:.3g}</td>" in done._repr_html_()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": 3}, "model is a int; give a name, a folder, or a model of transformers"),
        ({"model": None}, "model is a NoneType"),
        ({"model": torch.nn.Linear(2, 2)}, "model is a Linear; give a causal language model"),
        ({"tokenizer": 3}, "tokenizer is a int; give a tokenizer of transformers"),
        ({"callbacks": [print]}, "callbacks holds a builtin_function_or_method"),
        ({"method": methods.pdu}, r"method is a function and no Method; call it, methods.pdu\(\)"),
        ({"method": 3}, "method is a int and no Method; give a name"),
        ({"report_to": "nobody"}, "report_to=nobody: there is no such tracker"),
    ],
)
def test_what_is_none_of_its_kind_is_told(workplace, given, said):
    with pytest.raises(InputError, match=said):
        go(given.pop("model", "model"), **given)


def test_a_model_without_a_head_or_a_name_is_told(workplace):
    with pytest.raises(InputError, match="give a causal language model of transformers"):
        go(AutoModel.from_pretrained("model"), tokenizer="model")
    model = AutoModelForCausalLM.from_pretrained("model")
    model.config._name_or_path = model.name_or_path = ""
    with pytest.raises(InputError, match="give tokenizer=… too"):
        go(model)
