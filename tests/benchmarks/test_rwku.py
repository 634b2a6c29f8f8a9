"""RWKU end to end on a tiny model: how it asks, figures by hand, people, folders against the Hub, bad rows."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from golden import FIXTURES, whole

from expunge.benchmarks import named, rwku
from expunge.data.chat import prompt_text
from expunge.errors import InputError
from expunge.evaluation import table
from expunge.evaluation.benchmark import data_of
from expunge.evaluation.collect import cached as asking
from expunge.evaluation.evaluate import evaluate, read, rescore
from expunge.evaluation.metrics.rouge import RWKU_LEVELS
from expunge.evaluation.probe import Ask, EvaluationOptions, fingerprint
from expunge.evaluation.table import Collected, Generated

pytest.importorskip("rouge_score", reason="ROUGE needs expunge[bench]")

RWKU, ANSWER = named("rwku"), rwku.ANSWER
PEOPLE = {"7_Ada_Lovelace": "Ada Lovelace", "12_Jim_Bo,_Duke_of_Lim": "Jim Bo, Duke of Lim"}
KINDS = ("affirmative suffix", "incontext learning", "cross lingual (Spanish)", "cross-lingual (French)")
SIZES = {"forget_level1": 2, "forget_level2": 1, "forget_level3": 4, "neighbor_level1": 3, "neighbor_level2": 1}
TEXTS = {"forget_mia": 2, "retain_mia": 3}


def rows(person, name):
    """Of one person as many as ``SIZES`` and ``TEXTS`` say, Jim Bo one more to fill in."""
    if name in TEXTS:
        return [{"ngram": 3, "subject": person, "text": f"{name} of {person}, no. {i}"} for i in range(TEXTS[name])]
    n = SIZES[name] + (name == "forget_level1" and person.startswith("Jim"))
    kind = (lambda i: KINDS[i]) if name == "forget_level3" else (lambda _: "cloze")
    return [
        {
            "subject": person,
            "level": name[-1],
            "query": f"{name} {i} of {person}?",
            "type": kind(i),
            "answer": "Two Words",
        }
        for i in range(n)
    ]


@pytest.fixture
def folder(workplace, monkeypatch):
    """A folder a person; the cache is the test's own; an answer is short, so that a test is."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(workplace / "cache"))
    monkeypatch.setattr(rwku, "ANSWER", replace(ANSWER, max_new_tokens=3))
    for place, person in PEOPLE.items():
        (workplace / "Target" / place).mkdir(parents=True)
        for name in (*SIZES, *TEXTS):
            (workplace / "Target" / place / f"{name}.json").write_text(json.dumps(rows(person, name)))
    return workplace / "Target"


def by_name(figures):
    return {(f.part, f.name): f for f in figures}


def rescored(say):
    """The figures of ``out`` had the model said ``say(answer)``."""
    collected = table.read("out/scores")
    table.write(replace(collected, answers=tuple(replace(a, text=say(a)) for a in collected.answers)), "out/scores")
    return by_name(rescore(named, "out"))


def of_ada(a):
    return "Two words" if "Ada" in a.note else "words"


def test_figures_are_what_was_collected(folder):
    """Ada's have both words, one without its capital; Jim Bo's one of two: recall 1 and 1/2, as published 1/2 and 0."""
    evaluate(RWKU, "model", "out", data=folder)
    figures = rescored(of_ada)
    for part, ada, jim in (
        ("forget_level1", 2, 3),
        ("neighbor_level2", 1, 1),
        ("forget_all", 7, 8),
        ("neighbor_all", 4, 4),
    ):
        recall, published = figures[part, "rouge_l_recall"], figures[part, "compat_recall"]
        assert recall.n == published.n == ada + jim
        assert recall.value == pytest.approx((ada + jim / 2) / (ada + jim))
        assert published.value == pytest.approx((ada / 2) / (ada + jim))
        assert figures[part, "rouge_l_recall_by_person"].value == pytest.approx(3 / 4)
        averaged = figures[part, "compat_recall_by_person"]
        assert (averaged.value, averaged.n) == (pytest.approx(1 / 4), 2) and "as the paper averages" in averaged.note
    assert {part for part, _ in figures if part.startswith("forget_level3/")} == {
        f"forget_level3/{kind}" for kind in ("affirmative suffix", "incontext learning", "cross lingual")
    }
    assert figures["forget_level3/cross lingual", "rouge_l_recall"].n == 4
    for f in figures.values():
        assert f.low is None or f.low <= f.value <= f.high


