"""Whether a model still answers questions to forget in sentences: a few answers of each model, judged by the model before.

No answer is in the record unless examples are shown; only figures are, and warnings.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from expunge.data import chat
from expunge.data.example import Row, evenly
from expunge.errors import InputError
from expunge.evaluation.metrics import fluency as metrics
from expunge.evaluation.probe import Ask, Probe
from expunge.unlearning.rows import Data
from expunge.unlearning.settings import Recipe

PART = "answers"  # of the probes
ANSWER = Ask(max_new_tokens=40)
KNOWN_ROWS = 2000  # of each set whose words are known
RUN = 8  # words in a row that are taken over from the right answer


def rows(data: Data, settings: Recipe) -> list[Row]:
    """The rows to forget that are answered, evenly spread among those that are measured; plain texts cut in two."""
    measured = evenly(data.rows["forget"], settings.eval_rows)
    return [chat.split_prompt(row) for row in evenly(measured, settings.fluency_rows)]


def probes(data: Data, settings: Recipe) -> list[Probe]:
    """What is asked."""
    return [Probe(PART, i, row, ask=ANSWER) for i, row in enumerate(rows(data, settings))]


def judged(
    said: Mapping[int, str], judge: Any, tokenizer: Any, data: Data, settings: Recipe, *, alone: bool = False
) -> dict[str, float]:
    """The figures of the answers ``said``, row number -> text, under the model ``judge``; none where nothing was asked.

    Several processes share the answers and all get the figures; ``alone`` one judges them all itself.
    """
    from expunge.evaluation import fluency
    from expunge.evaluation.collect import judge as judging
    from expunge.evaluation.collect.one_pass import collect
    from expunge.evaluation.table import Collected, Generated

    if not said:
        return {}
    asked = dict(enumerate(rows(data, settings)))
    seen = [row for name in ("forget", "retain") for row in evenly(data.rows.get(name, ()), KNOWN_ROWS)]
    found = collect(
        judge,
        tokenizer,
        judging.probes(PART, asked, said, judging.known_words(seen, tokenizer)),
        max_length=data.max_length or settings.max_length,
        chat_template=settings.chat_template,
        alone=alone,
    )
    answers = tuple(Generated(PART, i, "answer", asked[i].answer, text) for i, text in said.items())
    return fluency.means(Collected(found.scores, answers), PART)


def conclude(
    after: Mapping[str, Any],
    before: Mapping[str, Any],
    net: Any,
    start: Callable[[Any], Any],
    tokenizer: Any,
    data: Data,
    settings: Recipe,
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """The figures of ``after`` with those of its answers, and warnings of answers that are no language, or forget data.

    ``start(device)`` loads the model before once more, where ``net`` has no adapter that can be switched off.  One process
    does it alone.
    """
    from expunge.evaluation import fluency

    figures, said = dict(after["figures"]), after.get("said") or {}
    if not said:
        return figures, []
    warnings = repeated(said, rows(data, settings))
    try:
        with _before(net, start) as (judge, lacking):
            if judge is None:
                return figures, [*warnings, f"the fluency of the answers was not measured: {lacking}"]
            figures["forget"] = figures["forget"] | judged(said, judge, tokenizer, data, settings, alone=True)
    except (InputError, OSError, RuntimeError, MemoryError) as error:  # the weights are safe, and the rest is measured
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        return figures, [*warnings, f"the fluency of the answers was not measured: {reason}"]
    return figures, [*warnings, *fluency.less_fluent(before["figures"].get("forget", {}), figures["forget"])]


@contextlib.contextmanager
def _before(net: Any, start: Callable[[Any], Any]) -> Iterator[tuple[Any, str]]:
    """The model before training, or None and why it is not there."""
    from peft import PeftModel

    from expunge.unlearning.store import room

    if isinstance(net, PeftModel):
        with net.disable_adapter():
            yield net, ""
        return
    device, lacking = room(net, next(net.parameters()).dtype)
    yield (start(device).model if device is not None else None), lacking


def repeated(said: Mapping[int, str], asked: Sequence[Row]) -> list[str]:
    """A warning where answers take over ``RUN`` words in a row, or a shorter answer whole, half of them not the question's.

    >>> row = Row("Who is he?", "He writes books about sea and land.")
    >>> repeated({0: "I do not know."}, [row]), len(repeated({0: "he writes books about sea and land"}, [row]))
    ([], 1)
    """
    n = sum(_takes_over(text, asked[i]) for i, text in said.items())
    if not n:
        return []
    return [
        f"{n} of {len(said)} answers to questions to forget repeat the right answer word for word, at least {RUN} words of "
        "it or all: the forget set is not forgotten; try a higher learning_rate, more steps, or another method"
    ]


def _takes_over(text: str, row: Row) -> bool:
    said, right, question = ([w.casefold() for w in metrics.words(t)] for t in (text, row.answer, chat.question(row)))
    n = min(RUN, len(right))
    if n < 3:  # a name or a number may be said by chance
        return False
    common = _runs(said, n) & _runs(right, n)
    return any(sum(word not in question for word in run) >= n / 2 for run in common)


def _runs(words: Sequence[str], n: int) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}
