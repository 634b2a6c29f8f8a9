"""MUSE on a tiny model: prompts and figures by hand, the question part alone, bad rows, and several runs lined up."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
from golden import FIXTURES
from tokenizers.processors import TemplateProcessing
from typer.testing import CliRunner

from expunge.benchmarks import BENCHMARKS, muse
from expunge.cli import app
from expunge.data.chat import prompt_ids
from expunge.errors import InputError
from expunge.evaluation import table
from expunge.evaluation.benchmark import data_of
from expunge.evaluation.collect import cached as asking
from expunge.evaluation.collect.one_pass import answered, collect
from expunge.evaluation.evaluate import EvaluationOptions, evaluate, read
from expunge.evaluation.metrics.privacy import min_k

NEWS = BENCHMARKS["muse/news"]
REAL = FIXTURES / "muse_news_knowmem"
QA = ("forget_qa", "forget_qa_icl", "retain_qa", "retain_qa_icl")
WORDS = ["rivers", "rose", "again", "on", "the", "northern", "coast", "after", "storms"]


def said(*numbers):
    return " ".join(WORDS[n % len(WORDS)] for n in numbers)


def content():
    def questions(kind, n):
        return [{"question": f"What of {kind} {i}?", "answer": said(i, i + 1)} for i in range(n)]

    texts = {
        part: [{"text": said(*range(k + i, k + i + 6))} for i in range(4)]
        for part, k in (("privleak_forget", 0), ("privleak_holdout", 5))
    }
    return {
        "forget_qa": questions("forget", 4),
        "forget_qa_icl": questions("example", 2),
        "retain_qa": questions("retain", 3),
        "retain_qa_icl": questions("other", 2),
        "verbmem_forget": [{"prompt": said(i, i + 1, i + 2), "gt": said(i + 3, i + 4) + " x" * 80} for i in range(3)],
        **texts,
    }


@pytest.fixture
def folder(workplace, tokenizer, monkeypatch):
    """The benchmark's files, a target and a retrained model; the cache is the test's own."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(workplace / "cache"))
    (workplace / "news").mkdir()
    for name, rows in content().items():
        (workplace / "news" / f"{name}.json").write_text(json.dumps(rows))
    for name, seed in (("model", 0), ("retrained", 1)):
        tiny.model(seed, vocab_size=len(tokenizer), max_position_embeddings=2048).save_pretrained(name)
        tokenizer.save_pretrained(name)
    return workplace / "news"


@pytest.fixture
def questions_only(folder, monkeypatch):
    monkeypatch.setattr(muse, "KNOWMEM", replace(muse.KNOWMEM, max_new_tokens=6))
    for file in folder.glob("[vp]*.json"):
        file.unlink()
    return folder


def by_name(figures):
    return {(f.part, f.name): f for f in figures}


# -- what is asked --------------------------------------------------------------------------------------------------------
def test_the_prompt_is_that_of_muse(folder, tokenizer):
    probe = next(p for p in NEWS.probes(data_of(NEWS, folder)) if p.part == "forget_qa" and p.index == 1)
    text = (
        "Question: What of example 0?\nAnswer: rivers rose\n\n"
        "Question: What of example 1?\nAnswer: rose again\n\n"
        "Question: What of forget 1?\nAnswer: "
    )
    assert probe.row.prompt == text and probe.row.answer == "rose again"
    assert tokenizer.decode(prompt_ids(probe.row, tokenizer, chat_template=True)) == text
    assert probe.ask.max_new_tokens == 32 and probe.ask.stop == ("\n\n", "\nQuestion", "Question:") and not probe.texts
    assert NEWS.chat_template is False and NEWS.max_length == 2048


def test_the_rest_is_asked_as_muse_does(folder):
    probes = NEWS.probes(data_of(NEWS, folder))
    verbmem = [p for p in probes if p.part == "verbmem"]
    assert [p.row.prompt for p in verbmem] == [r["prompt"] for r in content()["verbmem_forget"]]
    assert all(p.ask.max_new_tokens == 128 and p.ask.cut and not p.ask.stop and p.continues for p in verbmem)
    assert [p.texts["answer"] for p in verbmem] == [" " + r["gt"] for r in content()["verbmem_forget"]]
    for part, name in (("forget", "privleak_forget"), ("holdout", "privleak_holdout")):
        texts = [p for p in probes if p.part == part]
        assert [p.texts["answer"] for p in texts] == [r["text"] for r in content()[name]]
        assert all(p.ask is None and p.row.prompt is None for p in texts)


def test_the_true_text_is_cut_by_tokens(folder, tokenizer):
    """To 128 of the model's tokens, a begin-of-text token included: here a token is a byte."""
    probe = next(p for p in NEWS.probes(data_of(NEWS, folder)) if p.part == "verbmem")
    assert len(probe.row.answer) > 160
    assert answered(probe, tokenizer, "").expected == probe.row.answer[:128]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", tokenizer.bos_token_id)]
    )
    assert answered(probe, tokenizer, "").expected == probe.row.answer[:127]


