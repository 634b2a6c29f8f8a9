"""Targets: read from files, found in texts, listed for a prompt."""

from __future__ import annotations

import time

import pytest

from expunge.errors import InputError
from expunge.guard import Target, read_targets
from expunge.guard.targets import mentioned_targets, most_likely

BASIL = Target("Basil Mahfouz Al-Kuwaiti", ("Al-Kuwaiti",))


@pytest.mark.parametrize(
    "text",
    [
        "by Basil Mahfouz Al-Kuwaiti.",
        "BASIL  MAHFOUZ\nAL-KUWAITI",
        "AL-KUWAITI'S book",
        "Al Kuwaiti",
        "**Basil** *Mahfouz* **Al-Kuwaiti**",
        "Basil_Mahfouz_Al_Kuwaiti",
        "Ba\u200bsil Mah\u00adfouz Al\u2011Kuwaiti",
        "Básil Mahfoúz Al–Kuwaiti",
        "Ａｌ－Ｋｕｗａｉｔｉ",
        "'Al\u2060-Kuwaiti'",
        "\u0410l-\u041auw\u0430iti",  # Cyrillic А, К and а
        "Al-Ku\u3164wait\u03b9",  # a Hangul filler, a Greek iota
        "Al-Kuwaıtı",
    ],
)
def test_a_name_is_found_however_it_is_written(text):
    assert mentioned_targets([text], [Target("Ann"), BASIL]) == (BASIL,)


@pytest.mark.parametrize(
    "text", ["", "Basil", "Mahfouz", "Kuwaiti", "Kuwait", "Al-Kuwaitis", "Mal Kuwaiti", "al. x Kuwaiti"]
)
def test_what_is_not_the_name_is_not_found(text):
    assert mentioned_targets([text], [BASIL]) == ()


def test_signs_are_part_of_names_that_need_them():
    assert mentioned_targets(["see c for it"], [Target("C++")]) == () and mentioned_targets(
        ["in C++."], [Target("C++")]
    )
    assert mentioned_targets(["the net"], [Target(".NET")]) == () and mentioned_targets(
        ["his .NET book"], [Target(".NET")]
    )
    assert mentioned_targets(["Пётр пришёл"], [Target("Петр")]) and mentioned_targets(["他是李白。"], [Target("李白")])


@pytest.mark.parametrize(
    ("name", "text"),
    [("Işıl Yıldız", "IŞIL YILDIZ"), ("Søren", "Soren"), ("Lukasz", "Łukasz"), ("\u041d\u0430на", "НАНА")],
)
def test_strokes_and_dotless_letters_make_no_other_name(name, text):
    assert mentioned_targets([text], [Target(name)])


def test_words_of_another_script_stay_its_own():
    russian = "во сне \u043d\u0430\u0441 \u0442\u0440\u043e\u0435"  # "bo", "hac", "tpoe" to the eye
    assert not mentioned_targets([russian], [Target("Bo"), Target("hac"), Target("tpoe")])
    began = time.perf_counter()
    mentioned_targets(["李" * 200_000], [BASIL])
    assert time.perf_counter() - began < 5


def test_each_target_once_in_order():
    a, b = Target("Ada"), Target("Bo", ("B.",))
    assert mentioned_targets(["Bo saw Ada", "ada, B."], [b, a, Target("Ada", ("Countess",))]) == (b, a)


def test_a_prompt_lists_the_likeliest_and_all_where_they_fit():
    many = [Target(f"Person {i}") for i in range(30)]
    similar, mentioned = Target("Zed Oru"), Target("Yan Qix", ("Captain",))
    targets = [*many, similar, mentioned]
    assert most_likely(["x"], targets, 32) == tuple(targets)
    assert most_likely(["The captain went to Oru."], targets, 3) == (mentioned, similar, many[0])
    assert most_likely(["nothing"], targets, 2) == tuple(many[:2])


def test_files(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffAda Oru |  Countess \r\n\r\nBo\r\n".encode())
    assert read_targets(tmp_path / "a.txt") == (Target("Ada Oru", ("Countess",)), Target("Bo"))
    (tmp_path / "a.jsonl").write_text('{"name": "Ada | Oru", "aliases": ["C {x}"]}\n\n{"name": "Bo"}\n')
    assert read_targets(tmp_path / "a.jsonl") == (Target("Ada | Oru", ("C {x}",)), Target("Bo"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"name": "Ada"}\nBo\n', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", '["Ada"]', 'a.jsonl, line 1: a row is {"name"'),
        ("a.jsonl", '{"nam": "Ada"}', "line 1: a row is"),
        ("a.jsonl", '{"name": "Ada", "alias": ["A"]}', "did you mean 'aliases'"),
        ("a.jsonl", '{"name": "Ada", "aliases": "A"}', "aliases must be a list"),
        ("a.jsonl", '{"name": "Ada", "aliases": ["A", ""]}', "line 1: a target's name or alias needs"),
        ("a.jsonl", '{"name": " "}', "line 1: a target's name"),
        ("a.jsonl", "[" * 99999, "line 1: not JSON"),
        ("a.txt", "Ada\nBo | | B\n", "a.txt, line 2: an empty name"),
        ("a.txt", "Ada\n\n---\n", "a.txt, line 3: a target's name"),
        ("a.txt", "\n \n", "a.txt holds no targets"),
    ],
)
def test_a_bad_row_is_told_with_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as error:
        read_targets(tmp_path / name)
    assert message in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"Ada\xff")
    for path, message in (
        (tmp_path / "a.txt", "not UTF-8"),
        (tmp_path / "b.txt", "cannot be read"),
        (tmp_path, "cannot be read"),
    ):
        with pytest.raises(InputError, match=message):
            read_targets(path)
