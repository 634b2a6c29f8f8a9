"""Files without named fields: sentences in columns, lines, gzipped JSON lines, and what is wrong with them."""

from __future__ import annotations

import gzip

import pytest

from expunge.data.records import load_records
from expunge.errors import InputError
from expunge.evaluation.benchmark import Benchmark, DataSet, data_of, write_to_learn


def write(path, text, **options):
    path.write_text(text, encoding="utf-8", **options)
    return path


def gzipped(text):
    """The same bytes whenever they are made: they name a test, which two processes have to agree on."""
    return gzip.compress(text.encode(), mtime=0)


@pytest.mark.parametrize("name", ["a.conll", "a.conll.txt", "A.CONLL"])
def test_sentences_in_columns(tmp_path, name):
    """Blank or tab between the columns, however many; documents are counted; the last sentence needs no empty line."""
    text = "-DOCSTART- O\n\nAda NNP I-PER\nsang VB O\n\n\nRome\tB-location\n\n-DOCSTART-\n\n#tag\tO\nBo\tI-PER"
    records = load_records(write(tmp_path / name, text))
    assert [dict(r.values) for r in records] == [
        {"tokens": ["Ada", "sang"], "tags": ["I-PER", "O"], "document": 1},
        {"tokens": ["Rome"], "tags": ["B-location"], "document": 1},
        {"tokens": ["#tag", "Bo"], "tags": ["O", "I-PER"], "document": 2},
    ]
    assert [r.where for r in records] == [f"{name}, line 3", f"{name}, line 7", f"{name}, line 11"]


def test_lines_and_windows_line_ends(tmp_path):
    records = load_records(write(tmp_path / "a.txt", "One thing\r\n\r\n  another \r\n", newline=""))
    assert [(r.text("text"), r.where) for r in records] == [
        ("One thing", "a.txt, line 1"),
        ("another", "a.txt, line 3"),
    ]
    tagged = load_records(write(tmp_path / "a.conll", "Ada I-PER\r\n\r\nBo O\r\n", newline=""))
    assert [r.texts("tags") for r in tagged] == [("I-PER",), ("O",)]


def test_gzipped_lines(tmp_path):
    place = tmp_path / "a.jsonl.gz"
    place.write_bytes(gzipped('{"a": "ä"}\n\n{"a": "b"}\n'))
    assert [(r.text("a"), r.where) for r in load_records(place)] == [
        ("ä", "a.jsonl.gz, line 1"),
        ("b", "a.jsonl.gz, line 3"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.conll", b"Ada I-PER\nsang\n", "a.conll, line 2: a CoNLL line has a token and a tag"),
        ("a.conll", b"\xff O\n", "a.conll is not UTF-8 text"),
        ("a.txt", b"\n \n", "holds no rows"),
        ("a.jsonl.gz", b"plain", "a.jsonl.gz is not gzipped UTF-8 text"),
        ("a.jsonl.gz", gzipped("{}\n{"), "a.jsonl.gz, line 2: not JSON"),
        ("a.jsonl.gz", gzipped("{}\n{}\n")[:-12], "a.jsonl.gz is not gzipped"),
        ("a.jsonl.gz", gzipped("[1]\n"), "line 1: a row must be an object"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        load_records(tmp_path / name)


def test_a_set_names_its_own_endings_and_makes_its_own_rows(tmp_path):
    def rows(records):
        return [r for one in records if (r := one.values["text"]) != "no"]

    def benchmark(**options):
        one = DataSet("words", "", "words", endings=(".txt", ".csv"), **options)
        return Benchmark("own", "", (one,), lambda data: [], lambda collected, _: [], forget=one)

    with pytest.raises(InputError, match=r"lacks words\.txt \(or \.csv\), which own reads"):
        data_of(benchmark(), tmp_path)
    with pytest.raises(InputError, match=r"it should hold words\.txt$"):
        data_of(benchmark(), tmp_path / "nowhere")
    write(tmp_path / "words.txt", "yes\nno\n")
    one = benchmark(rows=rows).forget
    assert one.to_learn(one.among(tmp_path)) == ["yes"]
    write(tmp_path / "words.txt", "no\n")
    with pytest.raises(InputError, match="words holds none of the rows of words"):
        one.to_learn(one.among(tmp_path))


def test_rows_to_learn_are_written_for_a_run(tmp_path):
    from expunge.data.sources import load_rows

    expected = '{"question": "Q?", "answer": "A"}\n{"prompt": "P", "completion": " C"}\n{"text": "T"}\n'
    write(tmp_path / "mine.jsonl", expected)
    one = DataSet("mine", "")
    counts = write_to_learn(Benchmark("own", "", (one,), list, list, forget=one), tmp_path / "out", tmp_path)
    assert counts == {"forget": 3}
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["forget.jsonl"]
    back, before = load_rows(tmp_path / "out" / "forget.jsonl"), load_rows(tmp_path / "mine.jsonl")
    assert [(r.prompt, r.answer) for r in back] == [(r.prompt, r.answer) for r in before]
