"""The annotation format: what is written is read back, and what a model makes of it is read as far as it can be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge.errors import InputError
from expunge.scorers.entities import TYPES, parse, valid, write


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PER: John Smith; LOC: Paris", [("PER", "John Smith"), ("LOC", "Paris")]),
        ("PER: John Smith\nLOC: Paris\n", [("PER", "John Smith"), ("LOC", "Paris")]),
        ("  per :John   Smith ;; LOC:Paris. ", [("PER", "John Smith"), ("LOC", "Paris")]),
        ("- PER: Ada\n* ORG: Acme\n3. MISC: Nobel Prize", [("PER", "Ada"), ("ORG", "Acme"), ("MISC", "Nobel Prize")]),
        ("1. per: Ada\n2) loc: Rome\n• Org: Acme", [("PER", "Ada"), ("LOC", "Rome"), ("ORG", "Acme")]),
        ("PER: Ada, LOC: Paris", [("PER", "Ada"), ("LOC", "Paris")]),
        ("PER: Ada LOC: Paris", [("PER", "Ada"), ("LOC", "Paris")]),
        ("PER: Smith, John", [("PER", "Smith, John")]),
        ("MISC: Star Wars: A New Hope", [("MISC", "Star Wars: A New Hope")]),
        ("The entities are: PER: Ada", [("PER", "Ada")]),
        ("PER: Ada; PER: Ada", [("PER", "Ada"), ("PER", "Ada")]),
        ("FRUIT: apple; PERSON: Ada; LOC: Rome", [("LOC", "Rome")]),
        ("PER: ; LOC:", []),
        ("PER: none; LOC: None.", []),
        ("none", []),
        ("None.", []),
        ("", []),
        ("John Smith went to Paris.", []),
        ("PER: PER: PER:", []),
        ("ORG: Yahoo!; LOC: U.S.", [("ORG", "Yahoo!"), ("LOC", "U.S")]),
    ],
)
def test_responses_by_hand(text, expected):
    assert parse(text) == expected


names = st.text("abcXYZäé -:,'", min_size=1).filter(lambda s: any(map(str.isalpha, s)) and s.lower() != "none")


@given(st.lists(st.tuples(st.sampled_from(TYPES), names), max_size=4))
def test_what_is_written_is_read_back(entities):
    assert parse(write(entities)) == [(kind, " ".join(name.split())) for kind, name in entities]


@pytest.mark.parametrize("mention", ["", "  ", "none", "a;b", "a\nb", "Ada PER: Bo", "."])
def test_a_mention_that_cannot_be_written_is_an_error(mention):
    with pytest.raises(InputError, match="type PER"):
        write([("PER", mention)])


def test_an_unknown_type_is_an_error():
    with pytest.raises(InputError, match="no entity type 'PERSON'"):
        write([("PERSON", "Ada")])
    with pytest.raises(InputError, match="no entity type 'person'"):
        valid("PER: Ada", "person")


def test_valid_wants_a_letter_and_a_names_length():
    assert valid("LOC: Rome; PER: Ada", "PER")
    assert not valid("PER: 123; PER: ...", "PER")
    assert valid("PER: 李白", "PER")
