"""Answers judged: each different one once, what the judge's table holds not again."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.audit import fluency, settings
from expunge.audit.material import Material, Rewritten
from expunge.data.example import Row
from expunge.evaluation.table import Collected, Generated, Scored

ROWS = [Row(({"role": "user", "content": f"q{i}"},), f"word{i} lives in place{i}") for i in range(2)]


def scored(part: str, index: int, probability: float, variant: str = "answer", text: str | None = None) -> Scored:
    logp = np.log(np.full(4, probability, np.float32))
    text = ROWS[index].answer if text is None else text
    return Scored(part, index, variant, text, logp, logp, np.ones(4, np.float32), logp > -1)


def answers(*texts: str) -> tuple[Generated, ...]:
    return tuple(Generated("forget", i, "answer", ROWS[i].answer, text) for i, text in enumerate(texts))


@pytest.fixture
def judge(monkeypatch, tiny_model):
    """The texts that were scored, by place, each of them as likely as a third."""
    from expunge.models.tokenizer import load_tokenizer

    said: list[tuple[str, int, str]] = []

    def collect(model, tokenizer, probes, **_):
        texts = [(p, variant, text) for p in probes for variant, text in p.texts.items()]
        said.extend((p.part, p.index, text) for p, _, text in texts)
        return Collected(tuple(scored(p.part, p.index, 1 / 3, variant, text) for p, variant, text in texts), ())

    monkeypatch.setattr(fluency, "collect", collect)
    return said, load_tokenizer(str(tiny_model))


def test_each_answer_once(judge):
    said, tokenizer = judge
    held = tuple(scored("forget", i, 0.9) for i in range(2))  # the right answers
    tables = {
        "target": Collected(held, answers(ROWS[0].answer, "it is another")),
        "unlearned": Collected((), answers("it is nothing", "it is another")),
        "control": Collected((), answers("", "it is nothing")),
    }
    material = Material(ROWS, [], [], [], [], [Rewritten() for _ in ROWS], {})
    found = fluency.judged(tables, None, tokenizer, material, settings.Audit(model="m", target="t", forget="f"))
    assert sorted(said) == sorted([
        ("forget", 0, "it is nothing"), ("forget", 1, "it is another"), ("forget", 1, "it is nothing"),
    ])  # fmt: skip
    values = {role: of["forget"]["fluency"] for role, of in found.items()}
    assert values["target"][1] == values["unlearned"][1] and values["control"][0] == 0
    assert values["target"][0] > values["target"][1] and np.isfinite(values["unlearned"]).all()


def test_a_plain_text_was_scored_as_no_answer():
    held = (scored("forget", 0, 0.9),)
    plain = Row(None, ROWS[0].answer)
    assert set(fluency.already_scored(Collected(held, ()), {"forget": ROWS})) == {("forget", 0, ROWS[0].answer)}
    assert fluency.already_scored(Collected(held, ()), {"forget": [plain]}) == {}
