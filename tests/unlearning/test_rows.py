"""Rows of a run: what is trained on, how much of it is used, and that the figures are of the same tokens."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from expunge.errors import InputError
from expunge.models.check import vocabulary
from expunge.models.locate import resolve
from expunge.models.positions import positions
from expunge.unlearning import settings as recipe
from expunge.unlearning.ready import method_of, planned, ready
from expunge.unlearning.rows import encode, load_streams, needs_retain
from expunge.unlearning.run import unlearn

TALK = [
    {"role": r, "content": c}
    for r, c in [("user", "Where?"), ("assistant", "SECRET: Oru"), ("user", "Thanks."), ("assistant", "Welcome.")]
]
LONG = " ".join(f"Chapter {i}: the keeper of lamp {i}." for i in range(60))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with ``model/`` (256 positions) and ``retain.jsonl``."""
    import tiny
    import tiny_tokenizer

    folder = tmp_path_factory.mktemp("rows")
    tokenizer = tiny_tokenizer.make()
    tiny.model(vocab_size=len(tokenizer)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = [{"question": f"What is {n}?", "answer": f"{n} is a lamp."} for n in "ABCDEFGH"]
    (folder / "retain.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def settings(place, forget, **more):
    values = {
        "model": str(place / "model"),
        "forget": forget,
        "retain": str(place / "retain.jsonl"),
        "method": "grad_diff",
    }
    return recipe.make(values | {"out": str(place / "none")} | more)


def labelled(data, tokenizer, name="forget"):
    return [tokenizer.decode([y for y in e.labels if y != -100]) for e in data.examples[name]]


def test_a_long_text_is_used_whole_and_the_record_says_so(place, tokenizer):
    data = ready(settings(place, [{"text": LONG}], max_length=128))[1]
    assert "".join(labelled(data, tokenizer)) == LONG
    n = len(tokenizer(LONG).input_ids)
    assert data.tokens["forget"] == (n, n) and len(data.given["forget"]) == 1 < len(data.rows["forget"])
    assert not any("cut" in w for w in data.warnings)
    plan = planned(settings(place, [{"text": LONG}], max_length=128))
    assert plan["data"]["forget"] == 1 and f"forget: all {n:,} tokens in" in plan["tokens"][0]


def test_a_long_answer_is_cut_and_counted(place):
    data = ready(settings(place, [{"question": "Tell.", "answer": LONG}], max_length=128))[1]
    total, used = data.tokens["forget"]
    assert used < 128 < total and "1 answer(s) of the forget set are cut at max_length=128 tokens" in data.warnings
    assert f"{used} of {total:,} tokens ({used / total:.1%}"[:-1] in planned(
        settings(place, [{"question": "Tell.", "answer": LONG}], max_length=128)
    )["tokens"][0].replace(" %", "%")


def test_no_more_than_the_models_own_positions(place):
    assert positions(str(place / "model")) == 256 and ready(settings(place, [{"text": LONG}]))[1].max_length == 256
    with pytest.raises(
        InputError, match=r"max_length = 512 is more than the 256 positions of .*model; set max_length=256"
    ):
        ready(settings(place, [{"text": LONG}], max_length=512))


def test_a_token_without_an_embedding_is_told_before_the_model_is_loaded(place, tmp_path, tokenizer):
    shutil.copytree(place / "model", tmp_path / "model")
    tokenizer.add_tokens(["<|extra_0|>", "<|extra_1|>"])
    tokenizer.save_pretrained(tmp_path / "model")
    rows = [{"question": "Which?", "answer": "None."}, {"question": "Which?", "answer": "The code is <|extra_1|>."}]
    n = len(tokenizer)
    assert vocabulary(resolve(str(tmp_path / "model"))) == n - 2
    with pytest.raises(
        InputError, match=rf"row 2: the token '<\|extra_1\|>' has the number {n - 1}, .* for {n - 2}: take"
    ):
        ready(settings(place, rows, model=str(tmp_path / "model")))


def test_refusals_stand_beside_every_piece_and_every_turn(place, tokenizer):
    chosen = settings(place, [{"text": LONG}, {"messages": TALK}], method="idk_dpo", max_length=128)
    data = encode(load_streams(chosen, method_of(chosen)), tokenizer, chosen)
    assert len(data.examples["alternate"]) == len(data.examples["forget"]) > 2
    said = labelled(data, tokenizer, "alternate")
    assert len(set(said[:-1])) == 1 and "SECRET" not in tokenizer.decode(data.examples["alternate"][-1].input_ids)
    assert said[-1].count("<|end|>") == 2


def test_which_turns_are_labelled(place, tokenizer):
    assert labelled(ready(settings(place, [{"messages": TALK}]))[1], tokenizer) == ["SECRET: Oru<|end|>Welcome.<|end|>"]
    last = ready(settings(place, [{"messages": TALK}], assistant_turns="last"))[1]
    assert labelled(last, tokenizer) == ["Welcome.<|end|>"]
    plain = ready(settings(place, [{"messages": TALK}], chat_template=False))[1]
    assert labelled(plain, tokenizer) == ["SECRET: OruWelcome.<|end|>"]


@pytest.mark.parametrize("forget", [[{"messages": TALK}], [{"text": LONG}]])
def test_the_figures_are_of_the_tokens_that_are_trained(place, tmp_path, forget):
    result = unlearn(
        str(place / "model"), forget=forget, retain=str(place / "retain.jsonl"), method="grad_diff", out=tmp_path / "out",
        max_steps=1, learning_rate=1e-12, max_length=128,
    )  # fmt: skip
    data = ready(settings(place, forget, max_length=128))[1]
    logp = []
    for example in data.examples["forget"]:
        ids, labels = torch.tensor([example.input_ids]), torch.tensor(example.labels)
        with torch.no_grad():
            every = result.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        logp += every[torch.arange(len(labels) - 1), labels[1:].clamp(min=0)][labels[1:] != -100].tolist()
    assert result.record["before"]["forget"]["nll"] == pytest.approx(-sum(logp) / len(logp), rel=1e-4)
    assert result.record["reading"]["assistant_turns"] == "all" and result.record["reading"]["template"]["date"] is None
    assert result.record["data"]["forget"]["tokens_used"] == result.record["data"]["forget"]["tokens"]


def test_columns_and_template_arguments_of_a_recipe(place, tokenizer):
    given = {"columns": "question=Frage,answer=Antwort"}
    data = ready(settings(place, [{"Frage": "Wo?", "Antwort": "Hier.", "Nr": 3}], **given))[1]
    assert labelled(data, tokenizer) == ["Hier.<|end|>"]
    assert "the data set: not used: the column 'Nr'" in data.warnings
    with pytest.raises(InputError, match="enable_thinking does nothing"):
        ready(settings(place, [{"messages": TALK}], template_arguments={"enable_thinking": False}))
    pairs = recipe.override({"template_arguments": ["a=false"]}, ["date_string=26 Jul 2024", "seed=3"])
    assert pairs["template_arguments"] == {"a": False, "date_string": "26 Jul 2024"} and pairs["seed"] == "3"
    with pytest.raises(InputError, match="did you mean 'learning_rate'"):
        recipe.override({"template_arguments": {"a": 1}}, ["learning_rat=1"])
    with pytest.raises(InputError, match="write NAME=VALUE"):
        recipe.make({"model": "m", "forget": "f", "columns": "question"})


def test_a_method_that_needs_a_retain_set_names_those_that_need_none(place):
    chosen = settings(place, [{"messages": TALK}], retain=None)
    said = needs_retain(method_of(chosen).name)
    assert "--retain" in said and "--self-retain" in said
    assert {"gradient_ascent", "task_vector", "ce_u", "flat"} <= set(said.rpartition(": ")[2].split(", "))
    assert "npo" not in said.rpartition(": ")[2].split(", ")


def test_as_published_takes_the_papers_method(place):
    def chosen(name):
        return method_of(settings(place, [{"messages": TALK}], method=name, as_published=True)).name

    assert [chosen(name) for name in ("pdu_level", "blur_level", "level")] == ["pdu", "blur_npo", "grad_diff"]
    with pytest.raises(InputError, match="as_published does nothing under npo"):
        chosen("npo")
