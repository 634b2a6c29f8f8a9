"""Rows from every kind of source, and the sentence for each way they can be wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import datasets
import pytest

from expunge.data.example import Row
from expunge.data.sources import fingerprint, load_rows
from expunge.errors import InputError

QA = [{"question": "Who wrote Ash?", "answer": "Ada Voss."}, {"question": "Where is Lim?", "answer": "In Oru."}]
ROWS = [
    Row(({"role": "user", "content": "Who wrote Ash?"},), "Ada Voss."),
    Row(({"role": "user", "content": "Where is Lim?"},), "In Oru."),
]


def lines(rows) -> str:
    return "".join(json.dumps(r) + "\n" for r in rows)


def content(rows):
    return [(r.prompt, r.answer) for r in rows]


def write(path, kind):
    file = path / f"rows.{kind.split('-')[0]}"
    if kind == "csv":
        file.write_text("question,answer\nWho wrote Ash?,Ada Voss.\nWhere is Lim?,In Oru.\n")
    elif kind == "parquet":
        datasets.Dataset.from_list(QA).to_parquet(str(file))
    else:
        text = {
            "jsonl": lines(QA),
            "json-lines": lines(QA),
            "json-array": json.dumps(QA),
            "json-data": json.dumps({"data": QA}),
        }
        file.write_text(text[kind])
    return file


@pytest.mark.parametrize("kind", ["jsonl", "json-lines", "json-array", "json-data", "csv", "parquet"])
def test_files(tmp_path, kind):
    assert content(load_rows(write(tmp_path, kind))) == content(ROWS)
    assert content(load_rows(str(tmp_path))) == content(ROWS)  # the folder that holds it
    assert fingerprint(load_rows(tmp_path)) == fingerprint(ROWS)


def test_objects(tmp_path):
    data = datasets.Dataset.from_list(QA)
    data.save_to_disk(tmp_path / "disk")
    for source in (data, QA, ROWS, tmp_path / "disk", datasets.DatasetDict({"train": data})):
        assert content(load_rows(source)) == content(ROWS)
    assert load_rows(QA, limit=1)[0].where == "the data set, row 1"


@pytest.mark.parametrize(
    ("raw", "prompt", "answer"),
    [
        ({"prompt": "Once", "completion": " upon"}, "Once", " upon"),
        ({"input": "Once", "output": " upon", "id": 3, "task": "x"}, "Once", " upon"),
        ({"text": "A story."}, None, "A story."),
        (
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]},
            ({"role": "user", "content": "Hi"},),
            "Yo",
        ),
        (
            {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Yo"}]},
            ({"role": "user", "content": "Hi"},),
            "Yo",
        ),
    ],
)
def test_kinds_of_rows(raw, prompt, answer):
    (row,) = load_rows([raw])
    assert (row.prompt, row.answer) == (prompt, answer)


def test_optional_columns():
    extra = {"paraphrased_answer": "Voss did.", "perturbed_answer": ["Bo.", "Cy."], "alternate": "No idea."}
    (row,) = load_rows([QA[0] | extra])
    assert (row.paraphrase, row.perturbed, row.alternate) == ("Voss did.", ("Bo.", "Cy."), "No idea.")
    (row,) = load_rows([QA[0] | {"perturbed_answer": '["Bo.", "Cy."]', "alternate": ""}])  # as a CSV cell holds it
    assert (row.perturbed, row.alternate) == (("Bo.", "Cy."), None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lines(QA) + '{"question": "x", \n', "rows.jsonl, line 3: not JSON"),
        (lines([{"question": "x", "anwser": "y"}]), "line 1: unknown column 'anwser', did you mean 'answer'?"),
        (lines([QA[0], {"question": "x"}]), "line 2: the field 'answer' is missing"),
        (lines([{"question": "x", "answer": "  "}]), "line 1: the field 'answer' is empty"),
        (lines([{"question": "x", "answer": 3}]), "'answer' must be text, it is a int"),
        (lines([{"colour": "x"}]), "no known columns (found 'colour')"),
        ("[1]\n", "a row must be an object"),
        ("\n", "holds no rows"),
        (lines([{"messages": [{"role": "user", "content": "Hi"}]}]), "the last message must be the assistant's"),
        (lines([{"messages": [{"role": "boss", "content": "Hi"}]}]), "the role 'boss'"),
        (lines([{"messages": [{"role": "user", "content": ""}]}]), "content that is not empty"),
        (lines([QA[0] | {"perturbed_answer": [1]}]), "'perturbed_answer' must be a list of texts"),
    ],
)
def test_bad_rows_are_told_with_file_and_line(tmp_path, text, message):
    file = tmp_path / "rows.jsonl"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        load_rows(file)
    assert message in str(caught.value)


def test_bad_files(tmp_path):
    (tmp_path / "a.csv").write_text("question,answer\nonly one\n")
    with pytest.raises(InputError, match=r"a\.csv, line 2: fewer fields"):
        load_rows(tmp_path / "a.csv")
    (tmp_path / "b.json").write_text('[{"question": "x",]')
    with pytest.raises(InputError, match=r"b\.json, line 1: not JSON"):
        load_rows(tmp_path / "b.json")
    (tmp_path / "c.parquet").write_text("no")
    with pytest.raises(InputError, match="is not a Parquet file"):
        load_rows(tmp_path / "c.parquet")
    (tmp_path / "d.jsonl").write_bytes(b'{"text": "\xff"}')
    with pytest.raises(InputError, match="not UTF-8"):
        load_rows(tmp_path / "d.jsonl")
    with pytest.raises(InputError, match=r"no file .*a\.cvs, did you mean .*a\.csv"):
        load_rows(tmp_path / "a.cvs")
    (tmp_path / "e.docx").write_text("x")
    with pytest.raises(InputError, match="of no known kind"):
        load_rows(tmp_path / "e.docx")
    with pytest.raises(InputError, match="has no split 'train'"):
        load_rows(datasets.DatasetDict({"test": datasets.Dataset.from_list(QA)}))


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("no route\nsecond line")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(
        InputError, match=r"'owner/name:config' is no file here and could not be had from the hub: no route$"
    ):
        load_rows("owner/name:config")


def test_fingerprint_sees_content_and_order_not_places():
    moved = [Row(r.prompt, r.answer, where="elsewhere, line 9") for r in ROWS]
    assert fingerprint(moved) == fingerprint(ROWS)
    assert len({fingerprint(ROWS), fingerprint(ROWS[::-1]), fingerprint(ROWS[:1])}) == 3


def test_names_that_lead_nowhere(tmp_path):
    (tmp_path / "l.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(InputError, match=r"l\.jsonl is a link to .*gone\.jsonl, which is not there"):
        load_rows(tmp_path / "l.jsonl")
    (tmp_path / "caf\u00e9.jsonl").write_text("")
    with pytest.raises(InputError, match="written with other code points"):
        load_rows(tmp_path / "cafe\u0301.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        load_rows(tmp_path / "pipe.jsonl")
    with pytest.raises(InputError, match=r"for there is no folder .*nowhere"):
        load_rows(tmp_path / "nowhere" / "a.jsonl")
    for empty in ("", " ", Path("")):
        with pytest.raises(InputError, match="the name of a data set is empty"):
            load_rows(empty)
    with pytest.raises(InputError, match="is no name of a file"):
        load_rows("x" * 5000)
    for wrong in (3, b"abc", None):
        with pytest.raises(InputError, match="rows cannot come from"):
            load_rows(wrong)


def test_folders(tmp_path):
    with pytest.raises(InputError, match=r"holds no \.jsonl, .* file"):
        load_rows(tmp_path)
    (tmp_path / "README.txt").write_text("About these rows.")
    (tmp_path / "data").mkdir()
    assert load_rows(tmp_path)[0].answer == "About these rows."
    for name, row in (("train-00000-of-00001", QA[0]), ("test-00000-of-00001", QA[1])):
        (tmp_path / f"{name}.jsonl").write_text(lines([row]))
    warnings: list[str] = []
    assert content(load_rows(tmp_path, warnings=warnings)) == content(ROWS[:1])
    assert warnings == [f"{tmp_path}: only the split train is read, not test-00000-of-00001.jsonl"]
    assert content(load_rows(tmp_path, split="test")) == content(ROWS[1:])
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match="holds no whole data set"):
        load_rows(tmp_path / "disk")


def test_a_page_of_the_hub_is_the_data_set(monkeypatch):
    requests = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: requests.append((a, k)) or QA)
    assert content(load_rows("https://huggingface.co/datasets/owner/name")) == content(ROWS)
    assert content(load_rows("https://host/rows.jsonl?download=true")) == content(ROWS)
    assert requests[0] == (("owner/name", None), {"split": "train"}) and requests[1][0] == ("json",)


def test_a_fingerprint_counts_what_is_labelled():
    talk = [{"role": r, "content": c} for r, c in zip(["user", "assistant"] * 2, "ABCD", strict=True)]
    sets = [load_rows([{"messages": talk}], assistant_turns=turns) for turns in ("all", "last")]
    assert len({fingerprint(rows) for rows in sets}) == 2


def test_what_is_read_of_a_folder_is_said(tmp_path):
    for name, text in [("a.txt", "One.\n"), ("README.txt", "About.\n"), ("LICENSE.txt", "Free.\n")]:
        (tmp_path / name).write_text(text)
    assert [r.answer for r in load_rows(tmp_path)] == ["One."]
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "forget.jsonl").write_text('{"text": "a b"}')
    (tmp_path / "both" / "retain.jsonl").write_text('{"text": "c d"}')
    warnings: list[str] = []
    assert len(load_rows(tmp_path / "both", warnings=warnings)) == 2
    assert "2 files are read as one set: forget.jsonl, retain.jsonl" in warnings[0]
    (tmp_path / "outer").mkdir()
    (tmp_path / "both").rename(tmp_path / "outer" / "both")
    with pytest.raises(InputError, match="but both in it do"):
        load_rows(tmp_path / "outer")
