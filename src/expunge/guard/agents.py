"""The agents of ALU without a model: the prompt of each, and the parser of its reply.

Parsers accept any form (JSON, lists, bold type, prose around it) and are strict about content: what the reply lacks is
None or empty, never guessed.  They run in time linear in the reply.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from expunge.data.example import Message
from expunge.guard.filling import conversation, listed, numbered, quoted, render_prompt
from expunge.guard.settings import Settings
from expunge.guard.targets import Target, mentioned_targets

SUSPECTED = re.compile(r"suspect[a-z]{0,9}[\"'*_ \t]{0,9}:", re.IGNORECASE)
NOBODY = re.compile(r"\W*(?:none|nobody|nothing|no one)\b|\W*\[\s*\]", re.IGNORECASE)
NOBODY_LAST = re.compile(r"(?:\b(?:none|nobody|no one)|\[\s*\])\W*$", re.IGNORECASE)
THOUGHT = re.compile(r"</?think(?:ing)?>", re.IGNORECASE)
RATINGS = re.compile(r"rat(?:ing|ings|e)\b[^\[\n:]{0,40}[:\-–]", re.IGNORECASE)
BRACKETS = re.compile(r"\[([^\[\]]*)\]")
RATING = re.compile(r"(\d+(?:\.\d+)?)(?:\s*/\s*5)?")
RATED_LINE = re.compile(r"\W*(?:version|candidate|answer|response)?\W{0,4}(\d+)\b(.*)", re.IGNORECASE)
AT_END = re.compile(r"(?:^|\D)([1-5](?:\.\d+)?)(?:\s*/\s*5)?\W*$")
NUMBER = re.compile(
    r"\W*(?:(?:version|variation|candidate|option|response)\W{0,3}\d+\W{0,4}|\d+[.):]\W{0,3})(.*)", re.I
)
BULLET = re.compile(r"[ \t]*[-*•][ \t]+(.*)")
LABEL = re.compile(r"\W{0,3}(?:final |edited |merged )?answer\s*:[*_]{0,3}\s*", re.IGNORECASE)
FENCE = re.compile(r"```\w*\n?|\n?```")
STARTS = 20  # places in a reply at which JSON is looked for


# -- audit ----------------------------------------------------------------------------------------------------------------
def audit_prompt(
    messages: Sequence[Message], answer: str, targets: Sequence[Target], settings: Settings
) -> list[Message]:
    """The prompt that asks which of ``targets`` an answer reveals."""
    return render_prompt("audit", _context(messages, targets) | {"answer": quoted(answer)}, settings.prompts)


def read_audit(reply: str, targets: Sequence[Target]) -> tuple[Target, ...] | None:
    """The suspected ones of ``targets``: those named after the last "Suspected:" or, without it, on the last line.

    () if the text after the mark begins with "none", or the last line ends with it; None if neither is there.  A target
    named next to "none" is suspected.
    """
    reply = _without_thoughts(reply)
    last_line = next((line for line in reversed(reply.splitlines()) if line.strip()), "")
    marks = list(SUSPECTED.finditer(reply))
    verdict = reply[marks[-1].end() :] if marks else last_line
    suspects = mentioned_targets([verdict], targets)
    none = NOBODY.match(verdict) if marks else NOBODY_LAST.search(verdict)
    return suspects if suspects or none else None


# -- erase ----------------------------------------------------------------------------------------------------------------
def erase_prompt(
    messages: Sequence[Message], answer: str, suspects: Sequence[Target], k: int, settings: Settings
) -> list[Message]:
    """The prompt for ``k`` versions of an answer without any information on ``suspects``."""
    values = {"answer": quoted(answer), "k": str(k), "refusal": settings.refusal}
    return render_prompt("erase", _context(messages, suspects) | values, settings.prompts)


def read_versions(reply: str, k: int) -> tuple[str, ...]:
    """At most ``k`` versions: of a JSON list, else of a numbered list, else of bullets; the whole reply where k = 1 and
    there is no list.  () if there is none.
    """
    text = _unquoted(reply)
    versions = next((v for v in map(_strings, _json(text)) if v), ())
    versions = versions or _items(text, NUMBER) or _items(text, BULLET)
    if not versions and k == 1 and not text.lstrip().startswith(("{", "[", "```")):
        versions = (read_answer(text),)
    return tuple(v for v in map(_without_quotes, versions) if v)[:k]


# -- critic ---------------------------------------------------------------------------------------------------------------
def critic_prompt(
    messages: Sequence[Message], versions: Sequence[str], suspects: Sequence[Target], settings: Settings
) -> list[Message]:
    """The prompt for a rating of each version, from 1 (reveals a target) to 5 (no trace)."""
    values = {"versions": numbered(versions), "n": str(len(versions))}
    return render_prompt("critic", _context(messages, suspects) | values, settings.prompts)


def read_ratings(reply: str, n: int) -> tuple[float, ...] | None:
    """``n`` ratings from 1 to 5: what follows the last "Ratings:", or the last list in brackets where that comes later, else
    of lines such as "Version 2: 4/5".  None if there are not ``n`` of them, or one is not in 1 to 5.

    >>> read_ratings("Version 1 is fine. **Ratings:** [5, 4/5]", 2), read_ratings("[5, 9]", 2), read_ratings("good", 1)
    ((5.0, 4.0), None, None)
    """
    reply = _without_thoughts(reply)
    lists, marks = list(BRACKETS.finditer(reply)), list(RATINGS.finditer(reply))
    text_after = reply[marks[-1].end() :].strip(" \t*_").split("\n")[0] if marks else ""
    marks_after_lists = bool(marks and lists) and marks[-1].start() > lists[-1].start() and text_after[:1].isdigit()
    if lists and not marks_after_lists:
        return _parse_ratings(lists[-1][1], n)
    return (_parse_ratings(text_after, n) if text_after else None) or _parse_rating_lines(reply, n)


# -- compose --------------------------------------------------------------------------------------------------------------
def compose_prompt(
    messages: Sequence[Message], versions: Sequence[str], suspects: Sequence[Target], settings: Settings
) -> list[Message]:
    """The prompt that merges several versions into one answer."""
    return render_prompt("compose", _context(messages, suspects) | {"versions": numbered(versions)}, settings.prompts)


def read_answer(reply: str) -> str:
    """The text of an answer, without quotation marks, code fences or a label around it; "" if there is none."""
    text = FENCE.sub("", _unquoted(reply)).strip()
    label = LABEL.match(text)
    return _without_quotes(text[label.end() :] if label else text)


# -- parsing --------------------------------------------------------------------------------------------------------------
def _context(messages: Sequence[Message], targets: Sequence[Target]) -> dict[str, str]:
    return {"targets": listed(targets), "conversation": conversation(messages)}


def _parse_ratings(text: str, n: int) -> tuple[float, ...] | None:
    parts = [p.strip(" \t\n\"'*_.") for p in re.split(r"[,;]|\s(?=\d)", text)]
    matches = [RATING.fullmatch(p) for p in parts if p]
    values = tuple(float(m[1]) for m in matches if m)
    fits = len(matches) == len(values) == n and all(1 <= v <= 5 for v in values)
    return values if fits else None


def _parse_rating_lines(reply: str, n: int) -> tuple[float, ...] | None:
    values: dict[int, float] = {}
    for line in reply.splitlines():
        if (m := RATED_LINE.match(line)) and (end := AT_END.search(m[2][-40:])):
            values[int(m[1][:6])] = float(end[1])
    fits = sorted(values) == list(range(1, n + 1)) and all(1 <= v <= 5 for v in values.values())
    return tuple(values[i] for i in range(1, n + 1)) if fits else None


def _json(text: str) -> Iterator[Any]:
    """The JSON values in a text, from its first brackets on."""
    decoder = json.JSONDecoder()
    starts = [m.start() for m, _ in zip(re.finditer(r"[{\[]", text), range(STARTS), strict=False)]
    for start in starts:
        try:
            yield decoder.raw_decode(text, start)[0]
        except (json.JSONDecodeError, RecursionError):
            continue


def _strings(value: Any) -> tuple[str, ...]:
    """The texts of a list, of the first list in an object, or else of the object; of an object in a list, its first text."""
    if isinstance(value, dict):
        value = next((v for v in value.values() if isinstance(v, list)), list(value.values()))
    if not isinstance(value, list):
        return ()
    items = [next((t for t in v.values() if isinstance(t, str)), None) if isinstance(v, dict) else v for v in value]
    return tuple(v for v in items if isinstance(v, str))


def _items(text: str, form: re.Pattern[str]) -> tuple[str, ...]:
    """The items of a list whose first lines match ``form``; an item ends at the next one or at an empty line."""
    items: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        if m := form.fullmatch(line):
            items.append([m[1]])
            inside = True
        elif not line.strip():
            inside = inside and not any(part.strip() for part in items[-1])
        elif inside:
            items[-1].append(line)
    return tuple(" ".join(" ".join(parts).split()) for parts in items)


def _unquoted(text: str) -> str:
    return re.sub(r"(?m)^> ?", "", _without_thoughts(text))


def _without_thoughts(text: str) -> str:
    """The text after a model's thoughts, <think> … </think>; "" if they do not end."""
    tags = list(THOUGHT.finditer(text))
    if not tags:
        return text
    return text[tags[-1].end() :] if tags[-1][0][1] == "/" else ""


def _without_quotes(text: str) -> str:
    text = text.strip()
    for opening, closing in ('""', "“”", "''"):
        if len(text) > 1 and text[0] == opening and text[-1] == closing and opening not in text[1:-1]:
            text = text[1:-1].strip()
    return text
