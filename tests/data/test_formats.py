"""Files of every kind, whole and broken: rows, or one sentence."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sys
from types import SimpleNamespace

import datasets
import pytest

from expunge.data.sources import load_rows
from expunge.errors import InputError

QA = [{"question": "Who wrote Ash?", "answer": "Ada Voss."}, {"question": "Where is Lim?", "answer": "In Oru."}]
LINES = "".join(json.dumps(r) + "\n" for r in QA)
CSV = "question,answer\nWho wrote Ash?,Ada Voss.\nWhere is Lim?,In Oru.\n"
DEEP = "[" * 200_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("a.csv.gz", gzip.compress(CSV.encode(), mtime=0)),
        ("a.json.gz", gzip.compress(json.dumps(QA).encode(), mtime=0)),
        ("a.jsonl.bz2", bz2.compress(LINES.encode())),
        ("a.jsonl.xz", lzma.compress(LINES.encode())),
        ("a.ndjson", LINES.encode()),
        ("a.tsv", CSV.replace(",", "\t").encode()),
        ("a.csv", CSV.replace(",", ";").encode()),
        ("a.csv", CSV.replace(",", "\t").encode()),
        ("a.csv", ("sep=;\r\n" + CSV.replace(",", ";")).encode()),
        ("a.csv", b"\xef\xbb\xbf" + CSV.encode()),
        ("a.csv", CSV.encode("utf-16")),
        ("a.jsonl", LINES.encode("utf-16")),
        ("a.jsonl", b"\xef\xbb\xbf" + LINES.encode()),
        ("a.json", json.dumps(QA).encode("utf-32")),
        ("a.json", json.dumps({"version": "1", "data": QA}).encode()),
        ("a.json", json.dumps({"rows": [{"row_idx": i, "row": r} for i, r in enumerate(QA)]}).encode()),
        ("a.json", json.dumps({k: [r[k] for r in QA] for k in QA[0]}).encode()),
        ("a.json", json.dumps({k: {str(i): r[k] for i, r in enumerate(QA)} for k in QA[0]}).encode()),
        ("a.json", json.dumps([{"id": 1, "messages": [{"role": "user", "content": r["question"]},
                                 {"role": "assistant", "content": r["answer"]}]} for r in QA]).encode()),
        ("a.CSV", CSV.replace("question,answer", '" Question",ANSWER').encode()),
    ],
)  # fmt: skip
def test_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    rows = load_rows(tmp_path / name)
    assert [(r.prompt[0]["content"], r.answer) for r in rows] == [(r["question"], r["answer"]) for r in QA]


def test_a_file_of_one_conversation(tmp_path):
    messages = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ada."}]
    for value in ({"id": 1, "messages": messages}, {"messages": messages}):
        (tmp_path / "a.json").write_text(json.dumps(value))
        assert [r.answer for r in load_rows(tmp_path / "a.json")] == ["Ada."]


def test_a_large_cell(tmp_path):
    (tmp_path / "a.csv").write_text("text\n" + "a b " * 100_000 + "\n")
    assert len(load_rows(tmp_path / "a.csv")[0].answer) == 400_000


def test_lines_of_text(tmp_path):
    (tmp_path / "a.txt").write_text("One. \n\n  Two.\n")
    assert [r.answer for r in load_rows(tmp_path / "a.txt")] == ["One. ", "  Two."]
    assert [r["text"] for r in datasets.load_dataset("text", data_files=str(tmp_path / "a.txt"), cache_dir=tmp_path)["train"]
            if r["text"]] == ["One. ", "  Two."]  # fmt: skip


def test_an_arrow_file(tmp_path):
    datasets.Dataset.from_list(QA).save_to_disk(tmp_path / "disk")
    (file,) = (tmp_path / "disk").glob("*.arrow")
    assert [r.answer for r in load_rows(file)] == ["Ada Voss.", "In Oru."]


def test_objects_in_memory():
    import pandas

    frame = pandas.DataFrame([*QA, {"question": None, "answer": None}]).iloc[:2]
    for source in (frame, {k: [r[k] for r in QA] for k in QA[0]}, iter(QA)):
        assert [r.answer for r in load_rows(source)] == ["Ada Voss.", "In Oru."]
    assert [(r.prompt, r.answer) for r in load_rows(["A tale."])] == [(None, "A tale.")]


def test_a_workbook(tmp_path, monkeypatch):
    sheet = [
        ("Question", "Answer", None, "Year"),
        ("When?", 1984.0, None, 3),
        (None, None, None, None),
        ("Who?", "Ada.", 1, None),
    ]
    book = SimpleNamespace(worksheets=[SimpleNamespace(iter_rows=lambda values_only: iter(sheet))])
    monkeypatch.setitem(sys.modules, "openpyxl", SimpleNamespace(load_workbook=lambda path, **options: book))
    (tmp_path / "a.xlsx").write_bytes(b"")
    warnings: list[str] = []
    assert [(r.answer, r.where) for r in load_rows(tmp_path / "a.xlsx", warnings=warnings)] == [
        ("1984", "a.xlsx, row 2"), ("Ada.", "a.xlsx, row 4")]  # fmt: skip
    assert warnings == [f"{tmp_path / 'a.xlsx'}: not used: the column 'Year'"]
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(InputError, match=r"needs the package openpyxl: pip install 'expunge\[xlsx\]'"):
        load_rows(tmp_path / "a.xlsx")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", DEEP.encode(), "line 1: JSON nested too deeply"),
        ("a.json", DEEP.encode(), "JSON nested too deeply"),
        ("a.json", b'{"text": ' + b"1" * 5000 + b"}", "too many digits"),
        ("a.jsonl", b'{"text": ' + b"1" * 5000 + b"}", "too many digits"),
        ("a.jsonl", b'{"data":' * 900 + b"1" + b"}" * 900, "no known columns"),
        ("a.json", b"", "a.json is empty"),
        ("a.json", b"[]", "holds no rows"),
        ("a.json", b'"text"', None),
        ("a.json", b"3", "a row must be an object"),
        ("a.jsonl", b"", "holds no rows"),
        ("a.csv", b"", "holds no rows"),
        ("a.csv", b"question,answer\n", "holds no rows"),
        ("a.csv", b"text,text\na,b\n", "two columns are called 'text'"),
        ("a.csv", b"Who?,Ada.\nWhere?,Oru.\n", "no known columns"),
        ("a.csv", b'question,answer\n"open,x\n', "a.csv, line"),
        ("a.txt", b"\n\n", "holds no rows"),
        ("a.jsonl.gz", b"", "holds no rows"),
        ("a.jsonl.gz", LINES.encode(), "no whole gz file"),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-12], "no whole gz file"),
        ("a.jsonl.bz2", b"BZh9x", "a.jsonl.bz2"),
        ("a.jsonl.xz", b"no", "no whole xz file"),
        ("a.parquet", b"", "is not a Parquet file"),
        ("a.parquet", b"PAR1xxxxPAR1", "is not a Parquet file"),
        ("a.arrow", b"no", "is not an Arrow file"),
        ("a.csv", "frage;ä".encode("latin-1"), "not UTF-8"),
        ("a.jsonl", LINES.encode("utf-16-le"), "UTF-16 without a mark"),
        ("a.zip", b"PK", "no known kind"),
    ],
)  # fmt: skip
def test_broken_files_are_one_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    if message is None:
        assert load_rows(tmp_path / name)[0].answer == "text"
        return
    with pytest.raises(InputError, match=message) as caught:
        load_rows(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    from expunge.data import formats

    (tmp_path / "a.jsonl").write_text(LINES)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(formats, "opened", refuse)
    with pytest.raises(InputError, match=r"a\.jsonl cannot be read: permission denied"):
        load_rows(tmp_path / "a.jsonl")


def test_files_of_another_kind_than_their_name(tmp_path):
    rows = [{"question": "Who?", "answer": "Ada."}, {"question": "Where?", "answer": "Oru."}]
    (tmp_path / "packed.jsonl").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode(), mtime=0))
    (tmp_path / "list.jsonl").write_text(json.dumps(rows, indent=2))
    for name in ("packed.jsonl", "list.jsonl"):
        assert [r.answer for r in load_rows(tmp_path / name)] == ["Ada.", "Oru."]
    (tmp_path / "bad.jsonl").write_text('{"text": "a",}\n')
    with pytest.raises(InputError, match=r"line 1: not JSON \(.*at column 14\)"):
        load_rows(tmp_path / "bad.jsonl")


def test_the_blank_lines_of_a_text_in_parquet_are_no_rows(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": ["", " = Title = \n", ""]}), tmp_path / "wiki.parquet")
    assert [r.answer for r in load_rows(tmp_path / "wiki.parquet")] == [" = Title = \n"]
