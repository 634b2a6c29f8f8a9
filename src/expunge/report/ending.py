"""Record of a run -> how it ended: why before its last step, what a utility guard saw, what became of a budget.

Pure functions from a record, in which any part may be missing, to text.
"""

from __future__ import annotations

from typing import Any

from expunge.record import complete
from expunge.record_types import RunRecord
from expunge.report.format import DASH, count, percent, plain, probability
from expunge.report.run_page import Row, Table

TITLES = {
    "not_finite": "The run broke down",
    "utility": "Stopped by the utility guard",
    "zero": "Stopped: nothing left to do",
    "holdout": "Stopped at the level of the holdout set",
    "level": "Stopped at the level of a model that never saw the forget set",
    "callback": "Stopped by a callback",
}


def stopped(said: Any) -> tuple[str, str] | None:
    """(a title, the sentence) of a run that ended before its last step."""
    record = complete(RunRecord, said)
    stop = record["stopped"]
    if stop is None or not stop["sentence"]:
        return None
    sentence = plain(stop["sentence"])
    return TITLES.get(stop["reason"] or "", "Stopped early"), f"{sentence[:1].upper()}{sentence[1:]}."


def guard(said: Any) -> tuple[str, Table] | None:
    """A sentence about the utility guard, and one row for each of its probes."""
    record = complete(RunRecord, said)
    keep, stop = record["keep"], record["stopped"]
    if keep is None or keep["threshold"] is None:
        return None
    came_out = stop["step"] if stop else None
    rows = tuple(
        Row(
            count(probe["step"]),
            (probability(probe["probability"]), percent(probe["kept"])),
            _hint(probe["step"], probe["kept"], keep["threshold"], came_out),
        )
        for probe in keep["probes"]
    )
    first = Row("0 (target)", (probability(keep["start"]), percent(1.0) if keep["start"] is not None else DASH))
    words = (
        f"The run was to keep {percent(keep['threshold'])} of the probability of {count(keep['rows'])} rows that were not "
        f"trained on, probed every {count(keep['every'])} steps."
    )
    return words, Table(("Probability", "Kept"), (first, *rows))


def _hint(step: float | None, kept: float | None, threshold: float, came_out: float | None) -> str:
    if step is not None and step == came_out:
        return "the result"
    return "below the threshold" if kept is not None and kept < threshold else ""


LEVELS = {  # source of a level -> how it is told
    "holdout": ", as estimated from the holdout rows,",
    "model and holdout": ", calibrated on the holdout rows,",
    "alternates": ", as estimated from answers that the model made up,",
}


def known(level: Any) -> str:
    """How well a level is known, as a sentence."""
    if level.get("uncertainty") is not None:
        return (
            f"The level itself is known to ±{level['uncertainty']:.2g} nats a token (90 %), if the forget set is of the "
            "holdout rows' kind."
        )
    if "holdout" in (level["source"] or ""):  # a record of before this was computed
        return ""
    return "How near that level is to a retrained model's was not measured: there were no holdout rows."


def notes(said: Any) -> list[str]:
    """Sentences about a budget, and about micro-batches that were halved."""
    record = complete(RunRecord, said)
    out, budget = [], record["budget"]
    if budget and budget["limit"] is not None and budget["end"] is not None:
        start = "" if budget["start"] is None else f", {budget['start']:.4g} before training"
        how = "was not kept" if budget["met"] is False else "was kept"
        out.append(
            f"The budget of {budget['limit']:.4g} on the retain loss {how}: {budget['end']:.4g} over the last "
            f"{count(budget['steps'])} steps on record{start}."
        )
    if (level := record["level"]) and level["difference"] is not None and level["low"] is not None:
        how = LEVELS.get(level["source"] or "", "")
        out.append(
            f"Answers of the forget set are {level['difference']:+.3g} nats a token less likely than under a model that "
            f"never saw them{how} (90 % interval {level['low']:+.3g} to {level['high']:+.3g}, "
            f"margin ±{level['margin']:.2g}, "
            f"{level['distance_before']:.3g} to go before training): {level['verdict']} that level. {known(level)}".rstrip()
        )
    if halved := record["out_of_memory"]:
        at = ", ".join(f"{count(one['rows'])} rows from step {count(one['step'])} on" for one in halved)
        out.append(f"Memory ran out, so micro-batches had {at}; the rows of a step stayed the same.")
    return out
