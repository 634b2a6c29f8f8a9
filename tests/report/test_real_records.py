"""The records that the commands write on tiny models: every key is a known one, and the pages show their values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_type_hints, is_typeddict

import pytest
from html_page import Page

from expunge import record_types as types
from expunge.guard import Settings
from expunge.guard.measure import Figure, Figures, write_json
from expunge.report import bench_page, compare_page, render

DASH = "–"
# Keys whose values no page shows, or shows in other words.
WORDED = {
    "schema",
    "created",
    "began",
    "steps",
    "name",
    "part",
    "set",
    "forget_figure",
    "utility_figure",
    "better",
    "log",
}


def read(*parts) -> dict[str, Any]:
    file = parts[0].joinpath(*parts[1:])
    return json.loads(file.read_text(encoding="utf-8"))


def texts(page: str) -> list[str]:
    return [" ".join(text.split()) for text in Page(page).text if text.strip()]


def strings(value: Any, key: str = "") -> Iterator[str]:
    """Every text in a record that a page should show as it is."""
    if isinstance(value, dict):
        for k, v in value.items():
            if k not in WORDED:
                yield from strings(v, k)
    elif isinstance(value, list):
        for v in value:
            yield from strings(v, key)
    elif isinstance(value, str) and value:
        yield " ".join(value.split())


def missing(record: dict[str, Any], page: str, without: set[str] = frozenset()) -> list[str]:
    """The texts of a record, but for some keys', that are nowhere on its page."""
    whole = "\n".join(texts(page))
    return [s for s in strings({k: v for k, v in record.items() if k not in without}) if s not in whole]


def check_keys(record: dict[str, Any], kind: type, without: set[str] = frozenset()) -> None:
    """Every key of the record is one of its type's, and every required one is there."""
    assert set(record) - kind.__required_keys__ - kind.__optional_keys__ == set()
    assert kind.__required_keys__ - set(record) - without == set()


def formatted(value: float | None) -> str:
    if value is None:
        return DASH
    return f"{value:.3f}" if value == 0 or 0.0005 <= abs(value) < 1000 else f"{value:.2g}"


# -- keys -----------------------------------------------------------------------------------------------------------------
def test_every_key_is_a_known_one(run_folder, release_folder, bench_folders, compare_folder, reveal_folder):
    run, release = read(run_folder, "run.json"), read(release_folder, "run.json")
    plain, method = (read(bench_folders[name], "figures.json") for name in ("plain", "method"))
    compare = read(compare_folder, "compare.json")
    typed_records = [(run, types.RunRecord), (release, types.RunRecord), (plain, types.FiguresRecord)]
    typed_records += [(method, types.FiguresRecord), (compare, types.CompareRecord)]
    typed_records += [(read(reveal_folder, "reveal.json"), types.RevealRecord)]
    typed_records += [(read(run_folder, "alternates.json"), types.AlternatesRecord)]
    typed_records += [(read(release_folder, "steps", f"{at:02d}.json"), types.StepRecord) for at in (0, 1, 2)]
    typed_records += [
        (read(bench_folders["method"], name, "made.json"), types.MadeRecord) for name in ("target", "run")
    ]
    for record, kind in typed_records:
        check_keys(record, kind)
        assert record["schema"] == 1, kind
    # those that the required keys do not cover
    assert "tokens" in run and "release" in release and {"unlearning", "taught", "command"} <= set(method)
    assert set(read(reveal_folder, "reveal.json")) == set(types.RevealRecord.__annotations__)
    assert set(read(bench_folders["method"], "target", "made.json")) == set(types.MadeRecord.__annotations__)
    assert set(read(release_folder, "steps", "01.json")) == set(types.StepRecord.__annotations__)


def test_every_key_within_is_a_known_one(run_folder, release_folder, bench_folders, compare_folder):
    run, release = read(run_folder, "run.json"), read(release_folder, "run.json")
    compare, method = read(compare_folder, "compare.json"), read(bench_folders["method"], "figures.json")
    typed_records = [(r[k], t) for r in (run, release) for k, t in get_type_hints(types.RunRecord).items()
             if is_typeddict(t)]  # fmt: skip
    typed_records += [(d, types.DataInfo) for r in (run, release) for d in r["data"].values()]
    typed_records += [(e, types.Example) for e in run["examples"]]
    of_release = release["release"]
    typed_records += [(of_release, types.ReleaseInfo), (of_release["budget"], types.Budget)]
    typed_records += [
        (of_release["svd_error"], types.Truncation),
        *((s, types.ReleaseStep) for s in of_release["trajectory"]),
    ]
    typed_records += [(method[w], types.ModelFacts) for w in ("model", "target", "retrained")]
    typed_records += [(method["taught"], types.TaughtInfo), (method["unlearning"], types.UnlearningInfo)]
    typed_records += [(r["data"], types.BenchData) for r in (method, compare)]
    typed_records += [(f, types.FigureInfo) for of in (method, *compare["runs"]) for f in of["figures"]]
    typed_records += [(r, types.ComparedRun) for r in compare["runs"]]
    typed_records += [(r["method"], types.ComparedMethod) for r in compare["runs"]]
    typed_records += [(compare[w], types.ComparedModel) for w in ("target", "retrained")]
    typed_records += [(compare["budget"], types.EqualBudget), (compare["runs"][0]["seconds"], types.RunSeconds)]
    for record, kind in typed_records:
        check_keys(record, kind)
    good, bad = compare["runs"]
    assert set(good) | set(bad) == set(types.ComparedRun.__annotations__) and bad["said"].endswith("it broke")


