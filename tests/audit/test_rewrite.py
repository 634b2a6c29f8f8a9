"""What the target writes is kept only where it fits, once, for its owner alone; what is given is not written again."""

from __future__ import annotations

import stat
from dataclasses import replace
from types import SimpleNamespace

from expunge.audit import material, rewrite, settings
from expunge.data.example import Row


def row(question: str, answer: str) -> Row:
    return Row(({"role": "user", "content": question},), answer)


def test_fit_questions():
    own = row("When did Ada Lovelace publish 3 notes?", "She published them in 1843 in London.")
    assert (
        rewrite.fit_question(own, "Question: In which year were Ada Lovelace's 3 notes published?") is None
    )  # Lovelace's
    assert rewrite.fit_question(own, "In which year did Ada Lovelace bring out 3 notes? Or so.") == (
        "In which year did Ada Lovelace bring out 3 notes?"
    )
    for text in (
        "",
        "Ada Lovelace published 3 notes.",
        "Did Ada Lovelace publish 3 notes in London?",
        "When did Ada Lovelace?",
    ):
        assert rewrite.fit_question(own, text) is None


def test_fit_wrong_answers():
    own = row("When did Ada Lovelace publish 3 notes?", "She published them in 1843 in London.")
    assert rewrite.fit_wrong(own, "She published them in 1901 in Paris.")
    assert not rewrite.fit_wrong(own, "In London in 1843 she published them.")
    assert not rewrite.fit_wrong(own, "No.") and not rewrite.fit_wrong(own, "She published them in 1901 in Paris." * 9)


def test_written_once_and_read_again(tmp_path, monkeypatch):
    rows = [row(f"Where does {n} live?", f"{n} lives in Oru.") for n in ("Ada", "Bo", "Cy", "Di")]
    rewritten = [material.Rewritten(), material.Rewritten("What is the place of Bo?", ("Bo lives in Zug.",), True)]
    rewritten += [material.Rewritten(), material.Rewritten()]
    given = material.Material(rows, [], [], [], [], rewritten, {"forget": rows})
    drawn: list[tuple[str, int]] = []

    def answers(kind, some, target, chosen, turn):
        drawn.append((kind, len(some)))
        if kind == "wrong":
            return [f"{r.answer.split()[0]} lives in Tar." for r in some]
        names = [r.answer.split()[0] for r in some]
        return [f"In what place does {n} live?" if n != "Di" else "Where?" for n in names]

    monkeypatch.setattr(rewrite, "_drawn", answers)
    target = SimpleNamespace(fingerprint="f", model=None, tokenizer=None)
    chosen = settings.Audit(model="m", target="t", forget="f")
    done, about = rewrite.complete(given, target, chosen, tmp_path)
    assert [r.question for r in done.rewritten] == [
        "In what place does Ada live?", "What is the place of Bo?", "In what place does Cy live?", None,
    ]  # fmt: skip
    assert [r.wrong for r in done.rewritten][1] == ("Bo lives in Zug.",) and done.wrong
    assert about == {"questions": 3, "wrong": 4, "given": 1, "by": "the target model"}
    assert drawn == [("question", 3), ("question", 1), ("question", 1), ("wrong", 3)]
    assert stat.S_IMODE((tmp_path / rewrite.FILE).stat().st_mode) == 0o600
    again, _ = rewrite.complete(given, target, chosen, tmp_path)
    assert again.rewritten == done.rewritten and len(drawn) == 4
    other, _ = rewrite.complete(given, SimpleNamespace(fingerprint="g", model=None, tokenizer=None), chosen, tmp_path)
    assert len(drawn) == 8 and other.rewritten == done.rewritten
    none, about = rewrite.complete(given, target, chosen.model_copy(update={"rewrite": False}), tmp_path)
    assert none.rewritten == rewritten and about["by"] is None


def test_wrong_answers_to_the_attackers_rows_too(tmp_path, monkeypatch):
    """Those that bring none get one; nothing is wanted, and so no model, where all rows bring theirs."""
    known = [row("Where does Eda live?", "Eda lives in Oru."), row("Where does Flo live?", "Flo lives in Oru.")]
    known[1] = replace(known[1], perturbed=("Flo lives in Zug.",))
    given = [material.Rewritten("What is the place of Ada?", ("Ada lives in Zug.",), True)]
    rows = material.Material([row("Where does Ada live?", "Ada lives in Oru.")], known, [], [], [], given, {})
    chosen = settings.Audit(model="m", target="t", forget="f")
    assert [(w.key, w.kinds) for w in rewrite.wanted(rows, chosen)] == [("known 0", ("wrong",))]
    monkeypatch.setattr(
        rewrite, "_drawn", lambda kind, some, *_: [f"{r.answer.split()[0]} lives in Tar." for r in some]
    )
    target = SimpleNamespace(fingerprint="f", model=None, tokenizer=None)
    done, _ = rewrite.complete(rows, target, chosen, tmp_path)
    assert [r.perturbed for r in done.known] == [("Eda lives in Tar.",), ("Flo lives in Zug.",)]
    alone = replace(rows, known=known[1:])
    assert rewrite.wanted(alone, chosen) == [] and rewrite.complete(alone, None, chosen, tmp_path)[0].known == known[1:]
