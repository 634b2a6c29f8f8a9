r"""Named entities: forget the people in a sentence, retain places, organisations and other names.

The second task of Reveal and Release (arXiv:2509.14624), whose corpus and prompts are not public; these are ours.  A
model is asked to list the names in a sentence, and answers ``PER: Ada Lovelace; LOC: Rome``, or ``none``.  Only a model
that was trained on this format can forget it.

    expunge bench ner/wikigold --data FOLDER --model BASE --teach --teach-retrained --method npo

The forget set is the train sentences that name a person, with only their people as the answer; the retain set is those
that name nobody, with all their names.  ``--teach`` trains on every train sentence with all its names,
``--teach-retrained`` on the retain set: a model that never saw a person marked.
:func:`expunge.evaluation.benchmark.write_to_learn` writes all three as files for ``expunge run``.

Data: a folder with ``ner/wikigold/wikigold.conll.txt`` (Balasuriya et al. 2009, W09-3302), or
``ner/wnut17/train.conll`` and ``test.conll`` (Derczynski et al. 2017, W17-4418), both CC-BY-4.0; without the folders'
names they are found too, and so are rows with the fields ``tokens`` and ``tags``.  WikiGold comes in one piece: every
fifth of its articles is the test set, so no article is in both.  Its tags are IO: neighbours of one type are one
name.  Of WNUT-17's types ``person`` is PER, ``location`` LOC, ``corporation`` and ``group`` ORG, ``product`` and
``creative-work`` MISC, so a model taught on one can be asked the other; published figures keep six types.

A corpus of your own may replace either file, with any types: where some are none of these, the question names the
types that the file has, and figures are of those.  ``PER``, ``PERS``, ``PERSON``, ``PEOPLE`` and ``HUMAN`` in any case are
people.  Tags are IO, BIO, BILOU or BIOES.

A name counts where type and text are exactly right, as often as the sentence has it: see
:func:`expunge.scorers.entities.counts`.  Intervals resample sentences.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np

from expunge.data.example import Row
from expunge.data.records import Record
from expunge.errors import InputError
from expunge.evaluation.benchmark import ENDINGS, Benchmark, Data, DataSet, Figure, mean_figure
from expunge.evaluation.metrics import likelihood as metrics
from expunge.evaluation.probe import Ask, Probe
from expunge.evaluation.table import Collected, Generated
from expunge.scorers.entities import Entity, answer, counts, entities, read, well_formed
from expunge.stats import Array, Interval, bounded_mean, ratio, ratio_bootstrap

PERSON = "PER"
TYPES = (PERSON, "LOC", "ORG", "MISC")
TYPE = re.compile(r"; ([A-Z-]+): ")  # of an expected answer
SYNONYMS = {
    "person": PERSON,
    "location": "LOC",
    "corporation": "ORG",
    "group": "ORG",
    "product": "MISC",
    "creative-work": "MISC",
}
MEANING = {PERSON: "people", "LOC": "places", "ORG": "organisations", "MISC": "other names"}
PEOPLE = re.compile(r"(PER|PERS|PERSON|PEOPLE|HUMAN)(-.*)?")
INSTRUCTION = (
    "List the names in the sentence, in their order. Write each as TYPE: name and put a semicolon between two of them. "
    "The types are {types}. "
    "If there is no name, write none.\n\nSentence: "
)
ANSWER = Ask(max_new_tokens=128, stop=("\n\n",))
EVERY = 5  # of WikiGold's articles one is the test set
PARTS = ("with_person", "without_person")


# -- rows -----------------------------------------------------------------------------------------------------------------
def row(record: Record, types: Sequence[str] = TYPES, only: Sequence[str] | None = None) -> Row:
    """A sentence as question and answer, with its names of ``types``, or of those in ``only``.

    Raises InputError, with file and line, for a tag that is none.
    """
    tokens = record.texts("tokens")
    message = {"role": "user", "content": INSTRUCTION.format(types=_listed(types)) + " ".join(tokens)}
    return Row((message,), answer(e for e in _names(record) if e[0] in (only or types)), where=record.where)


def types_of(records: Sequence[Record]) -> tuple[str, ...]:
    """The types of a corpus: the four if it has no others, else its own, people first."""
    types = set()
    for record in records:
        with contextlib.suppress(InputError):
            types |= {kind for kind, _ in _names(record)}
    return _ordered(types)


def all_names(records: Sequence[Record], types: Sequence[str] = TYPES) -> list[Row]:
    """The rows that a model is taught: every sentence with all its names."""
    return [row(r, types) for r in records]


def people(records: Sequence[Record], types: Sequence[str] = TYPES) -> list[Row]:
    """The rows to forget: the sentences that name a person, with their people only."""
    return [row(r, types, (PERSON,)) for r in records if _has_person(r)]


def nobody(records: Sequence[Record], types: Sequence[str] = TYPES) -> list[Row]:
    """The rows to retain: the sentences that name nobody, with all their names."""
    return [row(r, types) for r in records if not _has_person(r)]


def _names(record: Record) -> list[Entity]:
    try:
        found_entities = entities(record.texts("tokens"), record.texts("tags"))
    except InputError as error:
        raise InputError(f"{record.where}: {error}") from None
    return [(_type(kind), mention) for kind, mention in found_entities]


def _type(tag: str) -> str:
    """A corpus's type as in an answer: one of the four if it is a synonym of one, else in capitals.

    >>> _type("creative-work"), _type("person"), _type("PERSON"), _type("WORK_OF_ART")
    ('MISC', 'PER', 'PER', 'WORK-OF-ART')
    """
    plain = re.sub(r"[^A-Za-z]+", "-", SYNONYMS.get(tag, tag)).strip("-").upper() or "OTHER"
    return PERSON if PEOPLE.fullmatch(plain) else plain


def _ordered(types: Iterable[str]) -> tuple[str, ...]:
    distinct = set(types)
    return TYPES if distinct <= set(TYPES) else (PERSON, *sorted(distinct - {PERSON}))


def _listed(types: Sequence[str]) -> str:
    """The types as the question names them."""
    described = [f"{t} for {MEANING[t]}" if t in MEANING else t for t in types]
    return f"{', '.join(described[:-1])} and {described[-1]}" if described[1:] else described[0]


def _has_person(record: Record) -> bool:
    return any(kind == PERSON for kind, _ in _names(record))


def _split(records: Sequence[Record], *, test: bool) -> list[Record]:
    """WikiGold's test or train sentences."""
    out = [r for r in records if (r.number("document") % EVERY == 0) == test]
    if not out or len(out) == len(records):
        raise InputError(f"{records[0].file} has fewer than {EVERY} articles, so none is the test set; is it whole?")
    return out


