"""Long texts in pieces: every token is labelled once, whatever the tokenizer."""

from __future__ import annotations

import doctest

import pytest
import tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from expunge.data import pieces
from expunge.data.chat import encode
from expunge.data.example import Row

TEXT = " ".join(f"Chapter {i}: the kéeper of lamp {i} wrote 漢字 and 🦉 {13 * i}." for i in range(40))


def with_a_first_token():
    tokenizer = tiny_tokenizer.make()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A <|end|>", special_tokens=[("<|bos|>", 4), ("<|end|>", 0)]
    )
    return tokenizer


def words():
    """A tokenizer of a few merged words, whose blanks belong to the word after them, and are left out of its offsets."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "t"), ("Ġt", "h"), ("Ġth", "e"), ("l", "a"), ("la", "m"), ("lam", "p"), ("Ġ", "lamp")]
    vocabulary = {s: i for i, s in enumerate(["<|end|>", *alphabet, *(a + b for a, b in merges)])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.ByteLevel(trim_offsets=True)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>")


@pytest.mark.parametrize("make", [tiny_tokenizer.make, with_a_first_token, words])
@pytest.mark.parametrize("max_length", [16, 100, 512])
def test_every_token_is_labelled_once_and_in_order(make, max_length):
    tokenizer = make()
    whole = tokenizer(TEXT).input_ids
    cut = pieces.cut(Row(None, TEXT), tokenizer, max_length)
    examples = [encode(r, tokenizer, max_length=max_length) for r in cut]
    assert len(cut) > 2 and all(len(e.input_ids) <= max_length for e in examples)
    assert [y for e in examples for y in e.labels if y != -100] == whole
    for example in examples[1:]:
        context = sum(y == -100 for y in example.labels)
        assert context >= max_length // 8 and set(example.labels[:context]) == {-100}  # all of it at the beginning
        assert example.input_ids[0] == whole[0] or make is not with_a_first_token
    assert all(y in (-100, t) for e in examples for t, y in zip(e.input_ids, e.labels, strict=True))


def test_a_short_text_and_a_question_stay_as_they_are(tokenizer):
    row, question = Row(None, "short"), Row("Once", TEXT)
    assert pieces.cut(row, tokenizer, 16) == [row] and pieces.cut(question, tokenizer, 16) == [question]


def test_a_tokenizer_without_offsets_gets_parts_of_the_text(tokenizer):
    class Slow:
        is_fast = False

        def __call__(self, text, **how):
            return tokenizer(text, **how)

    cut = pieces.cut(Row(None, TEXT), Slow(), 100)
    assert "".join(r.answer for r in cut) == TEXT
    assert all(len(tokenizer(r.answer).input_ids) <= 100 for r in cut)


def test_another_answer_of_a_piece_is_encoded_whole(tokenizer):
    piece = pieces.cut(Row(None, TEXT), tokenizer, 100)[1]
    assert tokenizer.decode(encode(piece, tokenizer, answer="Other.").input_ids) == "Other."


def test_doctests():
    assert doctest.testmod(pieces).attempted == 1 and not doctest.testmod(pieces).failed


@pytest.mark.parametrize("length", range(20, 40))
def test_an_end_token_is_labelled_once_wherever_the_last_cut_falls(tokenizer, length):
    end = ("<|end|>", tokenizer.convert_tokens_to_ids("<|end|>"))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|end|>", special_tokens=[end]
    )
    examples = [encode(row, tokenizer) for row in pieces.cut(Row(None, "a" * length), tokenizer, 8)]
    assert [y for e in examples for y in e.labels if y != -100] == tokenizer("a" * length).input_ids
    assert max(len(e.input_ids) for e in examples) <= 8
