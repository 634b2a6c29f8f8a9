"""Scorers by name: what each one sees in a text, and how a wrong name is answered."""

from __future__ import annotations

import subprocess
import sys

import pytest

from expunge.errors import InputError
from expunge.scorers import scorer


def test_no_torch_is_imported():
    code = "import sys, expunge.scorers; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'sklearn')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("name", "text", "mentioned"),
    [
        ("J. K. Rowling|Rowling", "ROWLING wrote it.", 1),
        ("J. K. Rowling", "Rowling wrote it.", 0),  # the surname was not given
        ("J. K. Rowling", "by J. K.\n  Rowling", 1),
        ("Ann", "Hannah met Anna and ann_2 and Ann2.", 0),
        ("Ann", "Hannah and Ann's aunt", 1),  # the first find is inside a word, the second is not
        ("Ann", "Ann", 1),
        ("Ann", "Ann-Marie", 1),
        ("Jose\u0301", "JOS\u00c9 came", 1),  # decomposed and composed
        ("Jose", "José came", 0),
        ("Jose", "Jose\u0323 came", 0),  # a combining mark goes on
        ("O'Brien", "O’Brien said", 1),
        ("Straße", "STRASSE", 1),
        ("ﬁnch", "Finch", 1),  # a ligature
        ("Ada", "Ａｄａ", 1),  # full-width
        ("C++", "He wrote C++, then slept.", 1),
        ("艾未未", "我喜欢艾未未的作品", 1),
        ("राम", "रामी", 0),
        ("นา", "ทุ่งนาสวย", 1),
        ("นา", "นา\u0e49", 0),  # a tone mark goes on
        ("Ada|Ada Lovelace", "", 0),
    ],
)
def test_an_entity_is_found_as_words_of_its_own(name, text, mentioned):
    assert scorer(f"entity:{name}")([text]).tolist() == [mentioned]


def test_words_count_as_their_share():
    values = scorer("words: spell, magic wand,owl , Gryffindor")(
        ["An OWL brought a Magic  Wand.", "spells, owls", "spell owl gryffindor magic wand", "magic and a wand"]
    )
    assert values.tolist() == [0.5, 0, 1, 0]


def test_ner_wants_its_own_type():
    texts = ["PER: Ada", "LOC: Paris", "none", "PER: " + "very " * 10 + "long", "PER: " + "a " * 10]
    assert scorer("ner:PER")(texts).tolist() == [1, 0, 0, 0, 1]
    assert scorer("ner:LOC")(texts).tolist() == [0, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("toxicty", "no scorer 'toxicty', did you mean 'toxicity'"),
        ("zzz", "no scorer 'zzz'; there are entity:NAME|OTHER NAME".replace("|", r"\|")),
        ("", "no scorer ''"),
        ("entity:", "ends at its colon; write entity:NAME"),
        ("entity", "empty entry; write entity:NAME"),
        ("entity:Ada||Bo", "empty entry"),
        ("words:a,,b", "empty entry; write words:a, b, c"),
        ("toxicity:detoxfy", "no toxicity scorer 'detoxfy', did you mean 'detoxify'"),
        ("toxicity:", "ends at its colon"),
        ("ner", "needs a type, not ''"),
        ("ner:per", "not 'per', did you mean 'PER'"),
        ("ner:FRUIT", "there are PER, LOC, ORG, MISC"),
        ("code:rust", "code takes nothing after it, not 'rust'"),
        ("nowhere.py:f", "no file nowhere.py"),
        ("nowhere.py", "names no function; write nowhere.py:FUNCTION"),
        ("nowhere.py:", "names no function; write nowhere.py:FUNCTION"),
    ],
)
def test_a_wrong_name_is_answered_at_once(spec, message):
    with pytest.raises(InputError, match=message):
        scorer(spec)


def own(tmp_path, text):
    file = tmp_path / "mine.py"
    file.write_text(text)
    return f"{file}:worth"


def test_a_function_of_the_users_own_is_called_text_by_text(tmp_path):
    spec = own(tmp_path, "def worth(text):\n    return len(text) / 10\n")
    assert scorer(spec)(["abc", ""]).tolist() == [0.3, 0]
    with pytest.raises(InputError, match=r"mine\.py:worth gave 1\.1 for text 1"):
        scorer(spec)(["abc", "x" * 11])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def wroth(text):\n    return 0\n", "no function 'worth', did you mean 'wroth'"),
        ("worth = 3\n", "no function 'worth'"),
        ("x = 1\ndef f(:\n", "mine.py, line 2: not Python"),
        ("x = 1\nraise KeyError(3)\n", "cannot be run: KeyError in line 2"),
    ],
)
def test_a_file_without_the_function_is_answered_at_once(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        scorer(own(tmp_path, text))


def test_an_error_in_the_users_function_names_the_line_and_not_the_text(tmp_path):
    mine = scorer(
        own(tmp_path, "def worth(text):\n    if text == 'secret':\n        raise ValueError(text)\n    return 1\n")
    )
    with pytest.raises(InputError, match=r"failed on text 1 with ValueError in line 3$") as caught:
        mine(["a", "secret"])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("value", "kind"), [("None", "NoneType"), ("[1.0]", "list"), ("text", "str")])
def test_a_value_that_is_no_number_is_told_with_what_is_wanted(tmp_path, value, kind):
    mine = scorer(own(tmp_path, f"def worth(text):\n    return {value}\n"))
    with pytest.raises(InputError, match=rf"gave a {kind} for text 0; it must take one text .* from 0 to 1$") as caught:
        mine(["secret"])
    assert "secret" not in str(caught.value)
