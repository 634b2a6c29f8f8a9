"""What TOFU gives ready-made, for any rows: paraphrased questions and wrong answers, written by the target and checked.

They quote the forget rows, so ``material.json`` beside the record is its owner's alone.  A question is taken only if it
keeps the names and numbers of the row's own and says nothing more of the answer; a wrong answer only if it is not the
right one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from expunge import files, record
from expunge.audit.material import Material, Rewritten
from expunge.audit.settings import Audit
from expunge.data import chat, sources
from expunge.data.example import Row
from expunge.errors import InputError
from expunge.evaluation.metrics.fluency import words
from expunge.generation import sample as generate
from expunge.unlearning import alternates

FILE = "material.json"
ROUNDS = 3  # how often a text that does not fit is drawn again at most
TOKENS = 48
REPEATED = 0.75  # the share of the right answer's own words from which a wrong answer is the right one
PROMPT = """Rewrite this question in other words. Keep every name, number and date, and ask for the same thing. Write the \
question and nothing else.

Question: {question}"""


def complete(material: Material, target: Any, settings: Audit, folder: Path) -> tuple[Material, dict[str, Any]]:
    """``material`` with what its rows lack written by ``target`` (:class:`expunge.models.Loaded`), and what is said of it.

    Read from ``material.json`` in ``folder`` if it is of the same rows, model and seed.
    """
    lacking = [i for i, r in enumerate(material.rewritten) if r.question is None or not r.wrong]
    usable = [i for i in lacking if isinstance(material.forget[i].prompt, tuple)]
    out, warnings = list(material.rewritten), []
    if settings.rewrite and usable:
        key = _key(material, target, settings)
        made = _read(folder / FILE, key)
        if made is None:
            made = _written(material, usable, target, settings)
            said = {"schema": record.SCHEMA, "made_of": key, "rows": made}
            files.write_json(folder / FILE, said, mode=files.PRIVATE)
        for i in usable:
            text = made.get(str(i), {})
            out[i] = Rewritten(out[i].question or text.get("question"), out[i].wrong or tuple(text.get("wrong", ())))
    done = replace(material, rewritten=out)
    about = {
        "questions": sum(r.question is not None for r in out),
        "wrong": sum(bool(r.wrong) for r in out),
        "given": sum(r.given for r in material.rewritten),
        "by": "the user"
        if all(r.given for r in material.rewritten)
        else "the target model"
        if settings.rewrite
        else None,
    }
    if usable and settings.rewrite and not done.wrong:
        warnings.append(
            f"the target wrote a fit wrong answer to {about['wrong']} of {len(out)} rows, too few for figures of them; give "
            "some in a column perturbed_answer"
        )
    return replace(done, warnings=[*material.warnings, *warnings]), about


def _key(material: Material, target: Any, settings: Audit) -> dict[str, Any]:
    return {
        "forget": sources.fingerprint(material.forget),
        "model": target.fingerprint,
        "seed": settings.seed,
        "chat_template": settings.chat_template,
        "prompts": [PROMPT, alternates.PROMPT],
    }


def _read(file: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        said = files.read_json(
            file, description="file of rewritten rows", remedy="remove it, and they are written again"
        )
    except InputError:
        return None
    return said["rows"] if said.get("made_of") == key and isinstance(said.get("rows"), dict) else None


def _written(material: Material, numbers: Sequence[int], target: Any, settings: Audit) -> dict[str, dict[str, Any]]:
    """Row number -> what the target wrote of it and what passed the checks."""
    rows = {i: material.forget[i] for i in numbers}
    out: dict[str, dict[str, Any]] = {str(i): {} for i in numbers}
    wanted = {
        "question": [i for i in numbers if material.rewritten[i].question is None],
        "wrong": [i for i in numbers if not material.rewritten[i].wrong],
    }
    for kind, left in wanted.items():
        for turn in range(ROUNDS):
            left = [i for i in left if kind not in out[str(i)]]
            if not left:
                break
            for i, text in zip(left, _drawn(kind, [rows[i] for i in left], target, settings, turn), strict=True):
                if kind == "question" and (question := fit_question(rows[i], text)):
                    out[str(i)]["question"] = question
                elif kind == "wrong" and fit_wrong(rows[i], text):
                    out[str(i)]["wrong"] = [text]
    return out


def _drawn(kind: str, rows: Sequence[Row], target: Any, settings: Audit, turn: int) -> list[str]:
    import torch

    seed = settings.seed + 1000 * turn
    if kind == "wrong":
        how: dict[str, Any] = {"seed": seed, "chat_template": settings.chat_template, "max_new_tokens": TOKENS}
        return alternates.generated(rows, target.model, target.tokenizer, rounds=1, **how)
    answers = generate.answers(
        target.model,
        target.tokenizer,
        [PROMPT.format(question=chat.question(row)) for row in rows],
        sampling=generate.Sampling(0.7, 0.95, TOKENS),
        generator=torch.Generator().manual_seed(seed),
        chat_template=settings.chat_template and bool(getattr(target.tokenizer, "chat_template", None)),
    )
    return [answer.text for answer in answers]


def fit_question(row: Row, text: str) -> str | None:
    """The first question in ``text`` if it may stand for that of ``row``, else None.

    It must keep names and numbers, be another text of like length, and hold no word of the answer that the row's own
    question lacks.

    >>> row = Row(({"role": "user", "content": "Where does Ada live?"},), "Ada lives in Oru.")
    >>> fit_question(row, "In which place does Ada live?"), fit_question(row, "Does Ada live in Oru?")
    ('In which place does Ada live?', None)
    >>> fit_question(row, "Where does he live?"), fit_question(row, "Where does Ada live?")
    (None, None)
    """
    own = chat.question(row)
    found = re.search(r"(?:Question:\s*)?([^\n?]{3,}\?)", text)
    if not found:
        return None
    question = found[1].strip()
    said, was, answer = ({w.casefold() for w in words(t)} for t in (question, own, row.answer))
    names = {w.casefold() for w in words(own)[1:] if w[0].isupper() or w[0].isdigit()}
    gives_away = {w for w in answer - was if len(w) > 2} & said - _COMMON
    same = question.casefold().split() == own.casefold().split()
    alike = 0.4 <= len(question) / max(1, len(own)) <= 2.5
    return question if alike and not same and names <= said and not gives_away else None


_COMMON = frozenset(
    [
        "the",
        "and",
        "for",
        "that",
        "with",
        "was",
        "are",
        "his",
        "her",
        "their",
        "its",
        "has",
        "have",
        "from",
        "which",
        "who",
        "what",
        "where",
        "when",
        "how",
    ]
)


def fit_wrong(row: Row, text: str) -> bool:
    """Whether ``text`` is a wrong answer: of like length, and without most of what the right one adds to the question.

    >>> row = Row(({"role": "user", "content": "Where does Ada live?"},), "Ada lives in Oru.")
    >>> fit_wrong(row, "Ada lives in Tar."), fit_wrong(row, "In Oru, Ada lives."), fit_wrong(row, "")
    (True, False, False)
    """
    said, question, answer = ({w.casefold() for w in words(t)} for t in (text, chat.question(row), row.answer))
    own = {w for w in answer - question if w not in _COMMON}
    alike = 0.3 <= len(text.strip()) / max(1, len(row.answer)) <= 3
    return bool(text.strip()) and alike and bool(own) and len(own & said) / len(own) < REPEATED