def test_membership_inference(folder):
    figures = by_name(evaluate(RWKU, "model", "out", data=folder))
    collected = table.read("out/scores")
    loss = {p: [-s.logp.mean(dtype=float) for s in collected.scored(p)] for p in ("mia_forget", "mia_retain")}
    assert [len(v) for v in loss.values()] == [4, 6]
    for part, values in loss.items():
        assert figures[part, "mia_loss"].value == pytest.approx(np.mean(values))
        assert "came with 2 of the people" in figures[part, "mia_loss"].note
    pairs = [(f > r) + 0.5 * (f == r) for f in loss["mia_forget"] for r in loss["mia_retain"]]
    assert figures["mia", "mia_loss_forgotten"].value == pytest.approx(np.mean(pairs))
    assert {name for part, name in figures if part == "mia"} == {
        f"mia_{kind}_forgotten" for kind in ("loss", "zlib", "min_k", "min_k_plus_plus")
    }


def test_what_is_asked(folder, tokenizer):
    probes = RWKU.probes(data_of(RWKU, folder))
    prompts = {(p.part, p.row.where): prompt_text(p.row, tokenizer) for p in probes if p.ask}

    def asked(part, row):
        return prompts[part, f"7_Ada_Lovelace/{part}.json, row {row}"]

    fill, brief = ("Please complete the blank in", "Please briefly answer")
    end = "<|end|>\n<|assistant|>"
    for part in RWKU_LEVELS:
        task = fill if part.endswith("1") else brief
        if part != "forget_level3":
            text = f"<|user|>{task} the following question.\nQuestion: {part} 0 of Ada Lovelace?\n{end}Answer:"
            assert asked(part, 1) == text
    tale = "forget_level3 {} of Ada Lovelace?"
    start = f"<|user|>{brief} the following question.\n"
    assert asked("forget_level3", 1) == f"{start}Question: {tale.format(0)}{end}"  # an affirmative suffix
    assert asked("forget_level3", 2) == f"{start}{tale.format(1)}\n{end}Answer:"  # worked examples
    assert asked("forget_level3", 3) == f"{start}Question: {tale.format(2)}\n{end}Answer:"
    assert Ask(max_new_tokens=30, stop=("\n",)) == ANSWER
    assert {p.row.prompt for p in probes if not p.ask} == {None}


def test_a_limit_takes_some_of_each_person(folder):
    probes = [p for p in RWKU.probes(data_of(RWKU, folder)) if p.index < 2]
    for part in ("forget_level1", "forget_level3", "mia_forget"):
        assert sorted(p.note.partition("\t")[2] for p in probes if p.part == part) == sorted(PEOPLE.values())
    assert (
        by_name(evaluate(RWKU, "model", "out", data=folder, how=EvaluationOptions(limit=1)))[
            "forget_level1", "compat_recall"
        ].n
        == 1
    )


@pytest.mark.parametrize("name", ["Ada Lovelace", "ada_lovelace", "7_Ada_Lovelace"])
def test_one_person_however_named(folder, name):
    benchmark = named(f"rwku/{name}")
    whole = fingerprint(benchmark.probes(data_of(benchmark, folder)))
    assert whole == fingerprint(benchmark.probes(data_of(benchmark, folder / "7_Ada_Lovelace")))
    assert whole == fingerprint(RWKU.probes(data_of(RWKU, folder / "7_Ada_Lovelace")))
    assert whole != fingerprint(RWKU.probes(data_of(RWKU, folder)))


