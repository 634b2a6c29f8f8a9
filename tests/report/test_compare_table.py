"""The table of a paper: means and deviations by hand, every format read back, and from the command line."""

from __future__ import annotations

import csv
import io
import json
import statistics

import pytest
from typer.testing import CliRunner

from expunge.cli import app
from expunge.report import compare_table as tables


def run(label, seed, forget, utility, **more):
    figures = [
        {"part": "forget", "name": "probability", "value": forget, "low": None, "high": None, "n": 9, "note": ""},
        {"part": "all", "name": "model_utility", "value": utility, "low": None, "high": None, "n": 9, "note": ""},
        {"part": "x", "name": "other", "value": 1 / 3, "low": None, "high": None, "n": 9, "note": ""},
    ]
    return {"label": label, "shown": label, "seed": seed, "done": True, "figures": figures, "choice": {}} | more


@pytest.fixture
def record():
    runs = [
        run("blur_npo", 0, 0.10, 0.5),
        run("blur_npo", 1, 0.20, 0.5),
        run("blur_npo", 2, 0.60, 0.8),
        run("pdu", 0, 0.25, 0.75),
        run("pdu", 1, 0, 0) | {"done": False, "said": "it broke", "figures": []},
    ]
    target = run("t", 0, 0.9, 0.7) | {"source": "model"}
    return {"schema": 1, "benchmark": "tofu/forget10", "seeds": [0, 1, 2], "forget_figure": "forget/probability",
            "utility_figure": "all/model_utility", "target": target, "runs": runs}  # fmt: skip


def test_mean_and_deviation_are_those_of_statistics(record):
    line = next(x for x in tables.lines(record) if x.name == "blur_npo")
    got = line.cells["forget/probability"]
    assert got.mean == pytest.approx(0.3) and got.deviation == pytest.approx(statistics.stdev([0.1, 0.2, 0.6]))
    assert tables.spread([]) is None and tables.spread([float("nan"), 2.0]) == tables.Spread(2.0, None, 1)


def test_csv_has_every_figure_in_full(record):
    rows = list(csv.DictReader(io.StringIO(tables.as_csv(record))))
    assert [r["method"] for r in rows] == ["target", "blur_npo", "pdu"]
    assert float(rows[1]["x/other"]) == 1 / 3 and float(rows[1]["forget/probability sd"]) == pytest.approx(
        0.264575, abs=1e-6
    )
    assert (rows[1]["seeds"], rows[2]["seeds"], rows[2]["failed"], rows[2]["forget/probability sd"]) == (
        "3",
        "1",
        "1",
        "",
    )


def test_latex_and_markdown_have_the_headlines(record):
    tex, md = tables.as_latex(record), tables.as_markdown(record)
    assert r"blur\_npo & $0.300 \pm 0.265$ & $0.600 \pm 0.173$ \\" in tex
    assert tex.count("&") == 2 * 4 and r"\begin{tabular}{lrr}" in tex and r"pdu & $0.250$ & $0.750$ \\" in tex
    assert "| blur_npo | 0.300 ± 0.265 | 0.600 ± 0.173 |" in md and "other" not in md
    assert "over 3 seeds; runs that failed are left out: 1 of pdu." in md and "over 3 seeds" in tex
    assert "one seed" in tables.note(record | {"seeds": [0]})


@pytest.mark.parametrize("kind", list(tables.FORMATS))
def test_a_record_of_nonsense_still_gives_a_table(kind):
    assert tables.FORMATS[kind]({"runs": 3}) and tables.FORMATS[kind]({})


def test_the_command_prints_the_table_of_a_finished_comparison_and_writes_it(record, tmp_path):
    (tmp_path / "compare.json").write_text(json.dumps(record))
    done = CliRunner().invoke(app, ["compare", str(tmp_path), "--format", "latex"])
    assert done.exit_code == 0 and done.stdout == tables.as_latex(record) == (tmp_path / "table.tex").read_text()
    wrong = CliRunner().invoke(app, ["compare", str(tmp_path), "--format", "latx"])
    assert wrong.exit_code == 2 and "did you mean 'latex'?" in wrong.output
    (tmp_path / "compare.json").write_text("{}")
    assert CliRunner().invoke(app, ["compare", str(tmp_path), "--format", "csv"]).exit_code == 2
