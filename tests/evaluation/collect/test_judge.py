"""Answers judged by the model before: by plain transformers, once, and made again without a model."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import tiny_bench
import torch

from expunge.benchmarks import named
from expunge.benchmarks.tofu import ALL
from expunge.data.example import Row
from expunge.evaluation import table
from expunge.evaluation.collect import cached, judge
from expunge.evaluation.collect.one_pass import coded_of
from expunge.evaluation.evaluate import evaluate, rescore
from expunge.evaluation.fluency import ANSWER_VARIANT
from expunge.models.load import load


@pytest.fixture
def place(workplace, tokenizer, monkeypatch):
    tiny_bench.prepare(workplace, tokenizer, monkeypatch)
    tiny.model(2, vocab_size=len(tokenizer)).save_pretrained("unlearned")
    tokenizer.save_pretrained("unlearned")
    return workplace


def test_every_answer_is_scored_under_the_target_and_the_figures_are_made_again(place, monkeypatch):
    models = {"target": "model", "retrained": "retrained"}
    asked = {}
    figures = evaluate(ALL[0], "unlearned", "out", data="tofu", asked=asked, **models)
    by_name = {(f.part, f.name): f for f in figures}
    assert by_name["all", "utility"].note == "" and by_name["forget", "fluency"].n == 4
    target = load("model")
    rows = {p.index: p.row for p in ALL[0].probes(named_data(place)) if p.part == "forget"}
    for role, folder in (
        ("model", "out/scores"),
        ("target", "out/scores/target"),
        ("retrained", "out/scores/retrained"),
    ):
        found = table.read(folder)
        judged = {s.index: s for s in found.scores if s.variant == ANSWER_VARIANT}
        said = {a.index: a.text for a in found.generated("forget")}
        assert set(judged) == {i for i, text in said.items() if text.strip()}, role
        for i, s in judged.items():
            probe = judge.Probe("forget", i, rows[i], {ANSWER_VARIANT: said[i]})
            (coded,) = coded_of([probe], target.tokenizer, max_length=512, chat_template=True)
            ids = [*coded.prompt, *coded.texts[0]]
            with torch.no_grad():
                logp = target.model(torch.tensor([ids])).logits[0].log_softmax(-1)
            wanted = [float(logp[len(coded.prompt) - 1 + k, t]) for k, t in enumerate(coded.texts[0])]
            np.testing.assert_allclose(s.logp, wanted, atol=1e-4)
    assert rescore(named, "out") == figures
    monkeypatch.setattr(cached, "collected", lambda name, probes, how: pytest.fail("judged again"))
    results = {role: asked[name] for role, name in models.items()}
    assert (
        judge.judged(ALL[0].score_parts, ALL[0].probes(named_data(place)), results, judge.EvaluationOptions())
        == results
    )


def named_data(place):
    from expunge.evaluation.benchmark import data_of

    return data_of(ALL[0], place / "tofu")


def test_a_model_alone_is_not_its_own_judge(place):
    figures = evaluate(ALL[0], "unlearned", "out", data="tofu")
    assert not [f for f in figures if f.name == "fluency"] and not [
        s for s in table.read("out/scores").scores if s.variant == ANSWER_VARIANT
    ]


def test_known_words_are_those_of_the_rows_and_the_tokens_that_are_words(tokenizer):
    rows = [Row("Who is Ada?", "A writer's friend.", paraphrase="Zed", perturbed=("Yon",))]
    known = judge.known_words(rows, tokenizer)
    assert all(map(known, ("ada", "writer's", "writer", "zed", "yon", "q"))) and not any(map(known, ("qq", "writers")))


def test_an_empty_answer_is_no_probe():
    assert judge.probes("forget", {}, {0: " "}, bool) == []
    (probe,) = judge.probes("forget", {1: Row("?", "a")}, {0: "", 1: "b Ccc"}, {"b"}.__contains__)
    assert (probe.index, probe.texts, float(probe.note)) == (1, {ANSWER_VARIANT: "b Ccc"}, 0.75)