def test_a_guard_writes_known_keys(tmp_path):
    figure = Figure(0.5, 0.1, 0.9)
    write_json({"forget": Figures(2, *[figure] * 7)}, Settings(), 2, "m", tmp_path / "f.json")
    check_keys(read(tmp_path, "f.json"), types.GuardRecord)


# -- pages ----------------------------------------------------------------------------------------------------------------
def test_the_page_of_a_run(run_folder):
    record = read(run_folder, "run.json")
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    assert render(record) == page
    assert missing(record, page, {"private_files"}) == []
    page_texts = texts(page)
    measured = [record[when][part] for when in ("before", "after", "reference") for part in ("forget", "retain")]
    values = [f.get(key) for f in measured for key in ("probability", "nll", "rouge_l", "truth_ratio")]
    assert page_texts.count(DASH) == values.count(None) and values.count(None) < len(values) / 2
    for value in values:
        assert formatted(value) in page_texts
    assert (
        "2 steps on record" in page_texts and f"{record['peak_memory_bytes'] / 1e6:.1f} MB" in page_texts
    ) or "GB" in page


def test_the_page_of_a_release(release_folder):
    record = read(release_folder, "run.json")
    page = (release_folder / "report.html").read_text(encoding="utf-8")
    assert render(record) == page
    assert missing(record, page, {"private_files"}) == []
    page_texts, steps = texts(page), record["release"]["trajectory"]
    absent = sum(f.get(k) is None for w in ("before", "after") for f in record[w].values()
                 for k in ("probability", "nll", "rouge_l", "truth_ratio"))  # fmt: skip
    assert page_texts.count(DASH) == absent + 2  # the target has neither penalty nor time
    for step in steps:
        assert (
            f"{step['figures']['forget']['nll']:.4g}" in page_texts
            and f"{step['figures']['retain']['nll']:.4g}" in page_texts
        )
        assert step["index" if "index" in step else "step"] == 0 or f"{step['penalty']:.4g}" in page_texts
    assert (
        "the result" in page_texts and f"{100 * record['release']['svd_error']['overall']:.2g} % of the change" in page
    )


@pytest.mark.parametrize("name", ["plain", "method"])
def test_the_page_of_a_benchmark(bench_folders, name):
    record = read(bench_folders[name], "figures.json")
    page = (bench_folders[name] / "report.html").read_text(encoding="utf-8")
    assert bench_page.render(record) == page
    assert missing(record, page, {"private_files"}) == []
    page_texts = texts(page)
    columns = [record["figures"], *record["beside"].values()]
    assert len(columns) == (1 if name == "plain" else 3)
    rows = {(f["part"], f["name"]) for figures in columns for f in figures}
    values = [f["value"] for figures in columns for f in figures]
    absent = values.count(None) + len(rows) * len(columns) - len(values)
    assert page_texts.count(DASH) == absent
    for value in values:
        assert formatted(value) in page_texts


def test_the_page_of_a_comparison(compare_folder):
    record = read(compare_folder, "compare.json")
    page = (compare_folder / "report.html").read_text(encoding="utf-8")
    assert compare_page.render(record) == page
    hidden = {"runs": [{k: r.get(k) for k in ("shown", "said")} for r in record["runs"]]}
    hidden |= {
        w: {"source": record[w]["source"], "fingerprint": record[w]["fingerprint"]} for w in ("target", "retrained")
    }
    assert missing(record | hidden, page, {"platform", "forget_better"}) == []
    page_texts = texts(page)
    assert page_texts.count(DASH) == 8  # rate, steps, tokens and time of the two models that were not trained
    for of in (record["target"], record["retrained"], record["runs"][0]):
        for figure in (record["forget_figure"], record["utility_figure"]):
            (value,) = [f["value"] for f in of["figures"] if f"{f['part']}/{f['name']}" == figure]
            assert value is not None and formatted(value) in page_texts
    good = record["runs"][0]
    assert f"{good['learning_rate']:g}" in page_texts and str(int(good["steps"])) in page_texts
    assert (
        f"{good['tokens']:,}".replace(",", "\u202f") in page_texts
        or f"{good['tokens']:,}".replace(",", " ") in page_texts
    )
