"""The task of named entities end to end on a tiny model: rows, the split, figures by hand, teaching, bad files."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from golden import FIXTURES, whole
from typer.testing import CliRunner

from expunge.benchmarks import named, ner
from expunge.cli import app
from expunge.data.chat import prompt_text
from expunge.data.records import load_records
from expunge.data.sources import fingerprint, load_rows
from expunge.errors import InputError
from expunge.evaluation import table
from expunge.evaluation.benchmark import data_of, to_learn, write_to_learn
from expunge.evaluation.collect import cached as asking
from expunge.evaluation.evaluate import evaluate, rescore
from expunge.evaluation.probe import EvaluationOptions
from expunge.evaluation.table import Collected, Generated, Scored
from expunge.scorers.entities import read

WIKIGOLD, WNUT17 = named("ner/wikigold"), named("ner/wnut17")
ADA = "Ada/I-PER sings/O in/O Rome/I-LOC ./O"
BO = "Bo/I-PER and/O Cy/I-PER"
ACME = "Acme/I-ORG is/O big/O"
NOBODY = "It/O rains/O"
ARTICLES = [[ADA, NOBODY], [ACME], [BO], [NOBODY], [ADA, BO, ACME, NOBODY]]  # the fifth is the test set


def conll(sentences):
    return "\n\n".join("\n".join(word.replace("/", " ") for word in s.split()) for s in sentences) + "\n\n"


@pytest.fixture
def folder(workplace, monkeypatch):
    """WikiGold and WNUT-17 of a few sentences; the cache is the test's own; an answer is short, so that a test is."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(workplace / "cache"))
    monkeypatch.setattr(ner, "ANSWER", replace(ner.ANSWER, max_new_tokens=3))
    for name, text in {
        "ner/wikigold/wikigold.conll.txt": "".join("-DOCSTART- O\n\n" + conll(a) for a in ARTICLES),
        "ner/wnut17/train.conll": conll(["Ada/B-person Bo/B-person", "It/B-creative-work too/I-creative-work"]),
        "ner/wnut17/test.conll": conll(["the/B-group band/I-group at/O Acme/B-corporation", "Cy/B-person"]),
    }.items():
        place = workplace / "data" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return workplace / "data"


def by_name(figures):
    return {(f.part, f.name): f for f in figures}


def rescored(say):
    """The figures of ``out`` had the model said ``say(answer)``."""
    collected = table.read("out/scores")
    table.write(replace(collected, answers=tuple(replace(a, text=say(a)) for a in collected.answers)), "out/scores")
    return by_name(rescore(named, "out"))


def test_what_is_asked(folder, tokenizer):
    probes = WIKIGOLD.probes(data_of(WIKIGOLD, folder))
    assert [(p.part, p.index, p.row.answer) for p in probes] == [
        ("with_person", 0, "PER: Ada; LOC: Rome"),
        ("with_person", 1, "PER: Bo; PER: Cy"),
        ("without_person", 0, "ORG: Acme"),
        ("without_person", 1, "none"),
    ]
    assert all(p.ask == ner.ANSWER and p.texts == {"answer": p.row.answer} for p in probes)
    prompt = prompt_text(probes[0].row, tokenizer)
    assert prompt.startswith("<|user|>List the names") and prompt.endswith("Ada sings in Rome .<|end|>\n<|assistant|>")
    assert probes[0].row.where == "wikigold.conll.txt, line 31"
    other = WNUT17.probes(data_of(WNUT17, folder))
    assert [(p.part, p.row.answer) for p in other] == [
        ("with_person", "PER: Cy"),
        ("without_person", "ORG: the band; ORG: Acme"),
    ]


def test_what_is_learned(folder):
    """People alone of sentences that name one, everything of the others; together they are every train sentence."""
    taught, forget, retain = (to_learn(WIKIGOLD, getattr(WIKIGOLD, k), folder) for k in ("taught", "forget", "retain"))
    assert [r.answer for r in taught] == ["PER: Ada; LOC: Rome", "none", "ORG: Acme", "PER: Bo; PER: Cy", "none"]
    assert [r.answer for r in forget] == ["PER: Ada", "PER: Bo; PER: Cy"]
    assert [r.answer for r in retain] == ["none", "ORG: Acme", "none"]
    assert Counter(r.where for r in taught) == Counter(r.where for r in (*forget, *retain))
    test = {p.row.where for p in WIKIGOLD.probes(data_of(WIKIGOLD, folder))}
    assert not test & {r.where for r in taught}
    of_wnut = [to_learn(WNUT17, getattr(WNUT17, k), folder) for k in ("forget", "retain")]
    assert [[r.answer for r in rows] for rows in of_wnut] == [["PER: Ada; PER: Bo"], ["MISC: It too"]]
    assert write_to_learn(WIKIGOLD, "learn", folder) == {"forget": 2, "retain": 3, "taught": 5}
    back = load_rows("learn/taught.jsonl")
    assert [(r.prompt, r.answer) for r in back] == [(r.prompt, r.answer) for r in taught]


