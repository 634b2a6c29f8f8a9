"""The page and the figure of a comparison: every run in it, names apart, escaped, whole."""

from __future__ import annotations

import itertools
import random
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from html_page import EVIL, Page

from expunge.report import compare_page as compared
from expunge.report.draw import tradeoff
from expunge.report.draw.labels import Label, place

METHODS = [
    "gradient_ascent",
    "grad_diff",
    "grad_diff_kl",
    "npo",
    "npo_kl",
    "simnpo",
    "idk_dpo",
    "pdu",
    "blur_npo",
    "blur_margin",
    "wga",
    "satimp",
    "undial",
    "rmu",
]


def figure(part, name, value, room=0.05):
    return {"name": name, "part": part, "value": value, "low": value - room, "high": value + room, "n": 20, "note": ""}


def both(forget, utility):
    return [figure("forget", "probability", forget), figure("all", "model_utility", utility), figure("x", "other", 1.0)]


def run(label, forget, utility, seed=0, **more):
    own = {
        "name": f"{label}-seed{seed}",
        "label": label,
        "shown": label,
        "seed": seed,
        "done": True,
        "choice": {},
        "given": {"beta": 0.1},
    }
    values = {
        "method": {"name": label, "parameters": {"beta": 0.1}},
        "learning_rate": 1e-3,
        "steps": 16,
        "tokens": 12345,
    }
    return (
        own
        | values
        | {"seconds": {"steps": 61.0, "evaluation": 9.0}, "figures": both(forget, utility), "training": {}}
        | more
    )


@pytest.fixture
def record():
    luck = random.Random(0)
    runs = [run(m, luck.random() ** 2 * 0.8, 0.4 - luck.random() ** 3 * 0.3, s) for s in (0, 1) for m in METHODS]
    return {
        "benchmark": "tofu/forget01", "paper": "arXiv:2401.06121", "created": "2026-11-21T08:00:00+00:00",
        "forget_figure": "forget/probability", "utility_figure": "all/model_utility", "forget_better": "lower",
        "budget": {"steps": 16, "rows": 4}, "seeds": [0, 1], "limit": 20, "training": {"max_steps": 16}, "adapter": "lora",
        "target": {"source": "TinyTarget", "fingerprint": "sha256:a", "figures": both(0.85, 0.43)},
        "retrained": {"source": "TinyRetrained", "fingerprint": "sha256:b", "figures": both(0.11, 0.42)},
        "runs": runs, "versions": {"torch": "2.13"}, "expunge": "0.1.0", "command": "expunge compare r.toml",
    }  # fmt: skip


def test_what_the_page_says(record):
    record["runs"].append(
        {"name": "x-seed0", "label": "x", "seed": 0, "done": False, "said": "it broke", "figures": []}
    )
    record["runs"][3] |= {"training": {"learning_rate": 5e-5}, "shown": "npo beta=0.2", "choice": {"beta": 0.2}}
    record["warnings"] = ["The runs were made on different devices."]
    text = " ".join("".join(Page(compared.render(record)).text).split())
    for part in (
        "tofu/forget01, 15 methods compared", "29 runs of 15 methods, each 16 steps of 4 rows; 1 run failed.",
        "Forget probability, lower is more forgotten ↓", "better ↘", "TinyTarget", "npo beta=0.2", "seed 1, beta=0.1",
        "x-seed0 failed: it broke", "different devices", "12 345", "1 min 1 s", "Only the first 20 rows",
        "Equal budgets are equal optimizer steps", "picks it on the data", "few seeds show little",
        '{"learning_rate": 5e-05}',
        "not a certificate",
    ):  # fmt: skip
        assert part in text, part
    assert "No model that never saw" not in text and "unequal" not in text


def test_a_mark_stands_where_its_numbers_say(record):
    """Read the drawn positions back: the marks of the runs are affine in the figures, y upside down."""
    record["runs"] = [run("a", 0.0, 0.1), run("b", 0.5, 0.2), run("c", 1.0, 0.4)]
    picture = tradeoff.chart(record, ("U", "F")).svg
    spots = [
        (float(x), float(y))
        for x, y in re.findall(r'<use href="#[^"]*" x="([\d.]+)" y="([\d.]+)" style="fill: var\(--run', picture)
    ]
    assert len(spots) == 3
    (ax, ay), (bx, by), (cx, cy) = spots
    assert (cx - ax) / (bx - ax) == pytest.approx(3, abs=1e-3) and (cy - ay) / (by - ay) == pytest.approx(2, abs=1e-3)
    assert ax < bx < cx and ay > by > cy


