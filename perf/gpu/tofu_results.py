"""What is published of ``perf.gpu.tofu``: made of the pieces' records alone, it quotes no row and names no path."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge import __version__, bench, compare, files, record
from expunge.compare import budget
from expunge.compare import describe as about
from expunge.compare.run import write as write_comparison
from expunge.evaluation.benchmark import data_of
from expunge.evaluation.probe import fingerprint
from perf.gpu import tofu_halves as halves
from perf.gpu import tofu_plan as plans
from perf.gpu.tofu_plan import Plan

COLUMNS = {  # of the table: figure -> heading
    "all/score": "score",
    "all/memorisation": "memorisation",
    "all/privacy": "privacy",
    "all/utility": "utility",
    "forget/probability": "forget probability",
    "forget/rouge_l_recall": "forget ROUGE-L",
    "forget/mia_min_k_auc": "Min-K AUC",
    "forget/privleak": "PrivLeak",
    "all/model_utility": "model utility",
}


def write(plan: Plan, command: str, *, finished: bool) -> Path:
    """Write ``results/`` into ``plan.out`` of what is done, as far as it goes, and return the folder."""
    every = plans.pieces(plan)
    done = {p: said for p in every if (said := plans.read(plan, p))}
    tried = [said["run"] for p, said in done.items() if p.kind == "trial"]
    best = plans.chosen(plan, [p for p in every if p.kind == "trial"])
    asked = {which: _asked(done, which) for which in plans.ASKED.values()}
    taught = {p.name: said for p, said in done.items() if p.kind == "teach"}
    runs = [said["run"] for p, said in done.items() if p.kind == "chosen"]
    took = seconds(done)
    folder = plan.out / "results"
    folder.mkdir(parents=True, exist_ok=True)
    trials = {
        "schema": record.SCHEMA,
        "expunge": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "finished": finished,
        "command": command,
        "benchmark": halves.CHOICE.name,
        "chosen_by": list(halves.CHOSEN_BY),
        "chosen": {label: dict(run["choice"]) for label, run in best.items()},
        "taught": {who: said["taught"] | {"seconds": said["seconds"]} for who, said in taught.items()},
        "asked": asked["choice"],
        "trials": tried,
        "seconds": took,
        "sessions": sessions(plan),
        "versions": record.versions(),
    }
    files.write_json(folder / "trials.json", trials)
    if runs and {"target", "retrained"} <= set(asked["report"]):
        _write_comparison(plan, command, best, asked["report"], runs, folder)
    files.replace_text(folder / "README.md", page(plan, trials, asked["report"], runs))
    for source in (plans.RECIPE, Path(halves.__file__)):
        shutil.copyfile(source, folder / source.name)
    return folder


def _write_comparison(
    plan: Plan, command: str, best: Mapping[str, Any], asked: Mapping[str, Any], runs: Sequence[Any], folder: Path
) -> None:
    settings = plan.chosen(best)
    first = plans.ready(plan, compare.trials(settings)[0])
    names = bench.names_of(first.settings)
    report = halves.report(plan.max_new_tokens)
    source = data_of(report, plan.rows_folder)
    whole = about.full_record(settings, first, budget.of(first), runs) | {
        "benchmark": report.name,
        "command": command,
        "data": {
            "source": names[str(first.settings.data)],
            "fingerprint": fingerprint(report.probes(source)),
            "left_out": list(source.absent),
        },
        **{
            who: {
                "fingerprint": said["fingerprint"],
                "source": names[str(plan.out / who)],
                "figures": said["figures"],
            }
            for who, said in asked.items()
        },
    }
    write_comparison(whole, folder)


def _asked(done: Mapping[plans.Piece, Mapping[str, Any]], which: str) -> dict[str, dict[str, Any]]:
    """Target and retrained model -> which it was, and its figures on a half."""
    found = {p.name: said for p, said in done.items() if p.kind == "ask"}
    names = {who: f"{who}-{which}" for who in ("target", "retrained")}
    return {who: {k: found[n][k] for k in ("fingerprint", "figures")} for who, n in names.items() if n in found}


def seconds(done: Mapping[plans.Piece, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """What the work took: label (or piece) -> kind -> seconds of the processes that did it, beside each other or not."""
    out: dict[str, dict[str, float]] = {}
    for piece, said in done.items():
        of = out.setdefault(piece.trial.label if piece.trial else f"{piece.kind} {piece.name}", {})
        of[piece.kind] = of.get(piece.kind, 0.0) + said["seconds"]
    return out


def sessions(plan: Plan) -> list[dict[str, Any]]:
    """The calls of the command so far: when, how long, how many processes."""
    file = plan.out / "sessions.json"
    return list(files.read_json(file, description="list", remedy="remove it")["sessions"]) if file.exists() else []


def add_session(plan: Plan, said: Mapping[str, Any]) -> None:
    """Note a call of the command."""
    files.write_json(plan.out / "sessions.json", {"sessions": [*sessions(plan), dict(said)]})


# -- the table ------------------------------------------------------------------------------------------------------------
def page(plan: Plan, trials: Mapping[str, Any], asked: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> str:
    """The figures as a page of Markdown."""
    devices = sorted({str(r["device"]) for r in runs if r.get("done")}) or ["-"]
    wall = sum(s["seconds"] for s in trials["sessions"])
    lines = [
        f"# TOFU forget10, {Path(plan.model).name}",
        "",
        f"Made by `{trials['command']}`{'' if trials['finished'] else ', **not finished**'}; device {', '.join(devices)}.",
        "Each trial was chosen on one half of the rows (`trials.json`); the figures are of the other half, mean of",
        "the seeds (least to greatest). Scores from 0 to 1, higher is better; `tofu_halves.py` says what they are.",
        "",
        f"| method | chosen | seeds | {' | '.join(COLUMNS.values())} | seconds |",
        f"|{'---|' * (len(COLUMNS) + 4)}",
    ]
    for who, said in asked.items():
        cells = [_cell([_value(said["figures"], name)]) for name in COLUMNS]
        lines.append(f"| *{who}* |  |  | {' | '.join(cells)} |  |")
    for label, choice in trials["chosen"].items():
        mine = [r for r in runs if r["label"] == label and r["done"]]
        cells = [_cell([_value(r["figures"], name) for r in mine]) for name in COLUMNS]
        how = " ".join(f"{k}={v}" for k, v in choice.items())
        took = sum(trials["seconds"].get(label, {}).values())
        lines.append(f"| `{label}` | {how} | {len(mine)} | {' | '.join(cells)} | {took:.0f} |")
    failed = [r for r in [*trials["trials"], *runs] if not r["done"]]
    lines += ["", *(f"- `{r['name']}` failed: {r['said']}" for r in failed)]
    lines += [
        f"Seconds are those of a method's trials, seeds and evaluations added up; processes worked beside each other, and "
        f"all of it took {wall:.0f} s of wall-clock time in {len(trials['sessions'])} call(s)."
    ]
    return "\n".join(lines) + "\n"


def _value(figures: Iterable[Mapping[str, Any]], name: str) -> float | None:
    return next((f["value"] for f in figures if f"{f['part']}/{f['name']}" == name), None)


def _cell(values: Sequence[float | None]) -> str:
    """The mean, and of several the least and the greatest.

    >>> _cell([0.1, 0.2, 0.3]), _cell([0.5]), _cell([None])
    ('0.200 (0.100 to 0.300)', '0.500', '-')
    """
    known = [v for v in values if v is not None]
    if not known:
        return "-"
    middle = f"{sum(known) / len(known):.3f}"
    return middle if len(known) == 1 else f"{middle} ({min(known):.3f} to {max(known):.3f})"