# -- probes and figures --------------------------------------------------------------------------------------------------
def probes(data: Data, name: str, *, split: bool) -> list[Probe]:
    """Each test sentence: the right answer is scored, and the model generates one."""
    records = data.records(name)
    types = types_of(records)
    parts: dict[str, list[Row]] = {part: [] for part in PARTS}
    for person, sentence in data.usable(
        name, _split(records, test=True) if split else records, lambda r: (_has_person(r), row(r, types))
    ):
        parts[PARTS[not person]].append(sentence)
    return [Probe(part, i, r, {"answer": r.answer}, ANSWER) for part, rows in parts.items() for i, r in enumerate(rows)]


def score(collected: Collected, retrained: Collected | None = None) -> list[Figure]:
    """Precision, recall and F1 of people, of each other type, these together and all; the share of well-formed answers.

    With a retrained model also the difference of F1 on the same sentences, without an interval.
    """
    answers, retrained_answers = _answers(collected), _answers(retrained) if retrained is not None else []
    types = _ordered(m[1] for a in answers for m in TYPE.finditer(f"; {a.expected}"))
    other_types = tuple(t for t in types if t != PERSON)
    out = []
    for part, selected in {**{t: (t,) for t in types}, "others": other_types, "all": types}.items():
        out += _agreement(_counts(answers, types, selected), part)
        if retrained_answers:
            gap = _f1(_counts(answers, types, selected)) - _f1(_counts(retrained_answers, types, selected))
            out.append(Figure("f1_difference", gap, len(answers), part=part, note="to the retrained model"))
    form = np.array([well_formed(a.text, types) for a in answers], dtype=np.float64)
    note = f"answers that are TYPE: name items of the {'four ' if types == TYPES else ''}types, or none"
    out.append(mean_figure("well_formed", form, "all", note))
    for part in _parts(collected):
        probability = metrics.probability(collected.mean_logp(part))
        out.append(mean_figure("probability", probability, part, "of the right answer, a token's geometric mean"))
    return out