# -- figures --------------------------------------------------------------------------------------------------------------
def rouge_l_f1(expected, answer):
    """ROUGE-L F1 of lower-case words without signs, written down once more."""
    a, b = expected.split(), answer.split()
    best = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            best[i, j] = best[i - 1, j - 1] + 1 if x == y else max(best[i - 1, j], best[i, j - 1])
    m = best[-1, -1]
    return 0.0 if m == 0 else 2 * m / (len(a) + len(b))


def with_answers(collected, texts):
    """``collected`` as if the model had said ``texts``, part -> one a row."""
    answers = [
        table.Generated(a.part, a.index, a.variant, a.expected, texts[a.part][a.index], a.note)
        for a in collected.answers
    ]
    return table.Collected(collected.scores, tuple(answers))


def test_figures_by_hand(folder, tokenizer):
    probes = NEWS.probes(data_of(NEWS, folder))
    models = [tiny.model(seed, vocab_size=len(tokenizer), max_position_embeddings=2048) for seed in (0, 1)]
    collected, other = (collect(m, tokenizer, probes, max_length=2048, chat_template=False) for m in models)
    texts = {
        "forget_qa": ["rivers rose", "rose", "nothing", "on northern rivers"],
        "retain_qa": ["rivers", "again rose", "again on"],
        "verbmem": ["on the x x", "northern", "x"],
    }
    collected = with_answers(collected, texts)
    other = with_answers(other, {part: ["again on"] * len(rows) for part, rows in texts.items()})
    figures = by_name(NEWS.score(collected, other))
    assert by_name(NEWS.score(collected, None)).keys() < figures.keys()

    for part in ("forget_qa", "retain_qa", "verbmem"):
        name = part if part == "verbmem" else "knowmem"
        rows = collected.generated(part)
        own = np.array([rouge_l_f1(a.expected, a.text) for a in rows])
        theirs = np.array([rouge_l_f1(a.expected, "again on") for a in rows])
        f = figures[part, name]
        assert f.value == pytest.approx(own.mean()) and f.n == len(rows) and f.low <= f.value <= f.high
        assert figures[part, f"{name}_above_retrained"].value == pytest.approx((own - theirs).mean())
        assert "MUSE's" in f.note and "OpenUnlearning's" in figures[part, f"{name}_stemmed"].note
    assert figures["forget_qa", "knowmem"].value == pytest.approx((1 + 2 / 3 + 0 + 0.4) / 4)
    whole = [rouge_l_f1(r["gt"], text) for r, text in zip(content()["verbmem_forget"], texts["verbmem"], strict=True)]
    assert figures["verbmem", "verbmem_stemmed"].value == pytest.approx(np.mean(whole))
    assert figures["verbmem", "verbmem"].value > np.mean(whole)  # the true text is cut, so more of it is found

    hits = [s.hit for s in collected.scored("verbmem")]
    assert figures["verbmem", "exact_memorisation"].value == pytest.approx(np.mean([h.mean() for h in hits]))

    def auc(scored):
        forget_scores, holdout_scores = (min_k([s.logp for s in scored(part)], k=0.4) for part in ("forget", "holdout"))
        return np.mean([(u > s) + 0.5 * (u == s) for s in forget_scores for u in holdout_scores])

    ours, theirs = auc(collected.scored), auc(other.scored)
    assert figures["forget", "mia_min_k_auc"].value == pytest.approx(ours) and ours != theirs
    assert figures["forget", "privleak"].value == pytest.approx(100 * ((1 - ours) - (1 - theirs)) / (1 - theirs))


def test_stemming_is_the_difference_between_the_two(folder, tokenizer):
    probes = [p for p in NEWS.probes(data_of(NEWS, folder)) if p.part.endswith("_qa")]
    collected = collect(tiny.model(vocab_size=len(tokenizer)), tokenizer, probes, max_length=2048, chat_template=False)
    texts = {part: ["river roses"] * 4 for part in ("forget_qa", "retain_qa")}
    figures = by_name(NEWS.score(with_answers(collected, texts), None))
    assert figures["forget_qa", "knowmem"].value == 0
    assert figures["forget_qa", "knowmem_stemmed"].value == pytest.approx((1 + 0.5) / 4)


# -- the command ----------------------------------------------------------------------------------------------------------
def test_the_command_and_what_it_writes(folder):
    result = CliRunner().invoke(
        app, ["bench", "muse/news", "--model", "model", "--retrained", "retrained", "--data", str(folder)]
    )
    assert result.exit_code == 0 and "privleak" in result.output, result.output
    record = read("figures")
    assert record["data"]["left_out"] == [] and record["chat_template"] is False and record["max_length"] == 2048
    assert {f["n"] for f in record["figures"] if f["name"] == "knowmem"} == {4, 3}
    assert next(f["n"] for f in record["figures"] if f["name"] == "privleak") == 8