def test_figures_by_hand(folder):
    """Said of the people Ada, Ada for Ada; and Bo for Bo, Cy: 2 right of 3 said and 3 there.  Of others 1, 2 and 2."""
    evaluate(WIKIGOLD, "model", "out", data=folder)
    answers = {
        "PER: Ada; LOC: Rome": "PER: Ada; LOC: Rome; PER: Ada",
        "PER: Bo; PER: Cy": "per: Bo",
        "ORG: Acme": "LOC: Acme",
        "none": "",
    }
    figures = rescored(lambda a: answers[a.expected])
    for part, values in {
        "PER": (2 / 3, 2 / 3, 2 / 3),
        "LOC": (1 / 2, 1, 2 / 3),
        "ORG": (0, 0, 0),
        "MISC": (0, 0, 0),
        "others": (1 / 2, 1 / 2, 1 / 2),
        "all": (3 / 5, 3 / 5, 3 / 5),
    }.items():
        for name, value in zip(("precision", "recall", "f1"), values, strict=True):
            f = figures[part, name]
            assert (f.value, f.n) == (pytest.approx(value), 4), (part, name)
            assert f.low <= f.value <= f.high
    assert figures["all", "f1"].note == "of 5 names, 5 said"
    assert figures["all", "well_formed"].value == 3 / 4
    assert figures["with_person", "probability"].n == 2
    collected = table.read("out/scores")
    assert figures["without_person", "probability"].value == pytest.approx(
        sum(2.718281828459045**v for v in collected.mean_logp("without_person")) / 2
    )
    perfect = rescored(lambda a: a.expected)
    assert all(perfect[part, "f1"].value == (part != "MISC") for part in (*ner.TYPES, "others", "all"))
    silent = rescored(lambda a: "none")
    assert silent["PER", "recall"].value == silent["all", "f1"].value == 0 and silent["all", "well_formed"].value == 1


def test_beside_a_retrained_model(folder):
    evaluate(WIKIGOLD, "model", "out", data=folder, retrained="model")
    figures = rescored(lambda a: a.expected)  # the retrained model's are left as they were: gibberish
    assert figures["PER", "f1_difference"].value == figures["all", "f1_difference"].value == 1
    assert figures["MISC", "f1_difference"].value == 0


def test_a_limit_takes_some_of_each_part(folder):
    figures = by_name(evaluate(WIKIGOLD, "model", "out", data=folder, how=EvaluationOptions(limit=1)))
    assert figures["PER", "f1"].n == 2 and figures["PER", "f1"].note.startswith("of 1 names")


