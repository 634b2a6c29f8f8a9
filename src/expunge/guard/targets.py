"""Targets, the people and things that a guard keeps out of answers: read from a file, matched in a text by name.

The matcher is the deterministic auditor and the last check of every answer.  It matches names as they are written, in any
case and Unicode form, ignoring accents, hyphens, mark-up and invisible characters, and with look-alike letters of
another script within a Latin word.  It does not match other spellings: letters apart, a word wholly in another
script, a transcription (Mueller for Müller), a translation, a description.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from expunge.errors import InputError, nearest
from expunge.scorers.mentions import mentions, normalised

FIELDS = ("name", "aliases")
ROW = '{"name": …, "aliases": […]}'
WORD, LATIN = re.compile(r"\w+"), re.compile(r"[A-Za-z]")
# Cyrillic and Greek letters that look like Latin ones, after Unicode's confusables (UTS 39); capitals like capitals.
ALIKE = str.maketrans(
    "АВЕКМНОРСТУХІЅЈаеорсухіѕјһԁԛԝӏ" + "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧανορικυγ",
    "ABEKMHOPCTYXISJaeopcyxisjhdqwl" + "ABEZHIKMNOPTYXavopikuy",
)  # fmt: skip
STROKES = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ħ": "h", "ŧ": "t", "ı": "i"})  # NFKD takes no stroke off


@dataclass(frozen=True)
class Target:
    """A person or a thing that answers must not reveal; a surname alone counts only if it is an alias."""

    name: str
    aliases: tuple[str, ...] = ()

    @cached_property
    def forms(self) -> tuple[tuple[str, str], ...]:
        """(as written, bare) of each name; "" if a name has no bare form."""
        return tuple(_forms(n) for n in (self.name, *self.aliases))


def read_targets(path: str | Path) -> tuple[Target, ...]:
    """The targets in a file: JSONL rows ``{"name": …, "aliases": […]}``, or lines of text ``NAME | ALIAS | ALIAS``.

    A file whose name ends in .jsonl holds JSON, any other text; empty lines are skipped.

    Raises InputError, with file and line, for a row that names nothing.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"the targets {path} cannot be read: {(error.strerror or 'no such file').lower()}") from None
    parse = _from_json if path.suffix.lower() == ".jsonl" else _from_line
    rows = [(f"{path.name}, line {i}", line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not rows:
        raise InputError(f"{path.name} holds no targets")
    return tuple(checked_target(parse(line, where), where) for where, line in rows)


def checked_target(target: Target, where: str) -> Target:
    """``target`` itself; InputError if one of its names has neither letter nor digit."""
    for name in (target.name, *target.aliases):
        if not any(map(str.isalnum, name)):
            raise InputError(f"{where}: a target's name or alias needs a letter or a digit, {name!r} has none")
    return target


def mentioned_targets(texts: Iterable[str], targets: Sequence[Target]) -> tuple[Target, ...]:
    """Those of ``targets`` that one of ``texts`` names, each once, in their order.

    >>> [t.name for t in mentioned_targets(["by **Al** Kuwaiti"], [Target("Basil", ("Al-Kuwaiti",)), Target("Ann")])]
    ['Basil']
    """
    forms = [_text_forms(t) for t in texts]
    first: dict[str, Target] = {}
    for t in targets:
        if any(_is_mentioned(written, bare, t) for written, bare in forms):
            first.setdefault(t.name, t)
    return tuple(first.values())


def most_likely(texts: Sequence[str], targets: Sequence[Target], n: int) -> tuple[Target, ...]:
    """At most ``n`` targets to list in a prompt: those that are named, then those that share most words with ``texts``,
    then the first ones.  All of them, in their order, if there are no more than ``n``.
    """
    if len(targets) <= n:
        return tuple(targets)
    mentioned = mentioned_targets(texts, targets)
    words = {w for t in texts for w in _bare(t).split()}
    shared = [(len(words & {w for _, bare in t.forms for w in bare.split()}), t) for t in targets]
    ranked = [t for _, t in sorted(shared, key=lambda pair: -pair[0])]  # stable: equals stay in the file's order
    return tuple(dict.fromkeys([*mentioned, *ranked]))[:n]


def _is_mentioned(written: str, bare: str, target: Target) -> bool:
    return any(mentions(written, name) or (plain and mentions(bare, plain)) for name, plain in target.forms)


@lru_cache(maxsize=64)  # an answer is checked by several agents
def _text_forms(text: str) -> tuple[str, str]:
    return normalised(_visible(text)), _bare(text)


def _forms(name: str) -> tuple[str, str]:
    """A name as written, and bare where that is the same name: not of "C++", which would become "c"."""
    visible = normalised(_visible(name))
    return visible, _bare(name) if visible[0].isalnum() and visible[-1].isalnum() else ""


def _bare(text: str) -> str:
    """Letters and digits, case-folded and without accents; one space for every run of anything else.

    >>> _bare("José_Peña's **book**")
    'jose pena s book'
    """
    decomposed = unicodedata.normalize("NFKD", normalised(_visible(text)).translate(STROKES))
    letters = unicodedata.normalize("NFC", "".join(c for c in decomposed if unicodedata.category(c) != "Mn"))
    return " ".join("".join(c if c.isalnum() or unicodedata.category(c) == "Mc" else " " for c in letters).split())


def _visible(text: str) -> str:
    """The visible text: without zero-width spaces and joiners, soft hyphens, direction marks and Hangul fillers; look-alike
    letters in a word with Latin ones as Latin.

    >>> _visible("\u0410d\u0430"), _visible("\u0410\u0434\u0430") == "\u0410\u0434\u0430"
    ('Ada', True)
    """
    if text.isascii():
        return text
    visible = "".join(c for c in text if unicodedata.category(c) != "Cf" and c not in "\u115f\u1160\u3164\uffa0")
    return WORD.sub(
        lambda m: m[0].translate(ALIKE) if LATIN.search(m[0]) else m[0], unicodedata.normalize("NFKC", visible)
    )


def _from_line(line: str, where: str) -> Target:
    names = [" ".join(part.split()) for part in line.split("|")]
    if not all(names):
        raise InputError(f"{where}: an empty name; a line is NAME | ALIAS | ALIAS")
    return Target(names[0], tuple(names[1:]))


def _from_json(line: str, where: str) -> Target:
    try:
        row: Any = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        raise InputError(f"{where}: not JSON; a row is {ROW}") from None
    if not isinstance(row, dict) or not isinstance(row.get("name"), str):
        raise InputError(f"{where}: a row is {ROW}, with a text for a name")
    for key in row:
        if key not in FIELDS:
            raise InputError(f"{where}: there is no field {key!r}{nearest(key, FIELDS)}; a row has name and aliases")
    aliases = row.get("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(a, str) for a in aliases):
        raise InputError(f"{where}: aliases must be a list of texts")
    return Target(row["name"].strip(), tuple(a.strip() for a in aliases))
