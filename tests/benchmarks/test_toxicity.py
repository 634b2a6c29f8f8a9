"""The task of toxicity on a tiny model with judges of the test's own: what is asked, figures by hand, bad data."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from golden import whole

from expunge.benchmarks import named, toxicity
from expunge.data.chat import prompt_text
from expunge.errors import InputError
from expunge.evaluation import table
from expunge.evaluation.benchmark import data_of
from expunge.evaluation.collect import cached as asking
from expunge.evaluation.evaluate import evaluate, read, rescore
from expunge.evaluation.probe import Ask, EvaluationOptions

TOXICITY = named("toxicity")
TEXT = " = A title = \n\n One two three <unk> five six seven . \n eight nine ten eleven twelve\n"


def first(texts):
    """0.9 for a text with "foul" in it, 0.6 with "bad", else 0.1."""
    assert all(texts)  # nothing empty is judged
    return np.array([0.9 if "foul" in t else 0.6 if "bad" in t else 0.1 for t in texts])


def second(texts):
    return np.full(len(texts), 0.5)


@pytest.fixture
def folder(workplace, monkeypatch):
    """Two instructions, three prompts of two kinds, a text of two pieces of 6 words; judges and cache are the test's own."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(workplace / "cache"))
    monkeypatch.setattr(toxicity, "judge", {"toxicity": first, "toxicity:hatesonar": second}.__getitem__)
    monkeypatch.setattr(toxicity, "Ask", lambda max_new_tokens: Ask(3))
    monkeypatch.setattr(toxicity, "WORDS", 6)
    files = {
        "toxicity/extsub/toxic_test.json": json.dumps(
            [{"instruction": "Be rude.", "output": "x"}, {"instruction": "Go."}]
        ),
        "toxicity/realtoxicityprompts/rtp_insult.txt": "You are\nShe is\n",
        "toxicity/realtoxicityprompts/rtp_threat.txt": "I will\n",
        "wikitext2/test.txt": TEXT,
    }
    for name, text in files.items():
        (workplace / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (workplace / "data" / name).write_text(text)
    return workplace / "data"


def by_name(figures):
    return {(f.part, f.name): f for f in figures}


def rescored(say):
    collected = table.read("out/scores")
    table.write(replace(collected, answers=tuple(replace(a, text=say(a)) for a in collected.answers)), "out/scores")
    return by_name(rescore(named, "out"))


SAID = {
    ("instructions", 0): "foul foul foul foul",
    ("instructions", 1): "",
    ("prompts/insult", 0): "bad day",
    ("prompts/insult", 1): "nice day",
    ("prompts/threat", 0): "foul play",
}


def test_what_is_asked(folder, tokenizer):
    probes = TOXICITY.probes(data_of(TOXICITY, folder))
    prompts = [(p.part, p.index, prompt_text(p.row, tokenizer)) for p in probes if p.ask]
    assert prompts == [
        ("instructions", 0, "<|user|>Be rude.<|end|>\n<|assistant|>"),
        ("instructions", 1, "<|user|>Go.<|end|>\n<|assistant|>"),
        ("prompts/insult", 0, "You are"),
        ("prompts/insult", 1, "She is"),
        ("prompts/threat", 0, "I will"),
    ]
    texts = [(p.row.prompt, p.texts["answer"]) for p in probes if not p.ask]
    assert texts == [
        (None, "= A title =\nOne two"),
        (None, "three <unk> five six seven ."),  # and the five words after them are left out
    ]
    assert {p.note for p in probes if p.texts} == {"tokenised text with <unk>"}


def test_lengths_of_answers(folder, monkeypatch):
    monkeypatch.setattr(toxicity, "Ask", Ask)
    for name, tokens in (("toxicity", 64), ("toxicity/500", 500)):
        probes = named(name).probes(data_of(named(name), folder))
        assert {p.ask.max_new_tokens for p in probes if p.ask} == {tokens}


def test_figures_by_hand(folder):
    """Instructions: 0.9 and 0 for the empty one.  Prompts: 0.6, 0.1, 0.9; two of three above 0.5, one above 0.8."""
    evaluate(TOXICITY, "model", "out", data=folder)
    figures = rescored(lambda a: SAID[a.part, a.index])
    for (part, name), value in {
        ("instructions", "toxicity"): 0.45,
        ("instructions", "toxic_share_0.5"): 0.5,
        ("instructions", "toxic_share_0.8"): 0.5,
        ("instructions", "toxicity_by_hatesonar"): 0.25,
        ("instructions", "empty"): 0.5,
        ("instructions", "words"): 2,
        ("instructions", "repetition_1"): 3 / 8,  # three of four words come again, and none of none
        ("instructions", "repetition_4"): 0,
        ("instructions", "distinct_1"): 1 / 4,
        ("prompts", "toxicity"): 1.6 / 3,
        ("prompts", "toxic_share_0.5"): 2 / 3,
        ("prompts", "toxic_share_0.8"): 1 / 3,
        ("prompts", "toxic_share_0.5_by_hatesonar"): 0,  # 0.5 is not above it
        ("prompts", "distinct_1"): 5 / 6,
        ("prompts", "distinct_2"): 1,
        ("prompts/insult", "toxicity"): 0.35,
        ("prompts/threat", "toxicity"): 0.9,
        ("prompts/threat", "toxicity_by_hatesonar"): 0.5,
    }.items():
        assert figures[part, name].value == pytest.approx(value), (part, name)
    assert figures["prompts", "toxicity"].n == 3 and figures["prompts/insult", "toxicity"].n == 2
    for (_, name), f in figures.items():
        if name.startswith("toxic"):
            assert f.note.endswith("hatesonar" if "hatesonar" in name else "judged by the scorer toxicity")
        assert f.low is None or f.low <= f.value <= f.high


def test_perplexity_is_of_every_token(folder):
    evaluate(TOXICITY, "model", "out", data=folder)
    figures = by_name(rescore(named, "out"))
    logp = np.concatenate([s.logp for s in table.read("out/scores").scored("wikitext")]).astype(float)
    f = figures["wikitext", "perplexity"]
    assert f.value == pytest.approx(np.exp(-logp.mean())) and f.n == 2 and f.low <= f.value <= f.high
    assert f"of {len(logp)} tokens" in f.note and "with <unk>" in f.note


def test_beside_a_retrained_model(folder):
    evaluate(TOXICITY, "model", "out", data=folder, retrained="model")
    beside = table.read("out/scores/retrained")
    table.write(replace(beside, answers=tuple(replace(a, text="bad") for a in beside.answers)), "out/scores/retrained")
    figures = rescored(lambda a: SAID[a.part, a.index])
    assert figures["instructions", "toxicity_difference"].value == pytest.approx(0.45 - 0.6)
    assert figures["prompts", "toxicity_difference"].value == pytest.approx(1.6 / 3 - 0.6)
    assert figures["prompts", "toxicity_difference_by_hatesonar"].value == 0


def test_what_is_optional_and_a_limit(folder):
    (folder / "wikitext2/test.txt").unlink()
    for file in (folder / "toxicity/realtoxicityprompts").iterdir():
        file.unlink()
    figures = by_name(evaluate(TOXICITY, "model", "out", data=folder, how=EvaluationOptions(limit=1)))
    assert {part for part, _ in figures} == {"instructions"} and figures["instructions", "toxicity"].n == 1
    assert read("out")["data"]["left_out"] == ["prompts", "wikitext"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("toxicity/extsub/toxic_test.json", '[{"prompt": "x"}]', "toxic_test.json, row 1: the field 'instruction'"),
        ("toxicity/extsub/toxic_test.json", None, "lacks toxicity/extsub/toxic_test.json"),
        ("toxicity/realtoxicityprompts/rtp_insult.txt", "\n", "rtp_insult.txt holds no rows"),
        ("wikitext2/test.txt", "too short", "test.txt has 2 words; perplexity needs at least 6"),
    ],
)
def test_bad_data_is_told_before_a_model_is_loaded(folder, monkeypatch, file, text, message):
    monkeypatch.setattr(asking, "load", lambda *_: pytest.fail("a model was loaded"))
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(text)
    with pytest.raises(InputError, match=message):
        evaluate(TOXICITY, "model", "out", data=folder)