def test_a_folder_with_only_the_questions(questions_only):
    figures = evaluate(NEWS, "model", "out", data=questions_only)
    assert {f.part for f in figures} == {"forget_qa", "retain_qa"}
    assert read("out")["data"]["left_out"] == ["verbmem_forget", "privleak_forget", "privleak_holdout"]
    (questions_only / "retain_qa.json").rename(questions_only / "retain2_qa.json")  # as the authors first had it
    assert evaluate(NEWS, "model", "again", data=questions_only) == figures


def test_bad_rows_are_told_before_a_model_is_loaded(folder, monkeypatch):
    monkeypatch.setattr(asking, "collected", lambda *_: pytest.fail("a model was loaded"))

    def told(name, rows, message):
        before = (folder / f"{name}.json").read_text()
        (folder / f"{name}.json").write_text(json.dumps(rows))
        with pytest.raises(InputError, match=message):
            evaluate(NEWS, "model", "out", data=folder)
        (folder / f"{name}.json").write_text(before)

    told("forget_qa", [{"question": "Who?"}], r"forget_qa\.json, row 1: the field 'answer' is missing")
    told("retain_qa_icl", [{"question": " ", "answer": "x"}], r"row 1: the field 'question' must be text")
    told("verbmem_forget", [{"prompt": "x"}], r"verbmem_forget\.json, row 1: the field 'gt' is missing")
    told("privleak_holdout", content()["privleak_forget"][1:2], "of privleak_holdout also stands in privleak_forget")
    told("privleak_forget", ["a text"], "a row must be an object with named fields")
    (folder / "retain_qa_icl.json").unlink()
    with pytest.raises(InputError, match=r"lacks retain\*_qa_icl\.json"):
        evaluate(NEWS, "model", "out", data=folder)


# -- several runs ---------------------------------------------------------------------------------------------------------
def test_runs_are_lined_up(questions_only):
    runs = {name: evaluate(NEWS, name, f"{name}-figures", data=questions_only) for name in ("model", "retrained")}
    lines = muse.along([f"{name}-figures" for name in runs])
    assert lines == {(f.part, f.name): [f, g] for f, g in zip(runs["model"], runs["retrained"], strict=True)}
    evaluate(NEWS, "model", "beside", data=questions_only, retrained="retrained")
    assert muse.along(["beside", "model-figures"]).keys() == lines.keys()  # what not every run has is left out
    evaluate(NEWS, "model", "short", data=questions_only, how=EvaluationOptions(limit=2))
    with pytest.raises(InputError, match=r"short: limit is 2, in model-figures it is None"):
        muse.along(["model-figures", "short"])
    (questions_only / "forget_qa.json").write_text(json.dumps([{"question": "Who?", "answer": "rivers"}]))
    evaluate(NEWS, "model", "other", data=questions_only)
    with pytest.raises(InputError, match="other was measured on other rows than model-figures"):
        muse.along(["model-figures", "other"])
    with pytest.raises(InputError, match="at least one"):
        muse.along([])


# -- the data -------------------------------------------------------------------------------------------------------------
def test_where_the_data_is_on_the_hub():
    assert {s.hub for s in NEWS.sets} == {
        f"muse-bench/MUSE-News:{place}"
        for place in (
            "knowmem@forget_qa",
            "knowmem@forget_qa_icl",
            "knowmem@retain_qa",
            "knowmem@retain_qa_icl",
            "verbmem@forget",
            "privleak@forget",
            "privleak@holdout",
        )
    }
    books = BENCHMARKS["muse/books"]
    assert (books.forget.hub, books.retain.hub) == (
        "muse-bench/MUSE-Books:raw@forget",
        "muse-bench/MUSE-Books:raw@retain1",
    )
    assert [s.hub for s in muse.SCALABILITY] == [f"muse-bench/MUSE-News:scal@forget_{k}" for k in (1, 2, 3, 4)]
    assert [s.hub for s in muse.SUSTAINABILITY] == [f"muse-bench/MUSE-News:sust@forget_{k}" for k in (1, 2, 3, 4)]


def test_the_real_questions():
    data = data_of(NEWS, REAL)
    probes = NEWS.probes(data)
    assert data.absent == ("verbmem_forget", "privleak_forget", "privleak_holdout")
    assert {part: sum(p.part == part for p in probes) for part in ("forget_qa", "retain_qa")} == {
        "forget_qa": 100,
        "retain_qa": 100,
    }
    for p in probes:
        assert p.row.prompt.count("Question: ") == 11 and p.row.prompt.endswith("?\nAnswer: ")
    perfect = table.Collected(
        (), tuple(table.Generated(p.part, p.index, "answer", p.row.answer, p.row.answer) for p in probes)
    )
    figures = by_name(NEWS.score(perfect, None))
    assert all(f.value == 1 and f.n == 100 for f in figures.values()) and len(figures) == 4