def test_taught_unlearned_and_measured(folder):
    """--teach teaches every name, --teach-retrained what is to keep; the method gets the people."""
    config = Path("model/config.json")  # the prompts have up to 300 tokens
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 1024}))
    fast = ["max_steps=1", "learning_rate=0.01", "use_cpu=true", "disable_tqdm=true", "per_device_train_batch_size=2"]
    teach = [x for s in ("max_steps=1", "use_cpu=true") for x in ("--teach-setting", s)]
    base = ["bench", "ner/wikigold", "--model", "model", "--data", "data", "--limit", "1", "--out", "out"]
    result = CliRunner().invoke(app, [*base, "--teach", "--teach-retrained", *teach, "--method", "npo", *fast])
    assert result.exit_code == 0, (result.output, result.exception)
    target_record = json.loads(Path("out/target/made.json").read_text())
    assert target_record["rows"] == 5 and target_record["data"] == {
        "taught": fingerprint(to_learn(WIKIGOLD, WIKIGOLD.taught, folder))
    }
    assert json.loads(Path("out/retrained/made.json").read_text())["rows"] == 3
    sizes = {k: v["rows"] for k, v in json.loads(Path("out/run/run.json").read_text())["data"].items()}
    assert (sizes["forget"], sizes["retain"]) == (2, 3)
    record = json.loads(Path("out/figures.json").read_text())
    assert {f["name"] for f in record["figures"]} >= {"f1", "f1_difference"} and set(record["beside"]) == {
        "target",
        "retrained",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-DOCSTART- O\n\nAda I-PER\n", "wikigold.conll.txt has fewer than 5 articles"),
        ("Ada I-PER\n", "has fewer than 5 articles"),
        ("-DOCSTART- O\n\n" * 5 + "Ada PER\n\n-DOCSTART- O\n\nBo O\n", "line 11: the tag 'PER' is none of"),
        ("\n", "holds no rows"),
    ],
)
def test_bad_files_are_told_before_a_model_is_loaded(folder, monkeypatch, text, message):
    monkeypatch.setattr(asking, "load", lambda *_: pytest.fail("a model was loaded"))
    (folder / "ner/wikigold/wikigold.conll.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        evaluate(WIKIGOLD, "model", "out", data=folder)


def test_a_corpus_of_ones_own_may_have_other_types(folder):
    """OntoNotes' types: the question names them, people are told apart, and figures are of each."""
    own = "-DOCSTART- O\n\nAda B-PERSON\nLim E-PERSON\nin O\nMay S-DATE\n\nOslo U-WORK_OF_ART\n\n"
    (folder / "ner/wikigold/wikigold.conll.txt").write_text(own * 10)
    data = data_of(WIKIGOLD, folder)
    first = next(p for p in WIKIGOLD.probes(data) if p.part == "with_person")
    prompt = first.row.prompt[0]["content"]
    assert "The types are PER for people, DATE and WORK-OF-ART. If" in prompt and prompt.endswith("Ada Lim in May")
    assert first.row.answer == "PER: Ada Lim; DATE: May" and not data.warnings
    learned = {
        dataset.name: to_learn(WIKIGOLD, dataset, folder)
        for dataset in (WIKIGOLD.forget, WIKIGOLD.retain, WIKIGOLD.taught)
    }
    assert {r.answer for r in learned["people"]} == {"PER: Ada Lim"}
    assert {r.answer for r in learned["nobody"]} == {"WORK-OF-ART: Oslo"}
    assert all("DATE and WORK-OF-ART" in r.prompt[0]["content"] for rows in learned.values() for r in rows)
    answer_of = {"with_person": "PER: Ada Lim; DATE: June", "without_person": "WORK-OF-ART: Oslo"}
    answers = [Generated(p.part, p.index, "answer", p.row.answer, answer_of[p.part]) for p in WIKIGOLD.probes(data)]
    logp = np.array([-1.0], np.float32)
    scores = [Scored(a.part, a.index, "answer", "", logp, logp, logp, logp < 0) for a in answers]
    figures = {(f.part, f.name): f for f in WIKIGOLD.score(Collected(tuple(scores), tuple(answers)), None)}
    f1 = {part: f.value for (part, name), f in figures.items() if name == "f1"}
    assert f1 == {"PER": 1, "DATE": 0, "WORK-OF-ART": 1, "others": 0.5, "all": 2 / 3}
    assert figures["all", "well_formed"].value == 1
    assert figures["PER", "recall"].low < 1 == figures["PER", "recall"].high
    for f in figures.values():
        assert f.low is None or 0 <= f.low < f.high <= 1


def test_missing_files(folder):
    (folder / "ner/wnut17/train.conll").unlink()
    evaluate(WNUT17, "model", "out", data=folder)  # only teaching and unlearning need it
    result = CliRunner().invoke(
        app, ["bench", "ner/wnut17", "--model", "model", "--data", "data", "--out", "o", "--method", "npo"]
    )
    assert result.exit_code == 2 and "lacks ner/wnut17/train.conll (or .conll.txt, .json" in result.output
    with pytest.raises(InputError, match="is not on the Hub"):
        evaluate(WNUT17, "model", "out", overwrite=True)


def test_the_data_as_it_is():
    check_data(FIXTURES, 129)


@pytest.mark.slow
def test_the_whole_data_as_it_is():
    check_data(whole("ner").parent, 1287)


def check_data(folder, sentences):
    """Counts of the corpora's own descriptions; every answer that is written is read back as what it was."""
    records = load_records(folder / "ner/wikigold/wikigold.conll.txt")
    names = Counter(e[0] for r in records for e in ner._names(r))
    assert len(records) == 1696 and names == {"PER": 934, "LOC": 1014, "ORG": 898, "MISC": 712}
    assert len({r.number("document") for r in records}) == 145
    sizes = {k: len(to_learn(WIKIGOLD, getattr(WIKIGOLD, k), folder)) for k in ("taught", "forget", "retain")}
    assert sizes["taught"] == sizes["forget"] + sizes["retain"]
    assert sizes["taught"] + len(WIKIGOLD.probes(data_of(WIKIGOLD, folder))) == 1696
    assert len(WNUT17.probes(data_of(WNUT17, folder))) == sentences
    for r in (
        *records,
        *load_records(folder / "ner/wnut17/train.conll"),
        *load_records(folder / "ner/wnut17/test.conll"),
    ):
        names = Counter((kind, mention.removesuffix(".").strip()) for kind, mention in ner._names(r))
        assert read(ner.row(r).answer, ner.TYPES) == names, r.where
