r"""RWKU: what a model knows of 200 famous people, by probes of three levels, and of their neighbours.

Data: ``jinzhuoran/RWKU`` on the Hub (CC-BY-4.0), or a folder: of one person (``3_Bruce_Lee``), or the parent of all of them.
The paper unlearns one person at a time and averages over people: ``rwku/Bruce Lee`` measures one, ``rwku`` all in the
data, for a model before unlearning or one that should forget them all.

Asked as in RWKU's code: one instruction before the question, the chat template, "Answer:" as the start of the answer (not
after an affirmative suffix), greedy, at most 30 tokens, up to the end of the line.  Its code stops only where the line end
is a token by itself, and puts a second begin-of-text token before templates that bring one; here it is one.  The release
repeats some probes, most among neighbours; each counts as often as it occurs.  A right answer without a word that
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
    """The probes of each level and, if present, the texts for membership inference; of one person or of all.

    Rows are numbered round-robin over the people, so a limit takes some of each, whatever the order of the files.
    """
    out = []
    for level in RWKU_LEVELS:
        selected = _select_rows(data, level, person, partial(_probe_row, level))
        out += [Probe(level, i, row, ask=ANSWER, note=note) for i, (row, note) in enumerate(selected)]
    for name in TEXTS:
        if name in data:
            selected = _select_rows(data, name, person, _text_row)
            out += [Probe(name, i, row, {"answer": row.answer}, note=note) for i, (row, note) in enumerate(selected)]
    return out


def score(collected: Collected, retrained: Collected | None = None) -> list[Figure]:
    """Recall of each level, of all forget and all neighbour probes, of each adversarial type; membership inference."""
    answers = _answers(collected)
    recall, retrained_recall = _recall(answers), _recall(_answers(retrained)) if retrained is not None else None
    compat_recall = _recall(answers, compat=True)
    people = np.array([_person_of(a.note) for a in answers])
    out = []
    for part, mask in _parts(answers).items():
        k = len(set(people[mask]))
        note = f"{k} {'person' if k == 1 else 'people'}"
        out.append(mean_figure("rouge_l_recall", recall[mask], part, note))
        out.append(mean_figure("compat_recall", compat_recall[mask], part, f"{note}; {COMPAT}"))
        if k > 1:
            for name, values in (("rouge_l_recall", recall), ("compat_recall", compat_recall)):
                means = np.array([values[mask & (people == p)].mean() for p in sorted(set(people[mask]))])
                out.append(mean_figure(f"{name}_by_person", means, part, BY_PERSON))
        if retrained_recall is not None:
            out.append(
                difference_figure("rouge_l_recall_difference", recall[mask] - retrained_recall[mask], part, BESIDE)
            )
    return out + _membership(collected)


def of(person: str) -> Benchmark:
    """RWKU of one person, whatever the case of the name, with spaces or underscores.

    The data decides who there is: an unknown name is an InputError when it is read, before a model is loaded.
    """
    name = " ".join(person.replace("_", " ").split())
    if not name:
        raise InputError("rwku/ needs a name, such as 'rwku/Bruce Lee'; rwku alone is everybody")
    return _benchmark(f"rwku/{name}", name)


# -- rows -----------------------------------------------------------------------------------------------------------------
def _select_rows(
    data: Data, name: str, person: str | None, make: Callable[[Record], tuple[Row, str]]
) -> list[tuple[Row, str]]:
    """``make`` of each row of ``name``, round-robin: everybody's first row, everybody's second, …, people sorted by name."""
    rows = data.usable(name, data.records(name), lambda r: (r.text("subject"), make(r)))
    if person is not None:
        subject = _match_person(person, {s for s, _ in rows}, name)
        return [row for s, row in rows if s == subject]
    n_rows: Counter[str] = Counter()
    ranked = []
    for subject, row in rows:
        ranked.append((n_rows[subject], subject, row))
        n_rows[subject] += 1
    return [row for _, _, row in sorted(ranked, key=lambda n: n[:2])]


def _match_person(query: str, people: Iterable[str], name: str) -> str:
    """The one of ``people`` that ``query`` names; a number before the name, as in folders, is ignored."""
    by_name = {p.casefold(): p for p in sorted(people)}
    for key in (query.casefold(), re.sub(r"^\d+ ", "", query.casefold())):
        if key in by_name:
            return by_name[key]
    parts = [p for key, p in by_name.items() if query.casefold() in key]
    candidates = parts or [by_name[key] for key in difflib.get_close_matches(query.casefold(), by_name, n=3)]
    names = [repr(p) for p in candidates or by_name.values()][:3]
    hint = (
        f"did you mean {' or '.join(names)}?"
        if candidates
        else f"it has {len(by_name)} people, such as {', '.join(names)}"
    )
    raise InputError(f"RWKU's {name} has no rows of {query!r}; {hint}")


def _kind(record: Record) -> str:
    """The adversarial type; the languages of "cross lingual (…)" are one."""
    return re.sub(r"^cross.lingual.*", "cross lingual", record.text("type"))


def _probe_row(level: str, record: Record) -> tuple[Row, str]:
    """(row, note) of a probe; the note is its adversarial type and its person."""
    kind = _kind(record) if level == ADVERSARIAL else ""
    row = Row(_prompt(level, kind, record.text("query")), record.text("answer"), where=record.where)
    return row, f"{kind}\t{record.text('subject')}"


def _text_row(record: Record) -> tuple[Row, str]:
    return Row(None, record.text("text"), where=record.where), f"\t{record.text('subject')}"


def _prompt(level: str, kind: str, query: str) -> tuple[Message, ...]:
    """The prompt of RWKU's code: worked examples contain "Question:", an affirmative suffix the start of an answer."""
    task = "complete the blank in" if level.endswith("level1") else "briefly answer"
    instruction = f"Please {task} the following question.\n" + (
        query if kind == "incontext learning" else f"Question: {query}"
    )
    if kind == "affirmative suffix":
        return ({"role": "user", "content": instruction},)
    return ({"role": "user", "content": f"{instruction}\n"}, {"role": "assistant", "content": "Answer:"})


