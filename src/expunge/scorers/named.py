"""Scorers by name, as on a command line or in a recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expunge import plugins
from expunge.errors import InputError, nearest
from expunge.scorers import entities, toxicity
from expunge.scorers.mentions import mentions, normalised
from expunge.scorers.values import Scorer, checked

FORMS = {
    "entity": "entity:NAME|OTHER NAME",
    "words": "words:a, b, c",
    "toxicity": "toxicity, toxicity:hatesonar or toxicity:detoxify",
    "ner": "ner:PER",
    "code": "code",
}


def scorer(spec: str) -> Scorer:
    """The scorer ``spec``; InputError for an unknown one.  No model is loaded before the first text.

    ``entity:NAME|OTHER NAME``
        1 where the text mentions one of the names, else 0; a surname alone counts only if it is given as a name.
    ``words:a, b, c``
        The share of these words and phrases that occur, as they stand: "spells" is not "spell".
    ``toxicity``, ``toxicity:hatesonar``, ``toxicity:detoxify``
        Three classifiers, see :mod:`expunge.scorers.toxicity`.
    ``ner:PER`` (LOC, ORG, MISC)
        1 where the text holds a validly written entity of that type, else 0, see :mod:`expunge.scorers.entities`.
    ``code``
        1 for a Python code block that runs, 1/2 for one that only parses, else 0, see :mod:`expunge.scorers.snippets`.
    ``path/to/file.py:function``
        A function of yours, called with one text at a time.  The file is run as any program is: give only what you trust.
    The name of such a function that an installed package offers, see :mod:`expunge.plugins`.

    For names and words, case and Unicode form do not matter, word boundaries do.

    >>> scorer("entity:Ada Lovelace|Lovelace")(["Ada LOVELACE wrote it.", "Ada wrote it."]).tolist()
    [1.0, 0.0]
    >>> scorer("words:spell, magic wand")(["He cast a spell."]).tolist()
    [0.5]
    """
    spec = spec.strip()
    if plugins.is_file(spec):
        function, file = plugins.of_file("scorer", spec)
        return checked(_text_by_text(function, spec, lambda error: plugins.line(error, file)), spec)
    kind, colon, argument = spec.partition(":")
    if kind not in FORMS and (function := plugins.offered("scorer", spec)) is not None:
        if not callable(function):
            raise InputError(f"the scorer {spec} is a {type(function).__name__}, not a function of one text")
        return checked(_text_by_text(function, spec), spec)
    if kind not in FORMS:
        known = [*FORMS, *plugins.names("scorer")]
        forms = "; ".join([*FORMS.values(), *plugins.names("scorer")])
        raise InputError(f"there is no scorer {kind!r}{nearest(kind, known)}; there are {forms}")
    makers: dict[str, Callable[[str], Scorer]] = {
        "entity": _entity,
        "words": _words,
        "toxicity": _toxicity,
        "ner": _ner,
        "code": _code,
    }
    if colon and not argument.strip():
        raise InputError(f"the scorer {spec!r} ends at its colon; write {FORMS[kind]}")
    return checked(makers[kind](argument.strip()), spec)


def _entity(argument: str) -> Scorer:
    names = _entries("entity", argument, "|")
    return lambda texts: _score_each(lambda text: any(mentions(text, n) for n in names), map(normalised, texts))


def _words(argument: str) -> Scorer:
    words = _entries("words", argument, ",")
    return lambda texts: _score_each(lambda text: np.mean([mentions(text, w) for w in words]), map(normalised, texts))


def _toxicity(argument: str) -> Scorer:
    if argument not in toxicity.KINDS:
        suggestion = nearest(argument, filter(None, toxicity.KINDS))
        raise InputError(f"there is no toxicity scorer {argument!r}{suggestion}; write {FORMS['toxicity']}")
    classifier = toxicity.KINDS[argument]
    if not toxicity.installed(classifier.__name__):
        raise InputError(toxicity.lacking(classifier.__name__))
    return classifier


def _ner(argument: str) -> Scorer:
    if argument not in entities.TYPES:
        suggestion = nearest(argument.upper(), entities.TYPES)
        raise InputError(
            f"the scorer ner needs a type, not {argument!r}{suggestion}; there are {', '.join(entities.TYPES)}"
        )
    return lambda texts: _score_each(lambda text: entities.valid(text, argument), texts)


def _code(argument: str) -> Scorer:
    from expunge.scorers import sandbox, snippets

    if argument:
        raise InputError(f"the scorer code takes nothing after it, not {argument!r}")
    sandbox.check_system()
    return lambda texts: _score_each(snippets.code_score, texts)


def _text_by_text(function: Callable[[str], Any], spec: str, line: Callable[[Exception], str] = lambda _: "") -> Scorer:
    """A scorer from a user's function of one text; its errors name the line, never the text."""

    def values(texts: Sequence[str]) -> NDArray[np.float64]:
        out = np.empty(len(texts))
        for i, text in enumerate(texts):
            try:
                value = function(text)
            except Exception as error:
                kind = type(error).__name__
                raise InputError(f"the scorer {spec} failed on text {i} with {kind}{line(error)}") from error
            try:
                out[i] = float(value)
            except (TypeError, ValueError):
                kind = type(value).__name__
                raise InputError(
                    f"the scorer {spec} gave a {kind} for text {i}; it must take one text and give a number from 0 to 1"
                ) from None
        return out

    return values


def _entries(kind: str, argument: str, separator: str) -> list[str]:
    entries = [normalised(part) for part in argument.split(separator)]
    if not all(entries):
        raise InputError(f"the scorer {kind}:{argument} has an empty entry; write {FORMS[kind]}")
    return entries


def _score_each(value: Callable[[str], Any], texts: Iterable[str]) -> NDArray[np.float64]:
    return np.array([float(value(text)) for text in texts])
