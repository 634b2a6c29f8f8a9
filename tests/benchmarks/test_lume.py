"""LUME end to end on a tiny model: figures by hand from what was collected, its data in a folder and on GitHub, bad rows."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from golden import FIXTURES, whole

from expunge.benchmarks import lume, named
from expunge.data.chat import prompt_text
from expunge.errors import InputError
from expunge.evaluation import table
from expunge.evaluation.benchmark import Figure, data_of
from expunge.evaluation.evaluate import evaluate, read, rescore
from expunge.evaluation.metrics.lume import LUME_TERMS
from expunge.evaluation.probe import Ask, EvaluationOptions, fingerprint

pytest.importorskip("rouge_score", reason="ROUGE needs expunge[bench]")

LUME, ANSWER = named("lume"), lume.ANSWER
FULL = "one two three four"
UNSEEN = ("forget Task3 9 one two three four", "four one two", "QQQ", "Who is it", "Zz")
SAID = {FULL: 1.0, "four one two": 0.5, "": 0.0, "four": 0.25}  # its ROUGE-L recall against FULL


def rows(split):
    """Of each task four documents: a sentence of four words to complete and a question."""
    out = []
    for task in ("Task1", "Task2", "Task3"):
        for i in range(4):
            name = f'"{split}{task}{i}"'
            out.append({"id": f"{name}sc1", "input": f"{split} {task} {i}", "output": FULL, "task": task})
            out.append({"id": f"{name}qa0", "input": f"Who, {split} {task} {i}?", "output": "Ada", "task": task})
    return out


def write(file, content):
    file.write_text("".join(json.dumps(r) + "\n" for r in content))


@pytest.fixture
def folder(workplace, monkeypatch):
    """LUME's two files and a holdout; the cache is the test's own; a text is short, so that a test is."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(workplace / "cache"))
    monkeypatch.setattr(lume, "ANSWER", replace(lume.ANSWER, max_new_tokens=3))
    (workplace / "lume").mkdir()
    for split in ("forget", "retain"):
        write(workplace / "lume" / f"{split}.jsonl", rows(split))
    write(workplace / "lume" / "holdout.jsonl", [{"text": t} for t in UNSEEN])
    return workplace / "lume"


def by_name(figures):
    return {(f.part, f.name): f for f in figures}


def rescored(say):
    """The figures of ``out`` had the model said ``say(answer)``."""
    collected = table.read("out/scores")
    table.write(replace(collected, answers=tuple(replace(a, text=say(a)) for a in collected.answers)), "out/scores")
    return by_name(rescore(named, "out"))


def half_right(a):
    if a.part.endswith("regurgitation"):
        return [*SAID][a.index]
    return " ADA\n" if a.index == 0 else "Ada it is"


def test_figures_are_what_was_collected(folder):
    evaluate(LUME, "model", "out", data=folder)
    figures = rescored(half_right)
    back, known = sum(SAID.values()) / 4, 1 / 4
    for task in ("Task1", "Task2", "Task3"):
        assert figures[f"retain_{task}", "regurgitation"].value == pytest.approx(back)
        assert figures[f"forget_{task}", "one_minus_regurgitation"].value == pytest.approx(1 - back)
        assert figures[f"retain_{task}", "knowledge"].value == pytest.approx(known)
        assert figures[f"forget_{task}", "one_minus_knowledge"].value == pytest.approx(1 - known)
    terms = [back, 1 - back, known, 1 - known] * 3
    whole = figures["all", "task_aggregate"]
    assert whole.value == pytest.approx(12 / sum(1 / t for t in terms)) and whole.n == 48
    assert whole.low < whole.value < whole.high
    for f in figures.values():
        assert f.low is None or f.low <= f.value <= f.high