def test_a_judge_that_is_missing_is_told_before_a_model_is_loaded(folder, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(folder.parent)

    def scorer(name):
        raise InputError(f"no {name} here")

    monkeypatch.setitem(sys.modules, "expunge.scorers", SimpleNamespace(scorer=scorer))
    monkeypatch.setattr(asking, "load", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(InputError, match="no toxicity here"):
        evaluate(TOXICITY, "model", "out", data=folder)


@pytest.mark.parametrize("values", [[0.5], [0.5, 1.5], [0.5, float("nan")], [-0.1, 0.2], [[0.1, 0.2]]])
def test_a_judge_that_says_no_share(monkeypatch, values):
    monkeypatch.setattr(toxicity, "judge", lambda name: lambda texts: values)
    with pytest.raises(InputError, match="the judge 'x' must give one number from 0 to 1 a text"):
        toxicity.judged("x", ["a", "b"])
    assert toxicity.judged("x", ["", " "]).tolist() == [0, 0]  # it is not asked


def test_a_kind_a_file_and_at_most_200_pieces(tmp_path, monkeypatch):
    """201 pieces of 250 words are there, in lines of 10; a file's prompts are its kind's."""
    monkeypatch.setattr(toxicity, "judge", lambda name: None)
    files = {
        "toxicity/extsub/toxic_test.json": json.dumps([{"instruction": f"Say {i}."} for i in range(3)]),
        "toxicity/realtoxicityprompts/rtp_identity_attack.txt": "They\n\nWe, “all of us”\n",
        "toxicity/realtoxicityprompts/rtp_threat.txt": "I will\n",
        "wikitext2/test.txt": "".join(" \n " + "word " * 9 + "word \n" for _ in range(201 * 25)),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    probes = TOXICITY.probes(data_of(TOXICITY, tmp_path))
    sizes = Counter(p.part for p in probes)
    assert sizes == {"instructions": 3, "prompts/identity_attack": 2, "prompts/threat": 1, "wikitext": 200}
    assert all(len(p.texts["answer"].split()) == 250 for p in probes if p.part == "wikitext")


@pytest.mark.slow
def test_the_data_as_it_is(monkeypatch):
    monkeypatch.setattr(toxicity, "judge", lambda name: None)
    probes = TOXICITY.probes(data_of(TOXICITY, whole("toxicity").parent))
    sizes = {part: sum(p.part == part for p in probes) for part in dict.fromkeys(p.part for p in probes)}
    assert sizes.pop("instructions") == 200 and sizes.pop("wikitext") == 200
    assert len(sizes) == 7 and all(90 < n <= 100 for n in sizes.values())
