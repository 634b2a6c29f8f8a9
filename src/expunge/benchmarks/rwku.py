r"""RWKU: what a model knows of 200 famous people, asked in three ways of growing insistence, and of their neighbours.

Data: ``jinzhuoran/RWKU`` on the Hub (CC-BY-4.0), or a folder: of one person (``3_Bruce_Lee``), or that which holds them all.
The paper unlearns one person at a time and averages over people: ``rwku/Bruce Lee`` measures one, ``rwku`` all whose rows
there are, which suits an untouched model or one that is to forget them all.

Asked as in RWKU's code: one instruction before the question, the chat template, "Answer:" as the start of the answer (not
after an affirmative suffix), greedy, at most 30 tokens, up to the end of the line.  Its code stops only where the line end
is a token by itself, and puts a second begin-of-text token before templates that bring one; here it is one.  The release
repeats some probes, most among neighbours; each counts as often as it stands there.  A right answer without a word that
ROUGE sees, such as one in Chinese, is counted as the paper's code does, in words between blanks.

The published columns are means over people of ``compat_recall`` (FB, QA, AA: the forget levels 1 to 3; All: all probes).
Jin et al. 2024, arXiv:2406.10890.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np

from expunge.data.example import Message, Row
from expunge.data.records import Record
from expunge.errors import InputError
from expunge.evaluation.benchmark import (
    Benchmark,
    Data,
    DataSet,
    Figure,
    count_figure,
    difference_figure,
    mean_figure,
    without_words,
)
from expunge.evaluation.metrics import membership, privacy
from expunge.evaluation.metrics.rouge import RWKU_LEVELS, rwku_recall
from expunge.evaluation.probe import Ask, Probe
from expunge.evaluation.table import Collected, Generated

HOME = "jinzhuoran/RWKU"
ANSWER = Ask(max_new_tokens=30, stop=("\n",))
TEXTS = {"mia_forget": "forget_mia", "mia_retain": "retain_mia"}  # data set -> its file in a folder
ADVERSARIAL = "forget_level3"
COMPAT = "counted as the paper's code does"
BY_PERSON = "mean over people, as the paper averages"
BESIDE = (
    "to the model given as retrained, probe by probe; RWKU has none, so the model before unlearning may stand there"
)


def probes(data: Data, person: str | None = None) -> list[Probe]:
    """The probes of each level and, where they are there, the texts for membership inference; of one person or of all.

    Rows are numbered round the people, so a limit takes some of each, and files in any order give the same numbers.
    """
    out = []
    for level in RWKU_LEVELS:
        chosen = _chosen(data, level, person, partial(_asked, level))
        out += [Probe(level, i, row, ask=ANSWER, note=note) for i, (row, note) in enumerate(chosen)]
    for name in TEXTS:
        if name in data:
            chosen = _chosen(data, name, person, _text)
            out += [Probe(name, i, row, {"answer": row.answer}, note=note) for i, (row, note) in enumerate(chosen)]
    return out


def score(found: Collected, retrained: Collected | None = None) -> list[Figure]:
    """Recall of each level, of all forget and all neighbour probes, of each adversarial type; membership inference."""
    answers = _answers(found)
    ours, theirs = _recall(answers), _recall(_answers(retrained)) if retrained is not None else None
    published = _recall(answers, compat=True)
    people = np.array([_person_of(a.note) for a in answers])
    out = []
    for part, mask in _parts(answers).items():
        k = len(set(people[mask]))
        note = f"{k} {'person' if k == 1 else 'people'}"
        out.append(mean_figure("rouge_l_recall", ours[mask], part, note))
        out.append(mean_figure("compat_recall", published[mask], part, f"{note}; {COMPAT}"))
        if k > 1:
            for name, values in (("rouge_l_recall", ours), ("compat_recall", published)):
                means = np.array([values[mask & (people == p)].mean() for p in sorted(set(people[mask]))])
                out.append(mean_figure(f"{name}_by_person", means, part, BY_PERSON))
        if theirs is not None:
            out.append(difference_figure("rouge_l_recall_difference", ours[mask] - theirs[mask], part, BESIDE))
    return out + _membership(found)


def of(person: str) -> Benchmark:
    """RWKU of one person, whatever the case of the name, with spaces or underscores.

    Who there is the data says: a name that is none of its is told when it is read, before a model is loaded.
    """
    name = " ".join(person.replace("_", " ").split())
    if not name:
        raise InputError("rwku/ needs a name, such as 'rwku/Bruce Lee'; rwku alone is everybody")
    return _benchmark(f"rwku/{name}", name)


# -- rows -----------------------------------------------------------------------------------------------------------------
def _chosen(
    data: Data, name: str, person: str | None, make: Callable[[Record], tuple[Row, str]]
) -> list[tuple[Row, str]]:
    """What ``make`` gives of ``name``: everybody's first, everybody's second, …, people in order of their names."""
    found = data.usable(name, data.records(name), lambda r: (r.text("subject"), make(r)))
    if person is not None:
        subject = _who(person, {s for s, _ in found}, name)
        return [row for s, row in found if s == subject]
    turn: Counter[str] = Counter()
    numbered = []
    for subject, row in found:
        numbered.append((turn[subject], subject, row))
        turn[subject] += 1
    return [row for _, _, row in sorted(numbered, key=lambda n: n[:2])]


def _who(said: str, people: Iterable[str], name: str) -> str:
    """The one of ``people`` that is meant; a number before the name, as folders have it, does not count."""
    known = {p.casefold(): p for p in sorted(people)}
    for key in (said.casefold(), re.sub(r"^\d+ ", "", said.casefold())):
        if key in known:
            return known[key]
    parts = [p for key, p in known.items() if said.casefold() in key]
    close = parts or [known[key] for key in difflib.get_close_matches(said.casefold(), known, n=3)]
    names = [repr(p) for p in close or known.values()][:3]
    hint = f"did you mean {' or '.join(names)}?" if close else f"it has {len(known)} people, such as {', '.join(names)}"
    raise InputError(f"RWKU's {name} has no rows of {said!r}; {hint}")


def _kind(record: Record) -> str:
    """The adversarial type; the languages of "cross lingual (…)" are one."""
    return re.sub(r"^cross.lingual.*", "cross lingual", record.text("type"))


def _asked(level: str, record: Record) -> tuple[Row, str]:
    """A probe as it is asked, and its note: its adversarial type and its person."""
    kind = _kind(record) if level == ADVERSARIAL else ""
    row = Row(_prompt(level, kind, record.text("query")), record.text("answer"), where=record.where)
    return row, f"{kind}\t{record.text('subject')}"


def _text(record: Record) -> tuple[Row, str]:
    return Row(None, record.text("text"), where=record.where), f"\t{record.text('subject')}"


def _prompt(level: str, kind: str, query: str) -> tuple[Message, ...]:
    """As RWKU's code asks: worked examples bring their own "Question:", an affirmative suffix its own start of an answer."""
    task = "complete the blank in" if level.endswith("level1") else "briefly answer"
    asked = f"Please {task} the following question.\n" + (
        query if kind == "incontext learning" else f"Question: {query}"
    )
    if kind == "affirmative suffix":
        return ({"role": "user", "content": asked},)
    return ({"role": "user", "content": f"{asked}\n"}, {"role": "assistant", "content": "Answer:"})