def test_membership_inference_and_the_final_score(folder):
    figures = by_name(evaluate(LUME, "model", "out", data=folder))
    collected = table.read("out/scores")
    members, others = ([-s.logp.mean(dtype=float) for s in collected.scored(p)] for p in ("documents", "holdout"))
    texts = [s.text for s in collected.scored("documents")]
    assert texts == [f"forget Task3 {i} {FULL}" for i in range(4)] and not any(s.ends for s in collected.scores)
    auc = np.mean([(o > m) + 0.5 * (o == m) for m in members for o in others])
    assert figures["documents", "mia_loss_auc"].value == pytest.approx(auc)
    assert 0 < auc < 1 and abs(auc - 2 / 3) > 0.01  # where the score would be the AUC itself
    mia = figures["documents", "mia_final"]
    assert mia.value == pytest.approx(1 - 2 * abs(auc - 0.5)) and mia.n == 9 and mia.low <= mia.value <= mia.high
    whole = rescored(half_right)["all", "task_aggregate"]
    last = lume.final("out", 0.4)
    assert last.value == pytest.approx((whole.value + mia.value + 0.4) / 3) and last.n == 48 + 9
    assert last.low < last.value < last.high and "MMLU accuracy of 0.4" in last.note
    with pytest.raises(InputError, match="mmlu must"):
        lume.final("out", 44.3)
    record = json.loads(Path("out/figures.json").read_text())
    Path("out/figures.json").write_text(json.dumps(record | {"benchmark": "tofu/forget01"}))
    with pytest.raises(InputError, match="holds figures of tofu/forget01"):
        lume.final("out", 0.4)


def test_the_membership_scores_interval_is_that_of_its_auc():
    """An AUC of 0.6 within [0.55, 0.7] is 0.8 within [0.6, 0.9]; where 1/2 lies within, the score may be 1."""
    for (low, auc, high), expected in (
        ((0.55, 0.6, 0.7), (0.6, 0.8, 0.9)),
        ((0.2, 0.3, 0.45), (0.4, 0.6, 0.9)),
        ((0.4, 0.5, 0.7), (0.6, 1, 1)),
    ):
        f = lume._mia_final(Figure("mia_loss_auc", auc, 9, low, high))
        assert (f.low, f.value, f.high) == pytest.approx(expected)


def test_without_a_holdout_it_says_what_it_leaves_out(folder):
    (folder / "holdout.jsonl").unlink()
    figures = by_name(evaluate(LUME, "model", "out", data=folder))
    assert read("out")["data"]["left_out"] == ["holdout"]
    assert not [name for _, name in figures if name.startswith("mia")] and not table.read("out/scores").scores
    assert "MMLU" in figures["all", "task_aggregate"].note
    with pytest.raises(InputError, match=r"no membership inference; put holdout\.jsonl"):
        lume.final("out", 0.4)


def test_empty_answers_score_nothing(folder):
    evaluate(LUME, "model", "out", data=folder)
    figures = rescored(lambda _: "")
    for (part, _), f in figures.items():
        if part.startswith(("forget_", "retain_")):
            assert f.value == part.startswith("forget_")
    whole = figures["all", "task_aggregate"]
    assert (whole.value, whole.low) == (0, 0) and 0 < whole.high < 1  # a few rows do not show that it is 0
    assert whole.note.startswith("0, for so is retain_Task1_regurgitation, retain_Task1_knowledge, retain_Task2_")


def test_the_difference_to_a_retrained_model(folder):
    evaluate(LUME, "model", "out", data=folder, retrained="model")
    figures = rescored(half_right)
    theirs = table.read("out/scores/retrained")
    assert not any(a.text == FULL for a in theirs.answers)
    gap = figures["retain_Task1", "regurgitation_difference"]
    assert gap.value == pytest.approx(sum(SAID.values()) / 4) and gap.note == "to the retrained model"
    assert figures["forget_Task1", "one_minus_knowledge_difference"].value == pytest.approx(-1 / 4)
    assert figures["documents", "privleak"].value == 0


def test_a_limit_is_of_each_term(folder):
    figures = by_name(evaluate(LUME, "model", "out", data=folder, how=EvaluationOptions(limit=1)))
    assert {f.n for (part, _), f in figures.items() if part.startswith(("forget_", "retain_"))} == {1}
    assert figures["documents", "mia_final"].n == 2


def test_what_is_asked(folder, tokenizer):
    probes = LUME.probes(data_of(LUME, folder))
    first = probes[0]
    assert (first.part, first.note) == ("forget_Task1_regurgitation", '"forgetTask10"sc1')
    assert prompt_text(first.row, tokenizer, chat_template=LUME.chat_template) == "forget Task1 0"
    assert LUME.chat_template is False and Ask(max_new_tokens=256) == ANSWER
    assert {p.ask is None for p in probes if p.part in ("documents", "holdout")} == {True}
    assert not any(p.texts for p in probes if p.part in LUME_TERMS)


