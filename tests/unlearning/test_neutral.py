"""A retain set that the model writes itself: when, what is left out of it, and that a run goes on with the same."""

from __future__ import annotations

import json
import stat
from types import SimpleNamespace

import pytest

from expunge import record, unlearn
from expunge.data.example import Row
from expunge.errors import InputError
from expunge.generation import sample
from expunge.unlearning import neutral
from expunge.unlearning.ready import planned
from expunge.unlearning.settings import Recipe

FAST = {"max_steps": 2, "learning_rate": 0.02, "disable_tqdm": True, "use_cpu": True, "method": "grad_diff"}


def question(text, answer):
    return Row(({"role": "user", "content": text},), answer)


@pytest.fixture
def written(monkeypatch):
    """Lets the model write ten rows, two of which speak of somebody in the workplace's forget set; gives the calls."""
    calls = []

    def neutral_rows(model, tokenizer, n, *, seed, chat_template=True):
        calls.append((n, seed))
        rows = [question(f"what is {i} and {i}", f"it is {2 * i}") for i in range(n - 2)]
        return [*rows, question("who is Zorba", "a man"), question("who danced", "it was Zorba")]

    monkeypatch.setattr(sample, "neutral_rows", neutral_rows)
    return calls


def test_a_run_without_a_retain_set_lets_the_model_write_one(workplace, written):
    (workplace / "named.jsonl").write_text(
        json.dumps({"question": "tell me of old Zorba", "answer": "he dances"}) + "\n"
    )
    given = {"forget": "named.jsonl", "self_retain": 10, "seed": 3, **FAST}
    log = unlearn("model", **given).record
    assert written == [(10, 3)] and log["data"]["retain"]["rows"] == 8
    assert log["data"]["retain"]["source"] == "written by the model itself"
    assert "retain" in log["before"] and "retain" in log["after"]
    assert any("the model wrote one of 8 questions" in w for w in log["warnings"])
    file = workplace / "unlearned" / neutral.FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and neutral.FILE in record.read(file.parent)["private_files"]
    assert len(json.loads(file.read_text())["rows"]) == 8 and "Zorba" not in file.read_text()


def test_what_was_written_serves_the_same_forget_rows_model_and_number_only(written, tmp_path):
    forget, target = [question("Who?", "Of old Zorba.")], SimpleNamespace(model=None, tokenizer=None, fingerprint="abc")

    def rows(n=10, forget=forget):
        return neutral._rows(forget, target, Recipe(model="m", forget=[], self_retain=n), tmp_path)

    assert len(rows()) == 8 and rows() == rows() and len(written) == 1
    assert len(rows(12)) == 10 and len(rows(12, [question("Who?", "Nobody.")])) == 12 and len(written) == 3


def test_too_few_rows_are_refused(workplace, monkeypatch):
    monkeypatch.setattr(sample, "neutral_rows", lambda *_, **__: [question("who is Zorba", "a man")] * 10)
    (workplace / "named.jsonl").write_text(
        json.dumps({"question": "tell me of old Zorba", "answer": "he dances"}) + "\n"
    )
    with pytest.raises(
        InputError, match="of 10 questions and answers that the model wrote as a retain set 0 have no name"
    ):
        unlearn("model", forget="named.jsonl", self_retain=10, **FAST)


def test_when_it_writes_and_what_is_refused_before_a_model_is_loaded(workplace):
    def settings(**kw):
        return Recipe(model="model", forget="forget.jsonl", **kw)

    assert planned(settings(method="grad_diff"))["data"] == {"forget": 3, "retain": 64}
    assert planned(settings(method="gradient_ascent"))["data"] == {"forget": 3}
    with pytest.raises(InputError, match="leave out one of the two"):
        planned(settings(method="grad_diff", retain="retain.jsonl", self_retain=5))
    with pytest.raises(InputError, match="let the model write some with --self-retain 64"):
        planned(settings(method="grad_diff", self_retain=0))