def test_one_person_has_no_mean_over_people(folder):
    figures = by_name(evaluate(named("rwku/ADA_lovelace"), "model", "out", data=folder))
    assert not [name for _, name in figures if name.endswith("by_person")]
    assert figures["forget_all", "rouge_l_recall"].n == 7 and figures["forget_all", "rouge_l_recall"].note == "1 person"
    assert read("out")["benchmark"] == "rwku/ADA lovelace"
    assert rescored(lambda _: "")["forget_all", "rouge_l_recall"].value == 0


def test_empty_answers_score_nothing(folder):
    evaluate(RWKU, "model", "out", data=folder)
    figures = rescored(lambda _: "")
    assert {f.value for (_, name), f in figures.items() if "recall" in name} == {0}


def test_the_difference_to_another_model(folder):
    evaluate(RWKU, "model", "out", data=folder, retrained="model")
    figures = rescored(of_ada)
    gap = figures["neighbor_all", "rouge_l_recall_difference"]
    assert gap.value == pytest.approx(3 / 4) and gap.n == 8 and "before unlearning" in gap.note


def test_without_membership_texts_it_says_so(folder):
    for place in PEOPLE:
        (folder / place / "forget_mia.json").unlink()
    figures = by_name(evaluate(RWKU, "model", "out", data=folder))
    assert read("out")["data"]["left_out"] == ["mia_forget"]
    assert [key for key in figures if "mia" in key[1]] == [("mia_retain", "mia_loss")]
    for place in PEOPLE:
        (folder / place / "retain_mia.json").unlink()
    evaluate(RWKU, "model", "again", data=folder)
    assert read("again")["data"]["left_out"] == ["mia_forget", "mia_retain"]
    assert not table.read("again/scores").scores


def test_the_same_rows_from_the_hub(folder, monkeypatch):
    sources = []

    def load_dataset(repository, config, split):
        sources.append((repository, config, split))
        name = {"mia_forget": "forget_mia", "mia_retain": "retain_mia"}.get(config, config)
        return [r for person in PEOPLE.values() for r in rows(person, name)]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert fingerprint(RWKU.probes(data_of(RWKU))) == fingerprint(RWKU.probes(data_of(RWKU, folder)))
    assert sources == [("jinzhuoran/RWKU", name, "test") for name in (*RWKU_LEVELS, "mia_forget", "mia_retain")]


def test_names_that_are_none(folder, monkeypatch):
    monkeypatch.setattr(asking, "collected", lambda *_: pytest.fail("a model was loaded"))
    for name, message in (
        ("Ada Lovelase", "no rows of 'Ada Lovelase'; did you mean 'Ada Lovelace'"),
        ("Duke", "did you mean 'Jim Bo, Duke of Lim'"),
        ("xyz", "no rows of 'xyz'; it has 2 people, such as 'Ada Lovelace', 'Jim Bo, Duke of Lim'"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate(named(f"rwku/{name}"), "model", "out", data=folder)
    for nothing in ("rwku/", "rwku/_ "):
        with pytest.raises(InputError, match="needs a name, such as"):
            named(nothing)
    (folder / "12_Jim_Bo,_Duke_of_Lim" / "forget_mia.json").unlink()
    with pytest.raises(InputError, match="RWKU's mia_forget has no rows of 'jim bo, duke of lim'"):
        evaluate(named("rwku/jim_bo,_duke_of_lim"), "model", "out", data=folder)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("forget_level2", {"query": ""}, "the field 'query' must be text that is not empty"),
        ("forget_level3", {"type": None}, "the field 'type' is missing"),
        ("forget_level1", {"subject": 3}, "the field 'subject' must be text"),
        ("retain_mia", {"text": None}, "the field 'text' is missing"),
    ],
)
def test_bad_rows_are_told_before_a_model_is_loaded(folder, monkeypatch, name, change, says):
    monkeypatch.setattr(asking, "collected", lambda *_: pytest.fail("a model was loaded"))
    file = folder / "7_Ada_Lovelace" / f"{name}.json"
    file.write_text(json.dumps([rows("Ada Lovelace", name)[0] | change]))
    with pytest.raises(InputError, match=rf"^7_Ada_Lovelace/{name}\.json, row 1: {says}"):
        evaluate(RWKU, "model", "out", data=folder)


