"""The record of a tuning, ``tune.json``: what was searched, every trial, and the best of each method.  It quotes no data."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge import __version__, record
from expunge.compare.budget import Budget
from expunge.training.arguments import parse
from expunge.tune import objective
from expunge.tune.figures import HALVES
from expunge.tune.on_rows import Ready
from expunge.tune.settings import TRIALS, Tune, folder_name
from expunge.tune.space import Space

DEFAULT = "harmonic mean of forgetting to the reference model's level and of utility"
Trials = Mapping[str, Mapping[int, Mapping[str, Any]]]  # label -> number -> what the study holds of the trial


def trial(
    settings: Tune, label: str, number: int, facts: Mapping[str, Any], beside: Mapping[str, Any]
) -> dict[str, Any]:
    """One trial for the record: its scores on both halves, and its figures on the second, which did not choose it."""
    goal = objective.named(settings.objective, settings.axes)
    scores = {half: score(facts, half, beside, settings, goal) for half in HALVES if facts.get(half)}
    name = folder_name(label, number)
    said = {k: facts.get(k) for k in ("state", "choice", "steps", "learning_rate", "seconds", "device", "said")}
    return {
        "name": name,
        "label": label,
        "number": number,
        **said,
        "intermediate": facts.get("intermediate") or [],
        **{f"score_{half}": found.value for half, found in scores.items()},
        **({"forgotten": s.forgotten, "retained": s.retained} if (s := scores.get("second")) else {}),
        "figures": facts.get("second") or [],
        "figures_first": facts.get("first") or [],
        "record": f"{TRIALS}/{name}/{facts['record']}" if facts.get("record") else None,
        "warnings": facts.get("warnings") or [],
    }


def score(
    facts: Mapping[str, Any], half: str, beside: Mapping[str, Any], settings: Tune, goal: objective.Objective
) -> objective.Score:
    """The objective's value of a trial on one half of the rows."""
    reference = beside["reference"][half] if "reference" in beside else None
    return objective.score(objective.record_of(facts[half], beside["target"][half], reference), settings.axes, goal)


def best(runs: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Label -> its finished trial with the greatest score on the first half; of equals the first.

    >>> runs = [{"label": "npo", "number": n, "state": "finished", "score_first": s} for n, s in enumerate((0.2, 0.4, None))]
    >>> best(runs)["npo"]["number"]
    1
    """
    out: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        value = run.get("score_first")
        if run["state"] == "finished" and value is not None:
            before = out.get(run["label"])
            if before is None or value > before["score_first"]:
                out[run["label"]] = run
    return out


def front(runs: Sequence[Mapping[str, Any]]) -> set[str]:
    """The names of the finished trials that no other dominates in both shares, forgotten and retained, on the second half.

    >>> runs = [{"name": n, "state": "finished", "forgotten": f, "retained": r} for n, f, r in
    ...         (("a", 0.9, 0.5), ("b", 0.5, 0.9), ("c", 0.5, 0.5))]
    >>> sorted(front(runs))
    ['a', 'b']
    """
    shares = {
        r["name"]: (r["forgotten"], r["retained"])
        for r in runs
        if r["state"] == "finished" and None not in (r.get("forgotten"), r.get("retained"))
    }

    def dominates(p: tuple[float, float], q: tuple[float, float]) -> bool:
        return p != q and p[0] >= q[0] and p[1] >= q[1]

    return {name for name, own in shares.items() if not any(dominates(other, own) for other in shares.values())}


def full_record(
    settings: Tune,
    prepared: Ready,
    spaces: Mapping[str, Space],
    spent: Budget,
    beside: Mapping[str, Any],
    trials: Trials,
    command: str | None,
) -> dict[str, Any]:
    """The whole record."""
    axes, shared = settings.axes, settings.shared
    runs = [
        trial(settings, label, number, facts, beside)
        for label, of in trials.items()
        for number, facts in sorted(of.items())
    ]
    on_front = front(runs)
    runs = [r | {"front": r["name"] in on_front} for r in runs]
    chosen = best(runs)
    counts = {who: {p: sum(q.part == p for q in of) for p in dict.fromkeys(q.part for q in of)}
              for who, of in prepared.halves.items()}  # fmt: skip
    return {
        "expunge": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "benchmark": prepared.benchmark.chosen.name if prepared.benchmark else None,
        "objective": settings.objective or DEFAULT,
        "forget_figure": axes.forget,
        "forget_better": axes.better,
        "utility_figure": axes.utility,
        "trials": settings.trials,
        "budget": {"steps": spent.steps, "rows": spent.rows},
        "rows": counts,
        "seed": shared.get("seed", 0),
        "adapter": shared.get("adapter"),
        "training": {k: parse(k, v) for k, v in sorted(shared.get("training", {}).items())},
        "prune": settings.prune,
        **{who: _model(beside.get(who)) for who in ("target", "reference")},
        "methods": [
            _method(settings, label, spaces[label], [r for r in runs if r["label"] == label], chosen.get(label))
            for label in settings.methods
        ],
        "runs": runs,
        "warnings": _warnings(settings, runs, beside, chosen),
        "versions": record.versions(),
        "platform": platform.platform(),
    }


def recipe_file(label: str) -> str:
    """The name of a method's best recipe."""
    return f"best-{folder_name(label)}.toml"


def _method(
    settings: Tune, label: str, space: Space, runs: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any] | None
) -> dict[str, Any]:
    states = [r["state"] for r in runs]
    return {
        "label": label,
        "parameters": dict(settings.methods[label]),
        "search": {key: str(it) for key, it in space.items()},
        **{state: states.count(state) for state in ("finished", "pruned", "failed")},
        "best": chosen["name"] if chosen else None,
        "recipe": recipe_file(label) if chosen else None,
    }


def _model(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "source": found["source"],
        "fingerprint": found["fingerprint"],
        "figures": found["second"],
        "figures_first": found["first"],
    }


def _warnings(
    settings: Tune, runs: Sequence[Mapping[str, Any]], beside: Mapping[str, Any], chosen: Mapping[str, Any]
) -> list[str]:
    """What a reader has to know."""
    out = []
    if "reference" not in beside and settings.objective is None:
        out.append(
            "No reference model was given, so the best trials forget as far as they can, which may be too far: name a "
            "retrained model (--compare-with; --retrained with a benchmark) or the one before fine-tuning (--level)."
        )
    if settings.axes.utility is None and settings.objective is None:
        out.append(
            "No retain set was given, so nothing measures what else was lost; give rows like the others (--retain)."
        )
    for label in settings.methods:
        of = [r for r in runs if r["label"] == label]
        failed = [r for r in of if r["state"] == "failed"]
        if failed:
            out.append(
                f"{label}: {len(failed)} of {len(of)} trials failed; the first, {failed[0]['name']}: {failed[0]['said']}"
            )
        if of and label not in chosen:
            out.append(f"{label}: no trial finished with a score, so there is no best recipe.")
    if len({r["device"] for r in runs if r["state"] == "finished"}) > 1:
        out.append("The trials were made on different devices; each one's record says where.")
    return out


def names_of_files(folder: Path, said: Mapping[str, Any]) -> list[str]:
    """The files that a tuning wrote, the best recipes first."""
    recipes = [str(m["recipe"]) for m in said["methods"] if m["recipe"]]
    others = ["tune.json", "front.svg", "front.png", "report.html"]
    return [*recipes, *(name for name in others if (folder / name).exists())]
