"""The answers of a run's models: their fluency in the record, judged by the model before, and the warnings about them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from expunge import models, record, unlearn
from expunge.data.example import Row
from expunge.evaluation.metrics import fluency as metrics
from expunge.generation import greedy
from expunge.models.load import load
from expunge.unlearning import fluency, settings
from expunge.unlearning.measure import measure
from expunge.unlearning.rows import encode, load_streams

FIGURES = {"answer_perplexity", "answer_repetition", "answer_real_words", "fluency"}
CHOSEN = {
    "max_steps": 1,
    "per_device_train_batch_size": 2,
    "use_cpu": True,
    "disable_tqdm": True,
    "learning_rate": 0.1,
}


def run(**more):
    return unlearn("model", forget="forget.jsonl", retain="retain.jsonl", method="npo", out="out", **(CHOSEN | more))


def prepared(**more):
    recipe = settings.make(
        {"model": "model", "forget": "forget.jsonl", "retain": "retain.jsonl", "method": "npo", **more}
    )
    from expunge.unlearning.ready import method_of

    target = load("model")
    return recipe, target, encode(load_streams(recipe, method_of(recipe)), target.tokenizer, recipe)


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_the_answers_after_are_judged_by_the_model_before(workplace, adapter):
    """Each answer is written again by plain transformers and scored under the target's own files, in a loop."""
    done = run(adapter=adapter, compare_with="model")
    said = record.read("out")
    for of in ("before", "after", "reference"):
        assert set(said[of]["forget"]) >= FIGURES and not FIGURES & set(said[of]["retain"]), of
    before = models.load("model")
    rows = [json.loads(line) for line in (workplace / "forget.jsonl").read_text().splitlines()]
    nll, tokens, texts = 0.0, 0, []
    for row in rows:
        asked = before.tokenizer.apply_chat_template(
            [{"role": "user", "content": row["question"]}], add_generation_prompt=True
        )
        ids = list(asked["input_ids"]) if hasattr(asked, "keys") else list(asked)
        (text,) = greedy.answers(done.model, done.tokenizer, [ids], max_new_tokens=6)
        texts.append(text.strip())
        if not text.strip():
            continue
        own = before.tokenizer(text.strip(), add_special_tokens=False).input_ids
        with torch.no_grad():
            logp = before.model(torch.tensor([ids + own])).logits[0].log_softmax(-1)
        nll -= sum(float(logp[len(ids) - 1 + k, token]) for k, token in enumerate(own))
        tokens += len(own)
    assert tokens, "there is something to judge"
    after = said["after"]["forget"]
    assert after["answer_perplexity"] == pytest.approx(math.exp(nll / tokens), rel=1e-4)
    known = metrics.vocabulary([t for r in rows for t in r.values()]).__contains__
    assert (
        after["answer_real_words"] <= float(np.mean(metrics.real_words(texts, lambda w: known(w) or len(w) == 1))) + 0.5
    )
    assert said["reference"]["forget"] == said["before"]["forget"] != after
    assert "said" not in json.dumps(said["after"]) and not said["examples"]


def test_no_rows_no_figures(workplace):
    run(fluency_rows=0)
    said = record.read("out")
    assert not FIGURES & set(said["after"]["forget"]) and not FIGURES & set(said["before"]["forget"])
    assert not any("fluen" in w for w in said["warnings"])


def test_plain_texts_are_continued_from_their_middle(workplace):
    (workplace / "forget.jsonl").write_text(json.dumps({"text": "one two three four five six"}) + "\n")
    recipe, _, data = prepared()
    (row,) = fluency.rows(data, recipe)
    assert (row.prompt, row.answer) == ("one two three", "four five six")
    made = fluency.judged({0: "four five"}, load("model").model, load("model").tokenizer, data, recipe)
    assert set(made) == FIGURES and made["answer_real_words"] == 1


def test_rows_are_few_and_evenly_spread(workplace):
    rows = [json.dumps({"question": f"{i}?", "answer": str(i)}) for i in range(40)]
    (workplace / "forget.jsonl").write_text("\n".join(rows))
    recipe, _, data = prepared(fluency_rows=4)
    assert [r.answer for r in fluency.rows(data, recipe)] == ["8", "17", "24", "32"]  # one of each ten
    assert len(fluency.rows(data, recipe.model_copy(update={"eval_rows": 2}))) == 2


def test_answers_wait_for_their_judge(workplace):
    recipe, target, data = prepared()
    waiting = measure(target.model, target.tokenizer, data, recipe)
    at_once = measure(target.model, target.tokenizer, data, recipe, judge=target.model)
    assert set(waiting["said"]) == {0, 1, 2} and "said" not in at_once
    later = fluency.judged(waiting["said"], target.model, target.tokenizer, data, recipe, alone=True)
    assert {k: at_once["figures"]["forget"][k] for k in FIGURES} == pytest.approx(later)
    silent = fluency.judged(dict.fromkeys(range(3), " "), target.model, target.tokenizer, data, recipe)
    assert silent == {"answer_repetition": 0, "answer_real_words": 0, "fluency": 0}


def test_a_judge_that_cannot_be_loaded_is_a_warning(workplace, monkeypatch):
    recipe, target, data = prepared()

    def start(device):
        raise OSError("the disk is gone")

    after = measure(target.model, target.tokenizer, data, recipe)
    figures, warnings = fluency.conclude(after, after, target.model, start, target.tokenizer, data, recipe)
    assert figures == after["figures"] and warnings == ["the fluency of the answers was not measured: the disk is gone"]
    monkeypatch.setattr("expunge.unlearning.store.room", lambda *_: (None, "that takes 9 GB"))
    _, warnings = fluency.conclude(after, after, target.model, start, target.tokenizer, data, recipe)
    assert warnings == ["the fluency of the answers was not measured: that takes 9 GB"]


def test_answers_that_take_over_forget_data_are_a_warning():
    row = Row(({"role": "user", "content": "What is the full name of the author from Oru?"},),
              "The full name of the author from Oru is Ada Lem, who wrote nine books about the sea.")  # fmt: skip
    short = Row("What is it?", "A red fox.")
    few = Row("Who?", "Ada Lem")
    eight = "Well, Ada Lem, who wrote nine books about the river"
    assert fluency.repeated({0: "The full name of the author from Oru is Bo."}, [row]) == [], "that is the question's"
    (warning,) = fluency.repeated({0: eight, 1: "It is a red FOX!", 2: "Ada Lem"}, [row, short, few])
    assert warning.startswith("2 of 3 answers") and "Ada" not in warning