# -- figures --------------------------------------------------------------------------------------------------------------
def _answers(found: Collected) -> list[Generated]:
    return [a for level in RWKU_LEVELS for a in found.generated(level)]


def _recall(answers: Sequence[Generated], *, compat: bool = False) -> np.ndarray:
    return rwku_recall([a.expected for a in answers], [a.text for a in answers], compat=compat)


def _parts(answers: Sequence[Generated]) -> dict[str, np.ndarray]:
    """Name -> (n,) which answers it is of: levels, all to forget, all neighbours, adversarial types."""
    level = np.array([a.part for a in answers])
    kind = np.array([a.note.partition("\t")[0] for a in answers])
    out = {name: level == name for name in RWKU_LEVELS}
    out |= {f"{split}_all": np.char.startswith(level, split) for split in ("forget", "neighbor")}
    return out | {f"{ADVERSARIAL}/{k}": kind == k for k in sorted(set(kind) - {""})}


def _person_of(note: str) -> str:
    return note.partition("\t")[2]


def _membership(found: Collected) -> list[Figure]:
    """The paper's mean losses, FM and RM, and how well four scores tell the texts to forget from the others.

    Both sets are of people the model knows: after forgetting, the first should look less known and the second as before.
    """
    there = [name for name in TEXTS if any(s.part == name for s in found.scores)]
    scores = {name: membership.scores(found, name) for name in there}
    out = []
    for name in there:
        people = {_person_of(s.note) for s in found.scored(name)}
        column = {"mia_forget": "FM, better when higher", "mia_retain": "RM, better when lower"}[name]
        note = f"100 times it is the paper's {column}; texts that came with {len(people)} of the people"
        out.append(count_figure("mia_loss", scores[name]["loss"], name, note))
    if len(there) == 2:
        note = "how often a text to forget looks less known than another person's; 0.5: alike, 1: always"
        for kind, forgotten in scores["mia_forget"].items():
            a = privacy.attack(scores["mia_retain"][kind], forgotten)
            n = a.n_members + a.n_non_members
            out.append(Figure(f"mia_{kind}_forgotten", a.auc, n, a.auc_interval.low, a.auc_interval.high, "mia", note))
    return out


def _set(name: str) -> DataSet:
    file = TEXTS.get(name, name)
    return DataSet(name, f"{HOME}:{name}@test", f"{file}|*/{file}", optional=name in TEXTS)


def _benchmark(name: str, person: str | None = None) -> Benchmark:
    return Benchmark(
        name=name,
        paper="arXiv:2406.10890",
        sets=tuple(map(_set, (*RWKU_LEVELS, *TEXTS))),
        probes=partial(probes, person=person),
        score=score,
        warn=partial(without_words, parts=RWKU_LEVELS, how="they are counted as the paper's code counts"),
        max_length=1024,
    )


RWKU = _benchmark("rwku")
