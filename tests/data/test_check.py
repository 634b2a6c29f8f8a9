"""What is refused and what is remarked on before a model is loaded; no message holds a row's text."""

from __future__ import annotations

import pytest

from expunge.data.check import check
from expunge.data.sources import load_rows
from expunge.errors import InputError


def rows(*pairs, name="set"):
    loaded = load_rows([{"question": q, "answer": a} for q, a in pairs])
    return [type(r)(r.prompt, r.answer, where=f"{name}, line {i}") for i, r in enumerate(loaded, 1)]


FORGET = rows(("Secret?", "Hidden."), ("Other?", "Thing."), name="forget.jsonl")
RETAIN = rows(("A?", "B."), ("C?", "D."), ("E?", "F."), name="retain.jsonl")


def test_clean_sets_pass_without_a_word(tokenizer):
    assert check(FORGET, RETAIN, tokenizer=tokenizer, max_length=100) == []


def test_overlap_is_named_by_place_whatever_case_and_space():
    both = [*RETAIN, *rows((" secret?", "HIDDEN. "), name="more.jsonl")]
    with pytest.raises(InputError) as caught:
        check(FORGET, both)
    assert "1 forget row(s)" in str(caught.value) and "forget.jsonl, line 1 is more.jsonl, line 1" in str(caught.value)
    assert "hidden" not in str(caught.value).lower() and "secret" not in str(caught.value).lower()


@pytest.mark.parametrize(("forget", "retain", "name"), [([], RETAIN, "forget"), (FORGET, [], "retain")])
def test_empty_sets(forget, retain, name):
    with pytest.raises(InputError, match=f"the {name} set is empty"):
        check(forget, retain)


def test_warnings():
    assert check([FORGET[0], FORGET[0]], None) == ["1 row(s) of the forget set stand there more than once"]
    (smaller,) = check(FORGET, RETAIN[:1])
    assert "smaller than the forget set (2)" in smaller
    (warning,) = check(FORGET, [*RETAIN, *rows(("Secret?", "Else."))])
    assert "1 forget question(s) are also asked" in warning and "forget.jsonl, line 1" in warning


def test_truncation(tokenizer):
    # "<|user|>Secret?<|end|>\n<|assistant|>" is 1 + 7 + 1 + 1 + 1 = 11 tokens, "Hidden.<|end|>" 8 more
    with pytest.raises(InputError, match=r"forget.jsonl, line 1: the prompt alone fills 11 tokens, so max_length=11"):
        check(FORGET, RETAIN, tokenizer=tokenizer, max_length=11)
    (cut,) = check(FORGET[:1], RETAIN, tokenizer=tokenizer, max_length=18)
    assert "1 answer(s) of the forget set are cut at max_length=18" in cut
    assert check(FORGET[:1], RETAIN, tokenizer=tokenizer, max_length=19) == []


def test_a_text_of_one_token_cannot_be_scored(tokenizer):
    with pytest.raises(InputError, match="at least two tokens"):
        check(load_rows([{"text": "x"}]), None, tokenizer=tokenizer, max_length=9)
