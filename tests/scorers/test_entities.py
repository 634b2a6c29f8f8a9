"""Named entities: tags to names, names to an answer and back, agreement by hand and beside seqeval."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from expunge.errors import InputError
from expunge.scorers.entities import answer, counts, entities, read, valid, well_formed

TYPES = ("PER", "LOC", "ORG", "MISC")


def tagged(text):
    tokens, tags = zip(*(word.rsplit("/", 1) for word in text.split()), strict=True)
    return entities(tokens, tags)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ada/I-PER Lovelace/I-PER in/O Rome/I-LOC", [("PER", "Ada Lovelace"), ("LOC", "Rome")]),
        ("Ada/I-PER Bo/I-PER", [("PER", "Ada Bo")]),  # IO cannot tell them apart
        ("Ada/B-PER Bo/B-PER", [("PER", "Ada"), ("PER", "Bo")]),
        ("Ada/B-PER Rome/I-LOC Oslo/I-LOC", [("PER", "Ada"), ("LOC", "Rome Oslo")]),
        ("Ada/I-PER ,/O Bo/I-PER", [("PER", "Ada"), ("PER", "Bo")]),
        ("It/B-creative-work too/I-creative-work", [("creative-work", "It too")]),
        ("nothing/O here/O", []),
        (
            "Ada/B-PER Lim/E-PER Oslo/S-LOC Bo/U-PER May/B-PER Ann/L-PER",
            [("PER", "Ada Lim"), ("LOC", "Oslo"), ("PER", "Bo"), ("PER", "May Ann")],
        ),
    ],
)
def test_tags_to_names(text, expected):
    assert tagged(text) == expected


def test_bad_tags():
    for tag in ("PER", "X-PER", "I-", "", "o"):
        with pytest.raises(InputError, match=f"the tag {tag!r} is none of"):
            entities(["Ada"], [tag])
    with pytest.raises(InputError, match="2 tokens have 1 tags"):
        entities(["Ada", "Bo"], ["O"])


@pytest.mark.parametrize(
    ("text", "expected", "formed"),
    [
        ("PER: Ada Lovelace; LOC: Rome", {("PER", "Ada Lovelace"): 1, ("LOC", "Rome"): 1}, True),
        ("per: Ada ; Loc :  New   York;", {("PER", "Ada"): 1, ("LOC", "New York"): 1}, True),
        ("PER: Ada; PER: Ada", {("PER", "Ada"): 2}, True),
        ("PER: Ada; DATE: 1840", {("PER", "Ada"): 1}, False),
        ("PER: Ada; and more", {("PER", "Ada; and more"): 1}, True),
        ("ORG: AT&amp;T; MISC: M&amp;M", {("ORG", "AT&amp;T"): 1, ("MISC", "M&amp;M"): 1}, True),
        ("MISC: Phase 1 : Fortification", {("MISC", "Phase 1 : Fortification"): 1}, True),
        ("PER: Ada; LOC: Rome.", {("PER", "Ada"): 1, ("LOC", "Rome"): 1}, True),
        ("- PER: Ada\n2. LOC: Rome;\n", {("PER", "Ada"): 1, ("LOC", "Rome"): 1}, True),
        ("Names:\nPER: Ada", {("PER", "Ada"): 1}, False),
        ("PER: .", {}, True),
        ("none", {}, True),
        (" None. ", {}, True),
        ("", {}, False),
        ("PER:", {}, False),
        ("The names are Ada and Rome.", {}, False),
        ("Answer: PER: Ada", {}, False),
    ],
)
def test_answers_are_read(text, expected, formed):
    assert read(text, TYPES) == expected
    assert well_formed(text, TYPES) is formed


def test_what_is_written_is_read():
    names = [("PER", "Ada"), ("LOC", "Rome"), ("PER", "Ada")]
    assert answer(names) == "PER: Ada; LOC: Rome; PER: Ada"
    assert read(answer(names), TYPES) == Counter(names)
    assert answer([]) == "none" and read("none", TYPES) == {}


def test_counts_by_hand():
    """Right {Ada, Ada, Bo; Rome}, said {Ada, Cy; Rome}: of people one of two said and of three right."""
    expected = Counter({("PER", "Ada"): 2, ("PER", "Bo"): 1, ("LOC", "Rome"): 1})
    predicted = Counter({("PER", "Ada"): 1, ("PER", "Cy"): 1, ("LOC", "Rome"): 1})
    assert counts([expected], [predicted], ["PER"]).tolist() == [[1, 2, 3]]
    assert counts([expected], [predicted], TYPES).tolist() == [[2, 3, 4]]
    assert counts([expected], [expected], ["PER"]).tolist() == [[3, 3, 3]]  # Ada counts twice
    assert counts([expected], [predicted], ["ORG"]).tolist() == [[0, 0, 0]]
    wrong_type = Counter({("ORG", "Ada"): 1})
    assert counts([expected, expected], [predicted, wrong_type], TYPES).tolist() == [[2, 3, 4], [0, 1, 4]]
    with pytest.raises(InputError, match="1 right answers and 0 given"):
        counts([expected], [], TYPES)


def test_beside_seqeval():
    """Where no name stands twice in a sentence, agreement by mention is agreement by place."""
    metrics = pytest.importorskip("seqeval.metrics")
    rng = np.random.default_rng(0)
    true_tags, predicted_tags = [], []
    for _ in range(60):
        n = int(rng.integers(1, 15))
        for out in (true_tags, predicted_tags):
            tags, i = [], 0
            while i < n:
                kind, k = rng.choice([*TYPES, "O", "O", "O"]), int(rng.integers(1, 3))
                k = min(k, n - i)
                tags += ["O"] * k if kind == "O" else [f"B-{kind}"] + [f"I-{kind}"] * (k - 1)
                i += k
            out.append(tags)
        if rng.random() < 0.7:
            predicted_tags[-1] = [t if rng.random() < 0.9 else "O" for t in true_tags[-1]]
            predicted_tags[-1] = [  # as seqeval reads it: an I- after O begins a name
                f"B-{t[2:]}" if t[0] == "I" and (i == 0 or predicted_tags[-1][i - 1][2:] != t[2:]) else t
                for i, t in enumerate(predicted_tags[-1])
            ]
    words = [[f"w{i}" for i in range(len(t))] for t in true_tags]  # all different, so no name stands twice
    expected = [Counter(entities(w, t)) for w, t in zip(words, true_tags, strict=True)]
    predicted = [read(answer(entities(w, t)), TYPES) for w, t in zip(words, predicted_tags, strict=True)]
    report = metrics.classification_report(true_tags, predicted_tags, output_dict=True, zero_division=0)
    for name, types in {**{t: [t] for t in TYPES}, "micro avg": TYPES}.items():
        tp, n_predicted, n_expected = counts(expected, predicted, types).sum(0)
        theirs = report[name]
        assert (tp / n_predicted, tp / n_expected) == pytest.approx((theirs["precision"], theirs["recall"]))
        assert 2 * tp / (n_predicted + n_expected) == pytest.approx(theirs["f1-score"])
        assert n_expected == theirs["support"] and 0 < tp < n_expected


def test_valid_wants_a_letter_and_a_names_length():
    assert valid("LOC: Rome; PER: Ada", "PER")
    assert not valid("PER: 123; PER: ...", "PER")
    assert valid("PER: 李白", "PER")
    assert valid("PER: " + "la " * 10, "PER") and not valid("PER: " + "la " * 11, "PER")


def test_an_unknown_type_is_an_error():
    with pytest.raises(InputError, match="no entity type 'person'"):
        valid("PER: Ada", "person")
