"""The figures of a guard, against numbers worked by hand."""

from __future__ import annotations

import json

import pytest

from expunge import stats
from expunge.data.example import Row
from expunge.errors import InputError
from expunge.guard import EndpointError, Target
from expunge.guard.measure import figures, measure, questions, table, write_json

pytest.importorskip("rouge_score", reason="needs expunge[bench]")


def row(question, answer, **more):
    return Row(({"role": "user", "content": question},), answer, where="f.jsonl, line 1", **more)


FORGET = [row("Where did Ada Oru live?", "Ada Oru lived in Lim."), row("And Bo Tar?", "He lived in Ven.")]
RETAIN = [row("What is the capital?", "The capital is Sol City"), row("Who rules?", "A king rules")]


def test_figures_by_hand(guarded):
    """Forget: the first is rewritten (4 calls), the second refused, since its critic talks nonsense (3 calls, no retry)."""
    replies = {
        "Where did Ada Oru live?": "Ada Oru lived in Lim.",
        "And Bo Tar?": "In Ven.",
        "What is the capital?": "Sol City",
    }
    guard, _ = guarded(
        vanilla=lambda messages: replies.get(messages[-1]["content"], "No idea"),
        compose="In a town",
        critic=["Ratings: [5, 5, 5, 5, 5]", "?"],
        settings={"retries": 0},
    )
    logged = []
    f, trails = measure(guard, FORGET, each=logged.append)
    assert trails == logged and [t.outcome for t in trails] == ["rewritten", "refused"]
    assert (f.n, f.calls.value, f.mentions.value, f.refusals.value, f.vanilla_mentions.value) == (2, 3.5, 0, 0.5, 0.5)
    # "In a town" and the refusal have 1 of 5 and 0 of 4 words; without a guard all 5, and 2 of 4
    assert f.rouge.value == pytest.approx((1 / 5 + 0) / 2) and f.vanilla_rouge.value == pytest.approx((1 + 2 / 4) / 2)
    exact = stats.clopper_pearson(1, 2)
    assert (f.refusals.low, f.refusals.high) == (exact.low, exact.high)
    assert f.seconds.value == pytest.approx(sum(t.seconds for t in trails) / 2)

    r, _ = measure(guard, RETAIN)
    assert (r.calls.value, r.refusals.value, r.vanilla_mentions.value) == (1, 0, 0)
    assert r.rouge.value == r.vanilla_rouge.value == pytest.approx((2 / 5 + 0) / 2)


def test_mentions_are_counted_in_what_is_shown(guarded):
    """With a check that sees other targets than those counted, the share is not 0."""
    guard, _ = guarded(vanilla="Ada Oru lives in Zed.")
    _, trails = measure(guard, RETAIN)
    f = figures(trails, [r.answer for r in RETAIN], [Target("town")], "no")
    assert f.mentions.value == 1 and f.vanilla_mentions.value == 0


def test_a_query_that_fails_is_kept_too(guarded):
    guard, _ = guarded(erase=EndpointError("gone"))
    logged = []
    with pytest.raises(EndpointError, match="gone"):
        measure(guard, FORGET, each=logged.append)
    assert [t.outcome for t in logged] == ["failed"] and logged[0].vanilla


def test_rows_that_ask_nothing_are_told():
    with pytest.raises(InputError, match=r"f.jsonl, line 1: a plain text"):
        questions([Row(None, "text", where="f.jsonl, line 1")])
    with pytest.raises(InputError, match="must be the user's"):
        questions([Row(({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}), "c")])
    with pytest.raises(InputError, match="no right answer of the set has a word that ROUGE sees"):
        questions([row("a", "?!")])
    assert questions([Row("Say:", "it")]) == [(({"role": "user", "content": "Say:"},), "it")]


def test_a_table_and_a_file_without_any_text(guarded, tmp_path):
    guard, _ = guarded()
    figures_by_set = {"forget": measure(guard, FORGET)[0], "retain": measure(guard, RETAIN)[0]}
    text_table = table(figures_by_set)
    assert "forget: 2 questions" in text_table and "calls a query               4.000 (4.000 to 4.000)" in text_table
    write_json(figures_by_set, guard.settings, 2, "m", tmp_path / "f.json")
    text = (tmp_path / "f.json").read_text()
    assert json.loads(text)["figures"]["forget"]["calls"] == {"value": 4.0, "low": 4.0, "high": 4.0}
    assert "Ada" not in text and "Lim" not in text
    with pytest.raises(InputError, match="cannot be written"):
        write_json(figures_by_set, guard.settings, 2, "m", tmp_path)