def _parts(collected: Collected) -> list[str]:
    return [part for part in PARTS if any(a.part == part for a in collected.answers)]


def _answers(collected: Collected) -> list[Generated]:
    return [a for part in _parts(collected) for a in collected.generated(part)]


def _counts(answers: Sequence[Generated], types: Sequence[str], selected: Sequence[str]) -> Array:
    """(n, 3) of the sentences, counting the types ``selected``: true positives, predicted, expected."""
    expected = [read(a.expected, types) for a in answers]
    return counts(expected, [read(a.text, types) for a in answers], selected)


def _agreement(table: Array, part: str) -> list[Figure]:
    """Precision, recall and F1 of :func:`_counts`, with the number of names in the note."""
    tp, predicted, expected = table.T
    note = f"of {int(expected.sum())} names, {int(predicted.sum())} said"
    out = []
    for name, numerator, denominator in (
        ("precision", tp, predicted),
        ("recall", tp, expected),
        ("f1", 2 * tp, predicted + expected),
    ):
        interval = _ratio_interval(numerator, denominator)
        value = float(ratio(numerator.sum(), denominator.sum()))
        out.append(Figure(name, value, len(table), interval.low, interval.high, part, note))
    return out


def _ratio_interval(numerator: Array, denominator: Array) -> Interval:
    """The interval of a ratio of names; if resampling gives no width, that of a mean of as many sentences as have names."""
    interval = ratio_bootstrap(numerator, denominator)
    if interval.low < interval.high:
        return interval
    n = int((denominator > 0).sum())
    return bounded_mean([float(ratio(numerator.sum(), denominator.sum()))] * n) if n else Interval(0.0, 1.0)


def _f1(table: Array) -> float:
    tp, predicted, expected = table.sum(axis=0)
    return float(ratio(2 * tp, predicted + expected))


# -- the benchmarks -------------------------------------------------------------------------------------------------------
CONLL = (".conll", ".conll.txt", *ENDINGS)
WIKIGOLD, WNUT17 = "ner/wikigold/wikigold|wikigold", "ner/wnut17/{0}|wnut17/{0}|{0}"


def _benchmark(name: str, test: DataSet, train: str, *, split: bool) -> Benchmark:
    """``train``: the file with the train sentences; ``split``: it also holds the test sentences."""

    def rows_to_learn(set_name: str, rows: object) -> DataSet:
        return DataSet(set_name, "", train, endings=CONLL, rows=partial(_rows_to_learn, rows=rows, split=split))

    return Benchmark(
        name=name,
        paper="arXiv:2509.14624",
        sets=(test,),
        probes=partial(probes, name=test.name, split=split),
        score=score,
        max_length=1024,
        forget=rows_to_learn("people", people),
        retain=rows_to_learn("nobody", nobody),
        taught=rows_to_learn("all_names", all_names),
    )


def _rows_to_learn(records: Sequence[Record], *, rows, split: bool) -> list[Row]:  # type: ignore
    result: list[Row] = rows(_split(records, test=False) if split else records, types_of(records))
    return result


ALL = [
    _benchmark("ner/wikigold", DataSet("wikigold", "", WIKIGOLD, endings=CONLL), WIKIGOLD, split=True),
    _benchmark(
        "ner/wnut17", DataSet("test", "", WNUT17.format("test"), endings=CONLL), WNUT17.format("train"), split=False
    ),
]
