"""What TOFU gives ready-made, for any rows: paraphrased questions and wrong answers, written by the target and checked.

They quote the forget rows, so ``material.json`` beside the record is its owner's alone.  A question is taken only if it
keeps the names and numbers of the row's own and says nothing more of the answer; a wrong answer only if it is not the
right one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from expunge import files, record
from expunge.audit.material import Material
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


@dataclass(frozen=True)
class Wanted:
    """A row that lacks a question in other words, a wrong answer, or both; ``key``: its name in ``material.json``."""

    key: str
    row: Row
    kinds: tuple[str, ...]


def wanted(material: Material, settings: Audit) -> list[Wanted]:
    """What has to be written: of measured forget rows what they lack, of the attacker's a wrong answer; of plain texts,
    and without ``rewrite``, nothing.
    """
    if not settings.rewrite:
        return []
    kinds = [("question",) * (r.question is None) + ("wrong",) * (not r.wrong) for r in material.rewritten]
    out = [Wanted(str(i), row, some) for i, (row, some) in enumerate(zip(material.forget, kinds, strict=True))]
    out += [Wanted(f"known {i}", row, ("wrong",) * (not row.perturbed)) for i, row in enumerate(material.known)]
    return [w for w in out if w.kinds and isinstance(w.row.prompt, tuple)]


def complete(material: Material, target: Any, settings: Audit, folder: Path) -> tuple[Material, dict[str, Any]]:
    """``material`` with what its rows lack written by ``target`` (:class:`expunge.models.Loaded`, None where
    :func:`wanted` says that nothing is), and what is said of that.

    Read from ``material.json`` in ``folder`` if it is of the same rows, model and seed.
    """
    lacking = wanted(material, settings)
    texts: dict[str, dict[str, Any]] = {}
    if lacking:
        key = _key(material, target, settings)
        texts = _read(folder / FILE, key) or {}
        if not texts:
            texts = _written(lacking, target, settings)
            said = {"schema": record.SCHEMA, "made_of": key, "rows": texts}
            files.write_json(folder / FILE, said, mode=files.PRIVATE)
    rewritten = [
        replace(r, question=r.question or of.get("question"), wrong=r.wrong or tuple(of.get("wrong", ())))
        for r, of in ((r, texts.get(str(i), {})) for i, r in enumerate(material.rewritten))
    ]
    known = [
        replace(row, perturbed=row.perturbed or tuple(texts.get(f"known {i}", {}).get("wrong", ())))
        for i, row in enumerate(material.known)
    ]
    done = replace(material, rewritten=rewritten, known=known)
    given = [r.given for r in material.rewritten]
    about = {
        "questions": sum(r.question is not None for r in rewritten),
        "wrong": sum(bool(r.wrong) for r in rewritten),
        "given": sum(given),
        "by": "the user" if all(given) else "the target model" if settings.rewrite else None,
    }
    warnings = list(material.warnings)
    if lacking and not done.wrong:
        warnings.append(
            f"the target wrote a fit wrong answer to {about['wrong']} of {len(rewritten)} rows, too few for figures of "
            "them; give some in a column perturbed_answer"
        )
    return replace(done, warnings=warnings), about


def _key(material: Material, target: Any, settings: Audit) -> dict[str, Any]:
    return {
        "forget": sources.fingerprint(material.forget),
        "known": sources.fingerprint(material.known) if material.known else None,
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


def _written(lacking: Sequence[Wanted], target: Any, settings: Audit) -> dict[str, dict[str, Any]]:
    """Key -> what the target wrote of that row and what passed the checks."""
    out: dict[str, dict[str, Any]] = {w.key: {} for w in lacking}
    for kind in ("question", "wrong"):
        for turn in range(ROUNDS):
            left = [w for w in lacking if kind in w.kinds and kind not in out[w.key]]
            if not left:
                break
            for w, text in zip(left, _drawn(kind, [w.row for w in left], target, settings, turn), strict=True):
                if kind == "question" and (question := fit_question(w.row, text)):
                    out[w.key]["question"] = question
                elif kind == "wrong" and fit_wrong(w.row, text):
                    out[w.key]["wrong"] = [text]
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
