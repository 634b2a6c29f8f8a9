"""Every committed record under results/: readable, without data and paths of a machine, its figure as its numbers say."""

from __future__ import annotations

import html
import json
import re
import tomllib
from pathlib import Path

import pytest

from expunge import compare, method, record
from expunge.report import compare_page as compared
from expunge.report.draw import tradeoff

FOLDER = Path(__file__).parents[1] / "results"
COMPARISONS = sorted(file.parent for file in FOLDER.glob("*/compare.json"))
PATH = re.compile(r"(?<![\w.:/<])(/(?:home|root|tmp|work|mnt|Users|data|content|scratch|opt|var|workspace)/|[A-Z]:\\)")
DATA = {"text", "expected", "answer", "question", "prompt", "answers", "examples"}  # keys under which rows would stand
every = pytest.mark.parametrize("folder", COMPARISONS, ids=[f.name for f in COMPARISONS])


def keys(value):
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


def quotable(said):
    """A record without the word that says which of an audit's three questions a finding answers, and a count of 0."""
    if said.get("kind") != "audit":
        return said
    findings = [{k: v for k, v in f.items() if k != "question"} for f in said["verdict"]["findings"]]
    said = {k: v for k, v in said.items() if (k, v) != ("examples", 0)}  # how many are shown
    return said | {"verdict": said["verdict"] | {"findings": findings}}


def check_folder(folder):
    """Nothing in it quotes data, names a path, or does not belong there."""
    for file in folder.rglob("*"):
        if file.suffix in (".json", ".html", ".svg", ".toml", ".md"):
            assert not PATH.search(file.read_text(encoding="utf-8")), file
        if file.suffix == ".json":
            assert not DATA & keys(quotable(json.loads(file.read_text(encoding="utf-8")))), file
        assert file.is_dir() or file.suffix not in (".parquet", ".safetensors", ".jsonl"), file
        assert file.name not in ("scores", "runs"), file


def check_comparison(folder):
    """A comparison and its recipe are of the same methods, all with the same steps, but for those that end by themselves."""
    said = record.read(folder / "compare.json")
    (recipe,) = folder.glob("*.toml")
    methods = tomllib.loads(recipe.read_text(encoding="utf-8"))["methods"]
    labels = {r["label"] for r in said["runs"]}
    ends = {label for label, table in methods.items() if method.entry(table.get("method", label)).make().reads_level}
    for run in said["runs"]:
        steps, budget = run["steps"], said["budget"]["steps"]
        assert not run["done"] or steps == budget or (run["label"] in ends and steps < budget)
    if (folder / "trials.json").exists():
        tried = record.read(folder / "trials.json")
        best = compare.best(tried["trials"], tried["chosen_by"])
        assert {label: run["choice"] for label, run in best.items()} == tried["chosen"]
        assert set(best) == labels <= {r["label"] for r in tried["trials"]} <= set(methods)
    else:
        assert labels == set(methods)


def test_nothing_there_quotes_data_or_names_a_path():
    check_folder(FOLDER)


@every
def test_a_comparison_is_whole(folder):
    check_comparison(folder)
    assert (folder / "tradeoff.png").read_bytes().startswith(b"\x89PNG")


@every
def test_its_figure_shows_its_numbers(folder):
    said = record.read(folder / "compare.json")
    words = tradeoff.in_words(said, compared.names(said))
    for name in ("tradeoff.svg", "report.html"):
        shown = re.search(r'<title id="tradeoff-title">(.*?)</title>', (folder / name).read_text(encoding="utf-8"))
        assert shown and html.unescape(shown[1]) == words, name


@pytest.mark.parametrize(
    ("text", "found"), [("a /work/x", True), ("//arxiv.org/abs", False), ("C:\\x", True), ("a/tmp/b", False)]
)
def test_paths_are_told_from_addresses(text, found):
    assert bool(PATH.search(text)) == found


def test_the_scores_of_an_older_comparison_are_those_of_its_record():
    """``scores.md`` beside a record that has no scores of its own: the table is made of the record alone."""
    files = sorted(FOLDER.glob("*/scores.md"))
    assert files
    for file in files:
        said = compare.scored(record.read(file.parent / "compare.json"))
        lines = {line.name: [value for value, _ in line.cells] for line in compared.score_lines(said)}
        rows = re.findall(r"^\| `?([\w ]+?)`? \| ([\d. |–]+) \|$", file.read_text(encoding="utf-8"), re.MULTILINE)
        assert {name: cells.split(" | ") for name, cells in rows} == lines