def test_no_two_names_touch_and_none_lies_on_a_mark():
    luck = random.Random(1)
    for n in (12, 20):
        spots = [(luck.uniform(80, 830), luck.uniform(40, 500)) for _ in range(n - 6)]
        spots += [(100 + luck.uniform(0, 25), 60 + luck.uniform(0, 25)) for _ in range(6)]  # a crowd
        labels = [Label(s, luck.uniform(30, 110), 14) for s in spots]
        boxes = [a.box(m) for a, m in zip(labels, place(labels, spots, [], (50, 30, 850, 520)), strict=True)]
        for a, b in itertools.combinations(boxes, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert not [s for s in spots for b in boxes if b[0] < s[0] < b[2] and b[1] < s[1] < b[3]]
        assert all(b[0] >= 50 and b[2] <= 850 and b[1] >= 30 and b[3] <= 520 for b in boxes)


def test_every_method_has_a_mark_of_its_own_and_its_name_once(record):
    marks = tradeoff.labels(record)
    assert list(marks) == METHODS and len({(m.colour, m.shape) for m in marks.values()}) == 14
    picture = tradeoff.chart(record, ("Utility", "Forget")).svg
    assert all(picture.count(f">{name}</text>") == 1 for name in [*METHODS, "target", "retrained"])
    assert not re.findall(r"#[0-9a-f]{6}\b", re.sub(r'(id|href)="[^"]*"|url\([^)]*\)', "", picture))


def test_higher_can_be_better(record):
    record |= {"forget_better": "higher", "runs": [run("a", 0.9, 0.1), run("b", 0.5, 0.2), run("c", 0.4, 0.1)]}
    text = compared.render(record)
    assert (
        "better ↗" in text
        and "higher is more forgotten" in text
        and "better in one than a (seed 0), b (seed 0);" in text
    )


def test_the_runs_that_are_not_beaten_are_named_as_runs(record):
    record["runs"] = [run("a", 0.5, 0.2), run("b", 0.5, 0.2, 1), run("b", 0.6, 0.1), run("c", 0.4, 0.1, shown="c x=1")]
    assert "no other run is at least as good in both figures and better in one than " in compared.summary(record)
    assert "than a (seed 0), b (seed 1), c x=1 (seed 0);" in compared.summary(record)  # a and b are equal
    record["seeds"] = [0]
    assert "than a, b, c x=1;" in compared.summary(record)
    record["runs"] = [run("a", 0.5, 0.2)]
    assert compared.summary(record) == "1 run of 1 method, each 16 steps of 4 rows."


def test_a_run_that_is_where_a_model_is_stays_in_sight(record):
    """Target and retrained model are outlines."""
    record["runs"] = [run("same", 0.85, 0.43)]
    assert tradeoff.chart(record, ("U", "F")).svg.count('style="fill-opacity: 0; stroke: var(--target)') == 2


def test_a_run_without_interval_or_figure_is_drawn_bare_or_left_out(record):
    bare = run("bare", 0.5, 0.2)
    for f in bare["figures"]:
        f |= {"low": None, "high": None}
    missing, nan = run("missing", 0.5, 0.2), run("nan", 0.5, 0.2)
    missing["figures"], nan["figures"][0]["value"] = [], float("nan")
    record |= {"runs": [bare, missing, nan], "retrained": None}
    assert [p.label for p in tradeoff.points(record)] == ["bare"]
    picture = tradeoff.chart(record, ("U", "F")).svg
    assert "bare: 0.5 against 0.2." in picture and ">gone<" not in picture
    assert "No model that never saw" in compared.render(record)
    record["runs"] = [missing]
    assert tradeoff.chart(record, ("U", "F")) is None and "nothing to draw" in compared.render(record)


def test_the_page_is_whole_and_escaped(record):
    record |= dict.fromkeys(("benchmark", "paper", "created", "command", "expunge", "adapter"), EVIL)
    record |= {
        "forget_figure": f"{EVIL}/{EVIL}",
        "training": {EVIL: EVIL},
        "versions": {EVIL: EVIL},
        "warnings": [EVIL],
    }
    for r in record["runs"]:
        r |= {
            "label": EVIL + r["label"],
            "shown": EVIL,
            "name": EVIL,
            "method": {"name": EVIL, "parameters": {EVIL: EVIL}},
        }
        r["figures"][0] |= {"part": EVIL, "name": EVIL}
    record["runs"].append({"name": EVIL, "label": EVIL, "done": False, "said": EVIL})
    record["target"] |= {"source": EVIL, "fingerprint": EVIL}
    text = compared.render(record)
    page = Page(text)
    assert "<script" not in text and "<img" not in text and text.count("&lt;script&gt;alert") > 30
    assert not any(name.startswith("on") or name == "src" for _, name, _ in page.attributes)
    ids = [value for _, attribute, value in page.attributes if attribute == "id"]
    assert len(ids) == len(set(ids)) and not {"script", "link", "img", "iframe", "object"} & set(page.tags)


@pytest.mark.parametrize(
    "record", [{}, {"runs": 3, "target": [], "budget": "x", "seeds": 2, "training": 1, "limit": "y"}]
)
def test_a_record_of_nonsense_still_gives_a_page(record):
    assert "nothing to draw" in compared.render(record)


def test_the_files_are_whole_the_same_each_time_and_need_no_torch(record, tmp_path):
    record["runs"] = record["runs"][::4]
    compared.write_report(record, tmp_path)
    first = {
        name: (tmp_path / name).read_bytes() for name in ("report.html", "tradeoff.svg", "tradeoff.png", "tradeoff.pdf")
    }
    compared.write_report(record, tmp_path)
    assert first == {name: (tmp_path / name).read_bytes() for name in first} and len(list(tmp_path.iterdir())) == 4
    compared.write_report(record | {"runs": []}, tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["report.html"]  # no figure of an earlier time
    root = ElementTree.fromstring(first["tradeoff.svg"])
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and "prefers-color-scheme:dark" in "".join(root.itertext())
    used = set(re.findall(rb"var\((--[a-z0-9-]+)\)", first["tradeoff.svg"]))
    assert used and all(name + b":" in first["tradeoff.svg"] for name in used)
    code = "import sys; from expunge.report.compare_page import render; render({}); print({'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