def test_the_same_rows_from_github(folder, monkeypatch):
    (folder / "holdout.jsonl").unlink()
    sources = []

    def load_dataset(kind, data_files, split):
        sources.append((kind, data_files, split))
        return rows(Path(data_files).stem)

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    data = data_of(LUME)
    assert data.absent == ("holdout",)
    assert fingerprint(LUME.probes(data)) == fingerprint(LUME.probes(data_of(LUME, folder)))
    assert [kind for kind, *_ in sources] == ["json", "json"]
    assert all(
        "/amazon-science/lume-llm-unlearning/b2fa8f9c567715f1e2c6d442213f33b2e9a28fe6/data/" in a for _, a, _ in sources
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": "forgetxx1"}, r"^forget\.jsonl, line 3: the field 'id' must end with sc or qa and a digit"),
        ({"task": "Task4"}, r"^forget\.jsonl, line 3: the field 'task' must be Task1, Task2 or Task3"),
        ({"output": 984}, r"^forget\.jsonl, line 3: the field 'output' must be text"),
        ({"input": " "}, r"^forget\.jsonl, line 3: the field 'input' must be text that is not empty"),
        ({"id": None}, r"^forget\.jsonl, line 3: the field 'id' is missing"),
        ({"id": '"forgetTask10"sc1'}, r"^forget\.jsonl, line 3: the id stands in forget\.jsonl, line 1 too"),
    ],
)
def test_an_odd_row_is_left_out_and_counted(folder, change, says):
    before, content = data_of(LUME, folder), rows("forget")
    n = len(LUME.probes(before))
    write(folder / "forget.jsonl", [*content[:2], content[2] | change, *content[3:]])
    data = data_of(LUME, folder)
    assert len(LUME.probes(data)) == n - 1 and not before.warnings
    (warning,) = data.warnings
    assert re.search(says, warning.partition("the first: ")[2]) and warning.startswith(
        "1 row(s) of forget cannot be asked"
    )


def test_bad_sets(folder):
    write(folder / "holdout.jsonl", [{"document": "Of another column."}, {"document": f"forget Task3 2 {FULL}"}])
    LUME.probes(data := data_of(LUME, folder))
    assert "holdout.jsonl, line 2 of holdout also stands in forget (forget.jsonl, line 21)" in data.warnings[0]
    write(folder / "holdout.jsonl", [{"question": "Who?", "answer": "Ada"}])
    with pytest.raises(InputError, match=r"holdout\.jsonl, line 1: the field 'text' is missing"):
        evaluate(LUME, "model", "out", data=folder)
    write(folder / "retain.jsonl", [*rows("retain"), rows("forget")[5]])
    (folder / "holdout.jsonl").unlink()
    LUME.probes(data := data_of(LUME, folder))
    assert "retain.jsonl, line 25: the id stands in forget.jsonl, line 6 too" in data.warnings[0]
    write(folder / "retain.jsonl", [r for r in rows("retain") if "Task2" not in r["task"] or "qa" not in r["id"]])
    with pytest.raises(InputError, match="there is none for retain_Task2_knowledge"):
        evaluate(LUME, "model", "out", data=folder)


def test_real_rows():
    check_rows(FIXTURES / "lume", {"Task1": (6, 6), "Task2": (6, 6), "Task3": (6, 6)})


@pytest.mark.slow
def test_all_real_rows():
    check_rows(whole("lume"), {"Task1": (243, 246), "Task2": (250, 250), "Task3": (373, 371)})


def check_rows(folder, sizes):
    """All rows, each in the term it counts in; documents are put together at a word's end."""
    n = Counter(p.part for p in LUME.probes(data_of(LUME, folder)))
    assert sum(n.values()) == sum(len((folder / f"{s}.jsonl").read_text().splitlines()) for s in ("forget", "retain"))
    for task, pair in sizes.items():
        for split, size in zip(("forget", "retain"), pair, strict=True):
            questions = 5 * size if task == "Task2" else size
            assert (n[f"{split}_{task}_regurgitation"], n[f"{split}_{task}_knowledge"]) == (size, questions)
    probes = LUME.probes(data := data_of(LUME, folder))
    locations = {p.row.where for p in probes if p.part == "forget_Task3_regurgitation"}
    documents = lume._members(data.records("forget"), locations)
    assert len(documents) == sizes["Task3"][0] and not any("  " in row.answer[:20] for row in documents)
    assert data.warnings == []
