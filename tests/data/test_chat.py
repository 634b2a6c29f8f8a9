"""Rows through the tokenizer: what is labelled, and what is not."""

from __future__ import annotations

import pytest

from expunge.data.chat import continuation, encode, end_of_turn, prompt_ids, prompt_text, question, split_prompt
from expunge.data.example import Row
from expunge.data.sources import load_rows
from expunge.errors import InputError

QA = load_rows([{"question": "Hi?", "answer": "Yo."}])[0]


def decoded(tokenizer, example):
    """(what is not labelled, what is)."""
    hidden = [i for i, y in zip(example.input_ids, example.labels, strict=True) if y == -100]
    scored = [y for y in example.labels if y != -100]
    assert all(y in (-100, i) for i, y in zip(example.input_ids, example.labels, strict=True))
    return tokenizer.decode(hidden), tokenizer.decode(scored)


def test_chat_rows_label_answer_and_end_of_turn(tokenizer):
    assert decoded(tokenizer, encode(QA, tokenizer)) == ("<|user|>Hi?<|end|>\n<|assistant|>", "Yo.<|end|>")
    assert end_of_turn(QA, tokenizer) == "<|end|>"
    assert prompt_text(QA, tokenizer) == "<|user|>Hi?<|end|>\n<|assistant|>"


def test_another_answer(tokenizer):
    assert decoded(tokenizer, encode(QA, tokenizer, answer="No."))[1] == "No.<|end|>"


def test_prompt_and_completion(tokenizer):
    row = load_rows([{"prompt": "Once", "completion": " upon"}])[0]
    assert decoded(tokenizer, encode(row, tokenizer)) == ("Once", " upon<|end|>")


def test_text_is_labelled_whole_without_an_end(tokenizer):
    row = load_rows([{"text": "A tale."}])[0]
    assert decoded(tokenizer, encode(row, tokenizer)) == ("", "A tale.")


def test_truncation_cuts_on_the_right(tokenizer):
    whole = encode(QA, tokenizer)
    cut = encode(QA, tokenizer, max_length=len(whole.input_ids) - 2)
    assert cut.input_ids == whole.input_ids[:-2] and cut.labels == whole.labels[:-2]


def test_a_conversation_of_several_turns(tokenizer):
    messages = [
        {"role": r, "content": c} for r, c in [("system", "S"), ("user", "A"), ("assistant", "B"), ("user", "C")]
    ]
    row = load_rows([{"messages": [*messages, {"role": "assistant", "content": "D"}]}])[0]
    before, scored = decoded(tokenizer, encode(row, tokenizer))
    assert scored == "B<|end|>D<|end|>" and "C<|end|>" in before
    assert question(row) == "C"
    (row,) = load_rows([{"messages": [*messages, {"role": "assistant", "content": "D"}]}], assistant_turns="last")
    before, scored = decoded(tokenizer, encode(row, tokenizer))
    assert scored == "D<|end|>" and "B<|end|>" in before


def test_a_tokenizer_without_offsets_labels_the_same_turns(tokenizer):
    class Slow:
        is_fast = False

        def __call__(self, text, *, return_offsets_mapping=False, **how):
            assert not return_offsets_mapping
            return tokenizer(text, **how)

        def __getattr__(self, name):
            return getattr(tokenizer, name)

    turns = [("system", "S"), ("user", "A"), ("assistant", "B"), ("user", "C"), ("assistant", "D")]
    (row,) = load_rows([{"messages": [{"role": r, "content": c} for r, c in turns]}])
    for chat in (True, False):
        assert encode(row, Slow(), chat_template=chat) == encode(row, tokenizer, chat_template=chat)
    assert decoded(tokenizer, encode(row, Slow()))[1] == "B<|end|>D<|end|>"


def test_no_chat_template(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="chat_template=false"):
        encode(QA, tokenizer)
    assert decoded(tokenizer, encode(QA, tokenizer, chat_template=False)) == ("Question: Hi?\nAnswer: ", "Yo.<|end|>")


def test_a_template_that_hides_the_answer(tokenizer):
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(InputError, match="does not show the assistant's answer"):
        encode(QA, tokenizer)


def test_a_template_that_refuses(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('only one system message') }}"
    with pytest.raises(InputError, match="refuses the row"):
        encode(QA, tokenizer)


def test_a_prompts_tokens_are_where_its_example_begins(tokenizer):
    for row in (QA, Row("Once upon", " a time", where="x")):
        ids = prompt_ids(row, tokenizer)
        assert encode(row, tokenizer).input_ids[: len(ids)] == tuple(ids)
        assert set(encode(row, tokenizer).labels[: len(ids)]) == {-100}


def test_a_text_is_continued_from_its_middle():
    row = split_prompt(Row(None, "one two three four five"))
    assert (row.prompt, row.answer) == ("one two", "three four five") and split_prompt(QA) is QA


def test_a_prompt_that_begins_the_answer(tokenizer):
    row = Row((*QA.prompt, {"role": "assistant", "content": "Answer:"}), " Yo.", where="x")
    begun = "<|user|>Hi?<|end|>\n<|assistant|>Answer:"
    assert prompt_text(row, tokenizer) == begun and question(row) == "Hi?"
    assert decoded(tokenizer, encode(row, tokenizer)) == (begun, " Yo.<|end|>")
    assert prompt_text(row, tokenizer, chat_template=False) == "Question: Hi?\nAnswer:"
    sure = Row((*QA.prompt, {"role": "assistant", "content": "Sure:"}), " Yo.", where="x")
    assert prompt_text(sure, tokenizer, chat_template=False) == "Question: Hi?\nAnswer: Sure:"


def test_a_continuation_is_tokenised_with_its_prompt_but_a_chat_answer_apart(tokenizer):
    tokenizer.backend_tokenizer.pre_tokenizer.add_prefix_space = True  # a text on its own begins with a blank
    row = Row("Once upon a ", "time", where="x")
    example = continuation(row, tokenizer, answer="time")
    assert tokenizer.decode(example.input_ids) == " Once upon a time"
    assert tokenizer.decode([y for y in example.labels if y != -100]) == "time"
    apart = continuation(QA, tokenizer, answer="time")
    assert tokenizer.decode([y for y in apart.labels if y != -100]) == " time"
