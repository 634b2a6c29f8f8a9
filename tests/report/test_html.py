"""The page: whole, escaped, the same each time, and asking for nothing from outside."""

from __future__ import annotations

from pathlib import Path

import pytest
from html_page import EVIL, Page

from expunge import record as records
from expunge.report import render, write_report


@pytest.mark.parametrize("name", ["full", "minimal", "pdu", "blur", "broken"])
def test_page_is_whole_and_loads_nothing(name: str, request):
    page = Page(render(request.getfixturevalue(name)))
    assert not {"script", "link", "img", "iframe", "object", "embed", "image", "base", "form"} & set(page.tags)
    for tag, attribute, value in page.attributes:
        if "://" in value or value.startswith("//"):
            assert (tag, attribute) == ("a", "href") and value.startswith("https://arxiv.org/abs/")
        assert not attribute.startswith("on") and attribute != "src"
    ids = [value for _, attribute, value in page.attributes if attribute == "id"]
    assert len(ids) == len(set(ids))
    text = "".join(page.text)
    assert "url(http" not in text and "@import" not in text and "@font-face" not in text
    for tag, attribute, value in page.attributes:
        if attribute == "aria-labelledby" or (tag == "a" and value.startswith("#")):
            assert value.removeprefix("#") in ids


def test_what_the_page_says_in_its_order(full):
    text = "".join(Page(render(full)).text)
    parts = [
        "Forget five invented people",
        "went from 0.82 to 0.05 (retrained model: 0.06); it kept 94 % of its probability",
        "Peak memory",
        "What was forgotten",
        "What was kept",
        "Example answers",
        "In which town was Maribel Oster born?",
        "How the run went",
        "2 retain rows share an answer",
        "unreproduced: no committed record shows the paper's numbers yet",
        "What this page does not show",
        "not a certificate",
    ]
    places = [text.rindex(part) if part.startswith("What this") else text.index(part) for part in parts[1:]]
    assert parts[0] in text and places == sorted(places)


def test_everything_from_the_record_is_escaped(full):
    full["title"] = full["expunge"] = full["created"] = full["reference_name"] = full["command"] = EVIL
    full["method"] |= {
        "name": EVIL,
        "paper": EVIL,
        "status": EVIL,
        "summary": EVIL,
        "parameters": {EVIL: EVIL},
    }
    full["model"] |= {"source": EVIL, "adapter_config": {EVIL: EVIL}}
    full["data"]["forget"]["source"] = EVIL
    full["training"] = {EVIL: EVIL}
    full["versions"] = {EVIL: EVIL}
    full["warnings"] = [EVIL]
    full["examples"][0] = dict.fromkeys(full["examples"][0], EVIL) | {"set": "forget"}
    full["steps"] = [{"step": at, f"loss/{EVIL}": at, f"weight/{EVIL}": at, "weight/b": 1} for at in (1, 2, 3)]
    text = render(full)
    page = Page(text)
    assert "<script" not in text and "<img" not in text
    assert not any(name.startswith("on") or name == "src" for _, name, _ in page.attributes)
    assert text.count("&lt;script&gt;alert") > 15


def test_examples_only_when_the_record_has_them_with_a_word_of_care(full):
    assert "This part quotes the forget set" in render(full)
    full["examples"] = [item for item in full["examples"] if item["set"] == "retain"]
    assert "This part quotes the forget set" not in render(full)
    del full["examples"]
    assert "Example answers" not in render(full)


def test_many_examples_are_cut_and_counted(full):
    full["examples"] = [full["examples"][0]] * 30
    text = render(full)
    assert text.count("In which town was Maribel Oster born?") == 25 and "25 of 30 examples" in text


def test_a_missing_figure_is_a_dash_and_never_nan(broken):
    text = "".join(Page(render(broken)).text)
    assert "nan" not in text.lower().split() and "was 0.82, with no figure from after" in text


@pytest.mark.parametrize(
    "record", [{}, {"before": 3, "steps": "x", "examples": [1], "method": [], "data": [], "warnings": 1}]
)
def test_a_record_of_nonsense_still_gives_a_page(record):
    assert "no figures that say" in render(record)


def test_the_file_is_the_page_and_the_same_each_time(full, tmp_path: Path):
    assert write_report(full, tmp_path) == tmp_path / "report.html"
    other = write_report(full, tmp_path / "other.html")
    assert other.read_bytes() == (tmp_path / "report.html").read_bytes() == render(full).encode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.html", "report.html"]


def test_a_record_from_disk_gives_the_same_page(broken, tmp_path: Path):
    records.write(broken, tmp_path)
    assert render(records.read(tmp_path)) == render(broken)