# -- figures --------------------------------------------------------------------------------------------------------------
def _answers(collected: Collected) -> list[Generated]:
    return [a for level in RWKU_LEVELS for a in collected.generated(level)]


def _recall(answers: Sequence[Generated], *, compat: bool = False) -> np.ndarray:
    return rwku_recall([a.expected for a in answers], [a.text for a in answers], compat=compat)


def _parts(answers: Sequence[Generated]) -> dict[str, np.ndarray]:
    """Name -> (n,) mask of its answers: levels, all to forget, all neighbours, adversarial types."""
    level = np.array([a.part for a in answers])
    kind = np.array([a.note.partition("\t")[0] for a in answers])
    out = {name: level == name for name in RWKU_LEVELS}
    out |= {f"{split}_all": np.char.startswith(level, split) for split in ("forget", "neighbor")}
    return out | {f"{ADVERSARIAL}/{k}": kind == k for k in sorted(set(kind) - {""})}


def _person_of(note: str) -> str:
    return note.partition("\t")[2]


def _membership(collected: Collected) -> list[Figure]:
    """The paper's mean losses, FM and RM, and the AUC of four scores between the texts to forget and the others.

    Both sets are of people the model knows: after forgetting, the first should look less known and the second as before.
    """
    present = [name for name in TEXTS if any(s.part == name for s in collected.scores)]
    scores = {name: membership.scores(collected, name) for name in present}
    out = []
    for name in present:
        people = {_person_of(s.note) for s in collected.scored(name)}
        column = {"mia_forget": "FM, better when higher", "mia_retain": "RM, better when lower"}[name]
        note = f"100 times it is the paper's {column}; texts that came with {len(people)} of the people"
        out.append(count_figure("mia_loss", scores[name]["loss"], name, note))
    if len(present) == 2:
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
