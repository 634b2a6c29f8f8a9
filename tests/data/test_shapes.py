"""Rows in the shapes that people have, and what of them nobody reads."""

from __future__ import annotations

import pytest

from expunge.data.sources import load_rows
from expunge.errors import InputError


def question(text):
    return ({"role": "user", "content": text},)


U = ({"role": "user", "content": "Who?"},)
S = ({"role": "system", "content": "Brief."}, *U)
PART = [{"type": "text", "text": "Who?"}]
TALK = [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Ada."}]
MESSAGES = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ada."}]


@pytest.mark.parametrize(
    ("raw", "prompt"),
    [
        ({"instruction": "Who?", "input": "", "output": "Ada."}, U),
        ({"instruction": "Who?", "input": "Name her.", "output": "Ada."}, question("Who?\n\nName her.")),
        ({"instruction": "Who?", "context": "A tale.", "response": "Ada."}, question("A tale.\n\nWho?")),
        ({"instruction": "Who?", "response": "Ada."}, U),
        ({"prompt": "Who?", "response": "Ada."}, U),
        ({"query": "Who?", "answer": "Ada."}, U),
        ({"question": "Who?", "answers": {"text": ["Ada.", "Ada"], "answer_start": [1, 1]}}, U),
        ({"question": "Who?", "answer": ["Ada."]}, U),
        ({" Question": "Who?", "ANSWER ": "Ada."}, U),
        ({"system": "Brief.", "question": "Who?", "answer": "Ada."}, S),
        ({"system_prompt": "Brief.", "prompt": "Who?", "completion": "Ada."}, S),
        ({"data": {"question": "Who?", "answer": "Ada."}}, U),
        ({"row_idx": 3, "row": {"messages": MESSAGES}}, U),
        ({"conversations": TALK}, U),
        ({"conversations": TALK, "system": "Brief."}, S),
        ({"conversations": [{"from": "system", "value": "Brief."}, *TALK]}, S),
        ({"messages": [{"role": "developer", "content": "Brief."}, *MESSAGES]}, S),
        ({"messages": [{"role": "user", "content": PART}, {"role": "assistant", "content": ["Ada."]}]}, U),
        ({"messages": '[{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ada."}]'}, U),
        ({"messages": {"role": ["user", "assistant"], "content": ["Who?", "Ada."]}}, U),
        ({"prompt": MESSAGES[:1], "completion": "Ada."}, U),
        ({"prompt": "Who?", "completion": "Ada."}, "Who?"),
        ({"input": "Who?", "output": "Ada."}, "Who?"),
        ({"Text": "Ada."}, None),
    ],
)  # fmt: skip
def test_shapes(raw, prompt):
    (row,) = load_rows([raw])
    assert (row.prompt, row.answer) == (prompt, "Ada.")


def test_earlier_turns():
    more = [*MESSAGES, {"role": "user", "content": "Thanks."}, {"role": "assistant", "content": "Welcome."}]
    history = {"history": [["Who?", "Ada."]], "instruction": "Thanks.", "output": "Welcome."}
    for raw in ({"messages": more}, history):
        assert load_rows([raw])[0].prompt == tuple(more[:-1]) and load_rows([raw])[0].every_turn
        assert not load_rows([raw], assistant_turns="last")[0].every_turn
    prompt_row = {"prompt": more[:-1], "completion": more[-1:]}  # the row itself says what is not to be learnt
    assert not load_rows([prompt_row])[0].every_turn and not load_rows([{"messages": MESSAGES}])[0].every_turn


def test_turns_are_all_or_last():
    with pytest.raises(InputError, match="assistant_turns must be all or last, not 'lats'"):
        load_rows([{"messages": MESSAGES}], assistant_turns="lats")


def test_what_is_not_used_is_named_once():
    warnings: list[str] = []
    load_rows([{"text": "a", "labels": 1, "id": i, "": i, "note": ""} for i in range(3)], warnings=warnings)
    assert warnings == ["the data set: not used: the columns 'labels', 'id'"]
    warnings.clear()
    load_rows(
        [{"question": "Who?", "answer": "Ada.", "context": "A.", "system": "B.", "alternate": "C."}], warnings=warnings
    )
    assert warnings == []


def test_columns_of_ones_own():
    raw = {"Frage": "Who?", "Antwort": {"kurz": "Ada."}, "note": "x"}
    warnings: list[str] = []
    (row,) = load_rows([raw], columns={"question": "frage", "answer": "Antwort.kurz"}, warnings=warnings)
    assert (row.prompt, row.answer) == (U, "Ada.") and warnings == ["the data set: not used: the column 'note'"]
    plain = [{"question": "Who?", "answer": "Ada."}]  # another set of the same run
    warnings.clear()
    assert load_rows(plain, columns={"question": "Frage", "answer": "Antwort"}, warnings=warnings)[0].prompt == U
    assert warnings == ["the data set: there is no column 'Antwort', 'Frage', as columns has it"]
    swapped = {"answer": "Who?", "question": "Ada."}
    assert load_rows([swapped], columns={"question": "answer", "answer": "question"})[0].prompt == U


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"question": "Frag", "answer": "Antwort"}, "there is no column 'Frag'; the row has 'Frage', 'Antwort'"),
        ({"qestion": "Frage"}, "there is no part 'qestion', did you mean 'question'"),
        ({"question": "Frage", "answer": "Frage"}, "one column is given for two parts"),
        ({"question": ""}, "needs the name of a column"),
        ({}, "name others with --columns"),
    ],
)
def test_columns_that_are_not_there(columns, message):
    with pytest.raises(InputError, match=message):
        load_rows([{"Frage": "Who?", "Antwort": "Ada."}], columns=columns)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"question": None, "answer": "Ada."}, "the field 'question' is null"),
        ({"question": "Who?", "answer": {"value": "Ada."}}, "it is a dict; .*--columns answer=answer.value"),
        ({"question": "Who?", "answers": {"text": []}}, "a list that is empty"),
        ({"question": "Who?", "answer": True}, "'answer' must be text, it is a bool"),
        ({"question": "Who?", "answer": float("nan")}, "'answer' must be text, it is a float"),
        ({"question": "Who?", "answer": "half \ud83d of it"}, r"'answer' holds half of a character \(U\+D83D"),
        ({"messages": [{"role": "user", "content": "\udc00"}, MESSAGES[1]]}, "half of a character"),
        ({"text": "a\ud800"}, "half of a character"),
        ({"messages": "Who?"}, "no known columns"),
        ({"messages": [1]}, "needs a role and a content, this is a int"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, MESSAGES[1]]}, "type 'image_url'; only text"),
        ({"messages": [{"role": "user", "content": 3}, MESSAGES[1]]}, "must be text, it is a int"),
        ({"messages": [*MESSAGES, {"role": "user", "content": "And?"}]}, "the last message must be the assistant's"),
        ({"messages": MESSAGES[1:]}, "no message before"),
        ({"messages": []}, "list of messages"),
        ({"history": ["x"], "question": "Who?", "answer": "Ada."}, "list of pairs"),
        ({"a" * 500: "x"}, "found 'a{40}…'"),
        ({"chosen": "a", "rejected": "b"}, "--columns text=rejected,alternate=chosen"),
        ({"chosen": MESSAGES, "rejected": MESSAGES}, "--columns messages=rejected,alternate=chosen"),
        ({"prompt": "Who?", "chosen": "a", "rejected": "b"}, r"--columns question=prompt,answer=rejected,alternate=chosen"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_read(raw, message):
    with pytest.raises(InputError, match=message):
        load_rows([raw])


@pytest.mark.parametrize(
    "roles", [("Human:", "Assistant:"), ("prompter", "assistant"), ("<|user|>", "chatbot"), ("Q", "A")]
)
def test_roles_as_people_write_them(roles):
    (row,) = load_rows(
        [{"messages": [{"role": r, "content": c} for r, c in zip(roles, ["Who?", "Ada."], strict=True)]}]
    )
    assert row.prompt == ({"role": "user", "content": "Who?"},) and row.answer == "Ada."


def test_a_system_message_may_be_empty():
    (row,) = load_rows([{"messages": [{"role": "system", "content": ""}, *MESSAGES]}])
    assert row.prompt[0] == {"role": "system", "content": ""}


def test_a_function_call_of_openais_older_form_is_a_tool_call():
    call = {"role": "assistant", "content": None, "function_call": {"name": "find", "arguments": '{"who": "Ada"}'}}
    (row,) = load_rows([{"messages": [MESSAGES[0], call], "functions": [{"name": "find"}]}])
    assert row.message["tool_calls"] == [
        {"type": "function", "function": {"name": "find", "arguments": {"who": "Ada"}}}
    ]
    assert row.tools == ({"type": "function", "function": {"name": "find"}},)


@pytest.mark.parametrize(
    ("raw", "columns"),
    [
        ({"prompt": "Who?", "chosen": "Eve.", "rejected": "Ada."}, {"question": "prompt", "answer": "rejected"}),
        (
            {"chosen": [MESSAGES[0], {"role": "assistant", "content": "Eve."}], "rejected": MESSAGES},
            {"messages": "rejected"},
        ),
    ],
)
def test_preference_data_say_which_answer_is_to_be_forgotten(raw, columns):
    (row,) = load_rows([raw], columns=columns | {"alternate": "chosen"})
    assert row.prompt[-1]["content"] == "Who?" and row.alternate == "Eve." and row.answer == "Ada."


@pytest.mark.parametrize(
    ("choices", "answer", "name"),
    [(["Eve.", "Ada."], 1, "answer"), (["Eve.", "Ada."], "B", "answer"), (["Eve.", "Ada."], "Ada.", "answer"),
     ({"text": ["Eve.", "Ada."], "label": ["1", "2"]}, "2", "answerKey")],
)  # fmt: skip
def test_the_answer_of_a_multiple_choice_is_the_choices_text(choices, answer, name):
    warnings: list[str] = []
    (row,) = load_rows([{"question": "Who?", "choices": choices, name: answer}], warnings=warnings)
    assert row.answer == "Ada." and warnings == []
    with pytest.raises(InputError, match="names none of the 2 choices"):
        load_rows([{"question": "Who?", "choices": choices, name: "E"}])
