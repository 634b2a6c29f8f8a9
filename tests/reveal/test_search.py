"""The search with a model, a scorer and embeddings made up here, so that every number can be worked by hand."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from expunge import files
from expunge.errors import InputError
from expunge.generation.sample import FORMS, Answer
from expunge.reveal.search import Entry, Plan, Tools, read_log, revealed, row, score_answers, search

ARMS = [f"arm {i}" for i in range(12)]
FEATURES = torch.arange(12.0)[:, None]
AXES = {"red": 0, "green": 1, "blue": 2, "grey": 3}


def to_line(entry):
    return files.json_line(asdict(entry))


def embed(texts):
    out = np.zeros((len(texts), 4))
    for place, text in zip(out, texts, strict=True):
        place[AXES[text.split()[0]]] = 1
    return out


def answer(text, perplexity=2.0, tokens=5):
    return Answer(text, tokens, perplexity, True)


def tools(calls=None, **replaced):
    """Arm i answers with i % 3 + 1 colours in turn; ``calls`` notes who was asked and with which seed."""
    calls = [] if calls is None else calls

    def ask(questions, seed):
        calls.append(("ask", tuple(questions), seed))
        kinds = int(questions[0].split()[1]) % 3 + 1
        return [
            answer(f"{['red', 'green', 'blue'][k % kinds]} says {questions[k]} {k} {seed}")
            for k in range(len(questions))
        ]

    def vary(arm, examples, n, seed):
        calls.append(("vary", arm, tuple(examples), seed))
        return [f"arm {arm} again {k}" for k in range(n)]

    values = {
        "ask": ask,
        "vary": vary,
        "relevance": lambda texts: np.array([float("grey" not in t) for t in texts]),
        "embed": embed,
        "centre": np.zeros(4),
        "choose": lambda features, observed, allowed: max(i for i, free in enumerate(allowed) if free),
    }
    return Tools(**(values | replaced))


PLAN = Plan(rounds=2, queries=4, initial=2, responses=3, best=2, harvest=2)


def test_the_score_by_hand():
    """Four answers: one too surprising, one empty; R = (1 + 0.5) / 4, D of two at right angles = 1."""
    answers = [answer("red a"), answer("green b"), answer("blue c", perplexity=99.0), answer("")]
    scores = score_answers(answers, [1.0, 0.5, 1.0, 1.0], np.zeros((0, 4)), PLAN, tools())
    assert scores == pytest.approx({"relevance": 0.375, "fluent": 0.5, "diversity": 1.0, "score": 2 / (1 / 0.375 + 1)})


def test_one_answer_that_is_fluent_has_no_diversity():
    scores = score_answers([answer("red a"), answer("")], [1.0, 1.0], np.zeros((0, 4)), PLAN, tools())
    assert scores == {"relevance": 0.5, "fluent": 0.5, "diversity": 0.0, "score": 0.0}


def test_what_was_collected_is_no_longer_diverse():
    answers = [answer("red a"), answer("green b")]
    before = score_answers(answers, [1.0, 1.0], np.zeros((0, 4)), PLAN, tools())["diversity"]
    after = score_answers(answers, [1.0, 1.0], embed(["red", "green"]), PLAN, tools())["diversity"]
    assert before == pytest.approx(1) and after == pytest.approx(0)


def test_a_search_asks_first_arms_then_what_is_chosen_then_harvests():
    calls = []
    log = list(search(ARMS, FEATURES, PLAN, tools(calls)))
    assert [(e.kind, e.round, e.arm) for e in log] == [
        ("query", 0, 0),
        ("query", 0, 1),
        ("query", 0, 11),
        ("query", 0, 10),
        ("harvest", 0, 11),  # three colours of three answers; arms 1 and 10 have two, and 1 was first
        ("harvest", 0, 1),
        ("query", 1, 9),  # two observed ones are carried over, so no first arms again
        ("query", 1, 8),
        ("query", 1, 7),
        ("query", 1, 6),  # all colours are known by now: nothing to harvest
    ]
    assert calls[4] == ("vary", 11, ("arm 11", "arm 1"), 4)
    assert calls[5] == ("ask", ("arm 11 again 0", "arm 11 again 1"), 4)
    assert len({c[-1] for c in calls if c[0] == "ask"}) == len(log)  # each with a seed of its own
    assert all(e.questions == (f"arm {e.arm}",) * 3 for e in log if e.kind == "query")


def test_a_later_round_begins_with_the_best_scored_against_what_was_collected():
    observations = []

    def choose(features, observed, allowed):
        observations.append(list(observed))
        return allowed.index(True)

    def relevance(texts):  # what is blue is worth something, and is not collected
        return np.array([0.3 if t.startswith("blue") else 1.0 for t in texts])

    log = list(search(ARMS, FEATURES, PLAN, tools(choose=choose, relevance=relevance)))
    first_round = [e for e in log if e.kind == "query" and e.round == 0]
    collected = embed([e.answers[i].text for e, i in revealed(log[:6], PLAN).answers])
    rescored = {e.arm: score_answers(e.answers, e.relevance, collected, PLAN, tools())["score"] for e in first_round}
    best = sorted(rescored.items(), key=lambda pair: -pair[1])[:2]
    assert observations[2] == [(arm, pytest.approx(score / best[0][1])) for arm, score in best]
    assert observations[3][:2] == observations[2] and observations[3][2] == (
        log[6].arm,
        pytest.approx(log[6].scores["score"] / best[0][1]),
    )


def test_the_bandit_is_told_shares_of_the_best_score():
    observations = []

    def choose(features, observed, allowed):
        observations.append(dict(observed))
        return allowed.index(True)

    log = list(
        search(ARMS, FEATURES, Plan(rounds=1, queries=3, initial=2, responses=3, weight=0.5), tools(choose=choose))
    )
    assert log[0].scores["score"] == pytest.approx(0) and log[1].scores["score"] == pytest.approx(0.616, abs=1e-3)
    assert observations == [{0: pytest.approx(0), 1: 1.0}]
    none = tools(choose=choose, relevance=lambda texts: np.zeros(len(texts)))
    list(search(ARMS, FEATURES, Plan(rounds=1, queries=3, initial=2, responses=3), none))
    assert observations[1] == {0: 0.0, 1: 0.0}


def test_arms_that_run_out_end_the_queries_but_not_the_harvest():
    log = list(search(ARMS[:3], FEATURES[:3], PLAN, tools()))
    assert [e.arm for e in log if e.kind == "query"] == [0, 1, 2]
    assert [e.round for e in log if e.kind == "harvest"] == [0, 0]


@pytest.mark.parametrize("cut", range(13))
def test_a_search_goes_on_from_any_entry(cut):
    whole = list(search(ARMS, FEATURES, PLAN, tools()))
    calls = []
    assert list(search(ARMS, FEATURES, PLAN, tools(calls), past=whole[:cut])) == whole
    assert sum(c[0] == "ask" for c in calls) == len(whole) - min(cut, len(whole))


def test_an_instruction_worth_nothing_is_not_harvested():
    log = list(search(ARMS, FEATURES, PLAN, tools(relevance=lambda texts: np.zeros(len(texts)))))
    assert {e.kind for e in log} == {"query"}


def test_the_forget_set_by_hand():
    questions = ("q",) * 6
    answers = (
        answer("red is what the first one says"),
        answer("red is what the first one says"),
        answer("green and not relevant at all"),
        answer("blue but far too surprising", perplexity=51.0),
        answer("grey", tokens=1),
        answer("green is what another one says"),
    )
    log = [Entry("query", 3, 7, questions, answers, (1.0, 1.0, 0.4, 1.0, 1.0, 0.5), {})]
    forget_set = revealed(log, Plan())
    assert forget_set.answers == ((log[0], 0), (log[0], 5))
    assert row(log[0], 5, FORMS["beginning"]) == {
        "prompt": "q",
        "completion": answers[5].text,
        "relevance": 0.5,
        "perplexity": 2.0,
        "tokens": 5,
        "found_by": "query",
        "round": 3,
        "arm": 7,
    }
    assert forget_set.dropped == {"duplicate": 1, "irrelevant": 1, "perplexity": 1, "too short": 1}


def test_a_log_comes_back_as_it_was(tmp_path):
    log = list(search(ARMS, FEATURES, PLAN, tools()))
    file = tmp_path / "queries.jsonl"
    assert read_log(file) == []
    file.write_text("".join(map(to_line, log)) + '{"kind": "que')
    assert read_log(file) == log


def test_a_cut_inside_a_letter_is_a_cut_too(tmp_path):
    entry = Entry("query", 0, 0, ("q",), (answer("schön"),), (1.0,), {})
    file, line = tmp_path / "queries.jsonl", to_line(entry).encode()
    file.write_bytes(line + line[: line.index("ö".encode()) + 1])
    assert read_log(file) == [entry]
    file.write_bytes(line.replace("ö".encode(), b"\xff"))
    with pytest.raises(InputError, match=r"queries.jsonl, line 1: no entry"):
        read_log(file)


def test_an_answer_without_text_is_never_kept():
    """A row without an answer would make the whole set unreadable, and a scorer may say anything of it."""
    log = [Entry("query", 0, 0, ("q", "q"), (answer(""), answer("red it is")), (1.0, 1.0), {})]
    forget_set = revealed(log, Plan(threshold=0.0, shortest=1))
    assert forget_set.answers == ((log[0], 1),) and forget_set.dropped == {"too short": 1}


def test_a_perplexity_that_is_no_number_is_read_back_as_one_above_every_limit(tmp_path):
    wild = [replace(answer("one two"), perplexity=p) for p in (math.inf, math.nan)]
    file = tmp_path / "queries.jsonl"
    files.append_line(file, asdict(Entry("query", 0, 0, ("q", "q"), tuple(wild), (1.0, 1.0), {})))
    (entry,) = read_log(file)
    assert [a.perplexity for a in entry.answers] == [math.inf, math.inf]


def test_texts_may_hold_other_line_separators(tmp_path):
    entry = Entry("query", 0, 0, ("q",), (answer("one\u2028two\x85three\x0cfour"),), (1.0,), {})
    file = tmp_path / "queries.jsonl"
    file.write_text(to_line(entry) * 2, encoding="utf-8")
    assert read_log(file) == [entry, entry]


def test_a_damaged_log_is_told_with_its_line(tmp_path):
    file = tmp_path / "queries.jsonl"
    file.write_text('{"kind": "query"}\n')
    with pytest.raises(InputError, match=r"queries.jsonl, line 1: no entry"):
        read_log(file)


@pytest.mark.parametrize(
    "bad",
    [
        {"rounds": 0},
        {"queries": 0},
        {"responses": 1},
        {"initial": 0},
        {"best": -1},
        {"harvest": -1},
        {"shortest": 9, "longest": 8},
        {"max_perplexity": 0.5},
        {"max_perplexity": float("nan")},
    ],
)
def test_a_plan_that_makes_no_sense_is_told(bad):
    with pytest.raises(InputError, match="at least"):
        Plan(**bad)
