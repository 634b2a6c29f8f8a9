"""The sentence, tiles, tables, settings and limits, against figures worked by hand."""

from __future__ import annotations

import pytest

from expunge.report import run_page as tables
from expunge.report import settings

OPEN = "The model's probability of the forget answers "


def scored(before=None, after=None, kept_before=None, kept_after=None, **extra):
    return {
        "before": {"forget": {"probability": before}, "retain": {"probability": kept_before}},
        "after": {"forget": {"probability": after}, "retain": {"probability": kept_after}},
        **extra,
    }


def test_the_sentence_of_a_full_record(full):
    # 0.7483 / 0.7961 = 0.93996
    assert tables.summary(full) == (
        OPEN + "went from 0.82 to 0.05 (retrained model: 0.06); it kept 94 % of its probability on the retain answers."
    )


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            scored(0.82, 0.05, 0.5, 0.47),
            "went from 0.82 to 0.05; it kept 94 % of its probability on the retain answers.",
        ),
        (
            scored(0.05, 0.3, 0.5, 0.5),
            "rose from 0.05 to 0.30; it kept 100 % of its probability on the retain answers.",
        ),
        (
            scored(0.82, 0.8201, 0.5, 0.0),
            "stayed at 0.82; it kept 0 % of its probability on the retain answers.",
        ),
        (
            scored(0.82, 0.000001, 0.5, 0.6),
            "went from 0.82 to below 0.0001; its probability on the retain answers rose to 120 % of what it was.",
        ),
        (
            scored(0.82, 0.05),
            "went from 0.82 to 0.05; how much it kept of the retain answers was not measured.",
        ),
        (
            scored(0.82, 0.05, 0.0, 0.1),
            "went from 0.82 to 0.05; how much it kept of the retain answers was not measured.",
        ),
        (
            scored(None, 0.05, 0.5, 0.4),
            "is 0.05, with no figure from before; it kept 80 % of its probability on the retain answers.",
        ),
        (
            scored(0.82, float("nan"), 0.5, 0.4),
            "was 0.82, with no figure from after; it kept 80 % of its probability on the retain answers.",
        ),
        (
            scored(None, None, 0.5, 0.4),
            "was not measured; it kept 80 % of its probability on the retain answers.",
        ),
    ],
)
def test_the_sentence_says_what_the_figures_say(record, expected: str):
    assert tables.summary(record) == OPEN + expected


def test_the_sentence_without_figures(minimal):
    assert tables.summary(minimal) == "The record has no figures that say what was forgotten or kept."


def test_tiles(full, minimal):
    assert [(tile.value, tile.note) for tile in tables.tiles(full)] == [
        ("0.82 → 0.05", "retrained model: 0.06"),
        ("94 %", "0.80 → 0.75"),
        ("2 min 3 s", "40 steps on record"),
        ("3.0 GB", "main memory of the process"),
    ]
    assert [tile.value for tile in tables.tiles(minimal)] == ["–"] * 4


def test_figures_have_a_column_for_each_model_and_a_dash_for_a_missing_figure(full, pdu, broken):
    table = tables.figures(full, "retain")
    assert table.columns == ("Before", "After", "Retrained model")
    assert {row.name: row.cells for row in table.rows} == {
        "Probability": ("0.796", "0.748", "0.790"),
        "Loss": ("0.233", "0.298", "0.240"),
        "ROUGE-L": ("0.702", "0.671", "0.699"),
        "Truth ratio": ("0.498", "0.505", "–"),
        "Rows": ("160", "160", "160"),
    }
    assert tables.figures(pdu, "forget").columns == ("Before", "After")
    assert [row.cells[1] for row in tables.figures(broken, "forget").rows] == [
        "–",
        "–",
        "0.188",
        "0.781",
        "40",
    ]


def test_examples_of_each_set_and_the_reference_only_where_it_answered(full):
    full["examples"][1]["reference"] = None
    first, second = tables.examples(full, "forget")
    assert [label for label, _ in first.answers] == ["Expected", "Before", "After", "Retrained model"]
    assert [label for label, _ in second.answers] == ["Expected", "Before", "After"]
    assert [example.question for example in tables.examples(full, "retain")] == ["Who taught Ines Kallio to sail?"]


def test_settings_name_the_method_the_data_and_the_seed(full, minimal):
    groups = {name: {line.name: line for line in lines} for name, lines in settings.settings(full)}
    assert list(groups) == ["Method", "Model", "Data", "Training", "Software"]
    assert groups["Method"]["Status"].value == "unreproduced: no committed record shows the paper's numbers yet"
    assert groups["Method"]["Objectives"].value == "forget: npo, retain: nll"
    assert groups["Method"]["beta"].value == "0.1"
    assert groups["Method"]["Paper"].href == "https://arxiv.org/abs/2404.05868"
    assert groups["Model"]["Trained parameters"].value == "4.9 M (4\u202f884\u202f480), 3.6 % of all"
    assert groups["Data"]["Forget set"].value == "people.jsonl (40 rows)"
    assert groups["Data"]["Retain fingerprint"].value == full["data"]["retain"]["fingerprint"]
    assert groups["Training"]["seed"].value == "0"
    assert groups["Software"]["torch"].value == "2.13.0+cpu"
    assert settings.settings(minimal) == [("Method", [settings.Setting("Name", "npo")])]


@pytest.mark.parametrize("name", ["javascript:alert(1)", "arXiv:2404.05868/../x", "https://example.org/a.pdf"])
def test_only_an_arxiv_number_becomes_a_link(name: str):
    line = settings.paper(name)
    assert line is not None and (line.kind, line.href, line.value) == ("text", "", name)


def test_limits_count_the_rows_and_change_with_the_reference(full, pdu, minimal):
    assert tables.limits(full)[0].startswith(
        "The figures come from 40 forget rows and 160 retain rows, and from one run with one seed (0)."
    )
    assert any(line.startswith("The retrained model is one model") for line in tables.limits(full))
    assert any(line.startswith("No model that never saw the forget set") for line in tables.limits(pdu))
    assert tables.limits(minimal)[0].startswith("No rows were scored")
    for record in (full, pdu, minimal):
        assert any("not a certificate" in line for line in tables.limits(record))
        assert any("not attacks" in line for line in tables.limits(record))