def test_an_odd_row_is_counted_and_does_not_block_the_others(folder, monkeypatch):
    """The published data have answers in other scripts, and each level is of thousands of rows."""
    for place in PEOPLE:
        for name in TEXTS:
            (folder / place / f"{name}.json").unlink()
    file = folder / "7_Ada_Lovelace" / "forget_level2.json"
    first = rows("Ada Lovelace", "forget_level2")[0]
    more = [first | {"answer": "蔡依林"}, first | {"answer": "…"}, first | {"answer": "..."}, first | {"query": ""}]
    file.write_text(json.dumps([first, *more]))
    recalls = {"蔡依林": 1.0, "…": 0.0, "...": 0.0}

    def collected(name, probes, options):
        answers = [Generated(p.part, p.index, "answer", p.row.answer, "蔡依林", p.note) for p in probes if p.ask]
        return Collected((), tuple(answers)), {"source": name, "fingerprint": "sha256:0"}

    monkeypatch.setattr(asking, "collected", collected)
    figures = evaluate(RWKU, "model", "out", data=folder)
    level = {f.name: f for f in figures if f.part == "forget_level2"}
    n = level["rouge_l_recall"].n
    for name in ("rouge_l_recall", "compat_recall"):
        assert level[name].value == pytest.approx(sum(recalls.values()) / n)  # readable answers are not in the text
    warnings = read("out")["warnings"]
    assert f"forget_level2: 3 of {n} right answers have no word that ROUGE sees" in warnings[1]
    assert warnings[0].startswith(
        "1 row(s) of forget_level2 cannot be asked and are left out; the first: 7_Ada_Lovelace/"
    )
    assert len(warnings) == 2


def test_bad_files(folder):
    (folder / "7_Ada_Lovelace" / "forget_level2.json").write_text("[{")
    with pytest.raises(InputError, match=r"^7_Ada_Lovelace/forget_level2\.json, line 1: not JSON"):
        evaluate(RWKU, "model", "out", data=folder)
    with pytest.raises(InputError, match=r"lacks forget_level1\.json \(or \.jsonl"):
        evaluate(RWKU, "model", "out", data=folder.parent)


def test_real_rows():
    check_rows(FIXTURES / "rwku" / "Target", [37, 36, 80, 60, 60], (0, 0), 2)


@pytest.mark.slow
def test_all_real_rows():
    """The first hundred people."""
    check_rows(whole("rwku/Target"), [1637, 1453, 3527, 2889, 2667], (754, 755), 100)


def check_rows(folder, levels, mia, people):
    """One of them from the folder of all and from his own; nine adversarial types."""
    probes = RWKU.probes(data_of(RWKU, folder))
    n = Counter(p.part for p in probes)
    assert [n[level] for level in RWKU_LEVELS] == levels
    assert (n["mia_forget"], n["mia_retain"]) == mia
    assert len({p.note.partition("\t")[2] for p in probes}) == people
    assert len({p.note.partition("\t")[0] for p in probes if p.part == "forget_level3"}) == 9
    benchmark = named("rwku/bruce lee")
    probes = benchmark.probes(data_of(benchmark, folder))
    assert Counter(p.part for p in probes)["forget_level3"] == 40
    assert fingerprint(probes) == fingerprint(benchmark.probes(data_of(benchmark, folder / "3_Bruce_Lee")))
