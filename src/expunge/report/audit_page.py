"""``audit.json`` -> the page of an audit: verdict first, then what it is made of, and what it does not show.

Pure functions from that record, any part of which may be missing; ``draw.audit`` makes its figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.files import ORDINARY, PRIVATE, PathLike, replace_text
from expunge.record import complete
from expunge.record_types import AttackInfo, AuditFigure, AuditRecord, FindingInfo
from expunge.record_types.audit import EstimateInfo
from expunge.report.draw import audit as drawing
from expunge.report.format import DASH, count, day, duration, percent, plain
from expunge.report.html import FILE, page
from expunge.report.settings import Setting, code_lines, setting_lines

QUESTIONS = {"gone": "Is it gone?", "kept": "Is the rest still there?", "back": "Does it come back?"}
OUTCOMES = {
    "passed": ("✓", "passed"),
    "partly": ("~", "beyond the limit"),
    "failed": ("✗", "far beyond the limit"),
    "unclear": ("?", "not shown"),
    "noted": ("·", "noted"),
}
CLASSES = {
    "forgotten": "good",
    "partly": "middling",
    "not forgotten": "bad",
    "model damaged": "bad",
    "cannot be told": "middling",
}
MEANINGS = {
    "forgotten": "The model answers about these rows as one that knows no more of them than the limits allow.",
    "partly": "Much is gone, and something is left, comes back, or can be told from outside.",
    "not forgotten": "The model still knows these rows, or gives them away without being trained again.",
    "model damaged": "The model lost what it was to keep, or no longer writes ordinary language.",
    "cannot be told": "These rows, models and limits do not allow a verdict.",
}
FIGURES = {
    "recall": ("Recall of the answer", "ROUGE-L of the greedy answer"),
    "otherwise": ("Recall, asked in other words", "the same, of paraphrased questions"),
    "probability": ("Probability", "of the right answer, per token"),
    "extraction": ("Extraction strength", "how much of the answer follows from its shortest beginning"),
    "preference": ("Preference", "for the right answer over wrong ones; 0.5: none"),
    "fluency": ("Fluency", "of answers, under the target; 1: ordinary language"),
}
PARTS = {"forget": "Rows to forget", "retain": "Rows to keep", "general": "General questions"}
ROLES = ("target", "unlearned", "control")


@dataclass(frozen=True)
class Check:
    """A finding as the page shows it."""

    sign: str
    outcome: str
    status: str
    meaning: str
    value: str
    interval: str
    limit: str
    n: str
    decides: bool


def write_page(log: Mapping[str, Any], path: PathLike) -> Path:
    """Write the page of an audit's record to ``path`` (a file, or a folder that gets ``report.html``); return the file."""
    target = Path(path)
    mode = PRIVATE if log.get("examples") else ORDINARY
    return replace_text(target / FILE if target.is_dir() else target, render(log), mode=mode)


def render(raw: Mapping[str, Any]) -> str:
    """The page of an audit's record, as text of an HTML file; the same record gives the same bytes."""
    record = complete(AuditRecord, raw)
    verdict = record["verdict"]
    word = verdict["word"] or "cannot be told"
    return page(
        "audit.html.j2",
        source="the audit's record",
        version=record["expunge"] or "",
        title=record["title"] or "Audit of a model that was made to forget",
        created=day(record["created"]) if record["created"] else "",
        word=word,
        verdict_class=CLASSES.get(word, "middling"),
        meaning=MEANINGS.get(word, ""),
        sentence=upper(verdict["sentence"]),
        identity=identity(record),
        questions=[(key, title, checks(record, key), asked(record, key)) for key, title in QUESTIONS.items()],
        models=model_names(record),
        tradeoff=drawing.tradeoff(record),
        tables=tables(record),
        forest=drawing.recoveries(record),
        curves=drawing.curves_of(record),
        attacks=[attack(a) for a in record["attacks"]],
        with_control="control" in record["models"],
        membership=membership(record),
        worst=worst(record),
        shown=any(row.get("question") for row in record["worst"]),
        not_concluded=[upper(str(line)) for line in verdict["not_concluded"]],
        limits=limits(record),
        warnings=[str(w) for w in record["warnings"]],
        settings=settings(record),
        level=f"{100 * float(record['policy'].get('confidence') or 0.95):g}",
        dash=DASH,
    )


def model_names(record: AuditRecord) -> list[tuple[str, str, str]]:
    """(role, its name on the page, where it came from) of each model that was asked."""
    out = []
    for role in ROLES:
        if role in record["models"]:
            facts = record["models"][role]
            kind = facts.get("kind")
            name = (
                {"retrained": "retrained", "base": "control: base"}.get(kind or "", "control")
                if role == "control"
                else role
            )
            out.append((role, name, facts["source"] or ""))
    return out


def identity(record: AuditRecord) -> list[tuple[str, str]]:
    """What names the audit: request, operator, dates, rows."""
    forget = record["data"].get("forget")
    rows = f"{count(forget['measured'])} of {count(forget['rows'])} forget rows measured" if forget else None
    run = record.get("run") or {}
    said = {
        "Request": record["request"],
        "Operator": record["operator"],
        "Audited": day(record["created"]) if record["created"] else None,
        "Unlearned": f"{day(run['created'])}, by {run.get('method')}" if run.get("created") else None,
        "Rows": rows,
        "Time": duration(record["seconds"]) if record["seconds"] is not None else None,
    }
    return [(name, str(value)) for name, value in said.items() if value]


# -- findings -------------------------------------------------------------------------------------------------------------
def checks(record: AuditRecord, question: str) -> list[Check]:
    """The findings of one question, those that decide first."""
    found = [f for f in record["verdict"]["findings"] if f["question"] == question]
    return [check(f) for f in sorted(found, key=lambda f: not f["decides"])]


def check(f: FindingInfo) -> Check:
    outcome = f["outcome"] or "noted"
    sign, words = OUTCOMES.get(outcome, OUTCOMES["noted"])
    side = {"lower": "at most", "higher": "at least", "near": "within ±"}.get(f["better"] or "", "")
    status = {"passed": "good", "failed": "bad", "partly": "middling"}.get(outcome, "open")
    return Check(
        sign,
        words if f["decides"] else f"{words}; does not decide",
        status if f["decides"] else "open",
        upper(f["meaning"]).rstrip(","),
        number(f["value"]),
        interval(f["low"], f["high"]),
        f"{side} {number(f['limit'])}".replace("± ", "±"),
        count(f["n"]),
        f["decides"],
    )


def asked(record: AuditRecord, question: str) -> str:
    """How a question came out, in a few words."""
    found = [f for f in record["verdict"]["findings"] if f["question"] == question and f["decides"]]
    if not found:
        return "not asked"
    outcomes = [f["outcome"] for f in found]
    bad = sum(o in ("failed", "partly") for o in outcomes)
    unclear = outcomes.count("unclear")
    parts = [f"{outcomes.count('passed')} of {len(found)} checks passed"]
    parts += [f"{bad} beyond the limit"] if bad else []
    parts += [f"{unclear} not shown"] if unclear else []
    return ", ".join(parts)


# -- tables ---------------------------------------------------------------------------------------------------------------
def tables(record: AuditRecord) -> list[tuple[str, str, list[tuple[str, str, list[tuple[str, str, str]], str]]]]:
    """(part, heading, rows) of figures; a row: name, hint, (role, value, interval) of each model, number of rows."""
    roles = [role for role, _, _ in model_names(record)]
    by: dict[tuple[str, str], dict[str, AuditFigure]] = {}
    for f in record["figures"]:
        by.setdefault((f["part"] or "", f["name"] or ""), {})[f["model"] or ""] = f
    out = []
    for part, heading in PARTS.items():
        rows = []
        for name, (label, hint) in FIGURES.items():
            of = by.get((part, name))
            if of:
                cells = [(r, number(of[r]["value"]), interval(of[r]["low"], of[r]["high"])) if r in of else (r, DASH, "")
                         for r in roles]  # fmt: skip
                rows.append((label, hint, cells, count(max(f["n"] or 0 for f in of.values()))))
        if rows:
            out.append((part, heading, rows))
    return out


def attack(a: AttackInfo) -> dict[str, str]:
    """A line of the table of attacks."""
    unit = f" {a['unit']}" if a["unit"] else ""

    def half(value: float | None) -> str:
        return DASH if value is None else f"{value:.3g}{unit}"

    return {
        "name": (a["name"] or "").replace("-", " "),
        "summary": (a["problem"] and f"not carried out: {a['problem']}") or a["summary"] or "",
        "kind": f"{a['family']}{'; trains' if a['trains'] else ''}",
        "recovery": share(a["recovery"]),
        "recovery_interval": share_interval(a["recovery"]),
        "seeds": of_seeds([s["recovery"] for s in a["seeds"] if s["recovery"] is not None]),
        "control": share(a["control_recovery"]),
        "control_interval": share_interval(a["control_recovery"]),
        "excess": share(a["excess"]),
        "excess_interval": share_interval(a["excess"]),
        "half": half(a["half"]),
        "control_half": half(a["control_half"]),
    }


def membership(record: AuditRecord) -> tuple[str, list[tuple[str, list[tuple[str, str, str, str, str]]]]] | None:
    """(what the rows were told from, a line a score: its name and of each model AUC, interval, TPR at 1 % and 0.1 %)."""
    if not record["membership"]:
        return None
    roles = [role for role, _, _ in model_names(record)]
    scores = dict.fromkeys(m["score"] or "" for m in record["membership"])
    by = {(m["score"], m["model"]): m for m in record["membership"]}
    lines = []
    for score in scores:
        cells = []
        for role in roles:
            m = by.get((score, role))
            if m is None:
                cells.append((role, DASH, "", DASH, DASH))
            else:
                rates = percent(m["tpr_at_1_percent"]), percent(m["tpr_at_0.1_percent"])
                cells.append((role, number(m["auc"]), interval(m["low"], m["high"]), *rates))
        lines.append((score.replace("_plus_plus", "++").replace("_", "-"), cells))
    return str(record["membership"][0]["non_members"]), lines


def worst(record: AuditRecord) -> list[dict[str, str]]:
    """The rows that are still known best."""
    return [
        {
            "where": w["where"] or DASH,
            "recall": number(w["recall"]),
            "probability": number(w["probability"]),
            "control": number(w["control_recall"]),
            "question": w.get("question") or "",
            "expected": w.get("expected") or "",
            "answer": w.get("answer") or "",
            "before": w.get("before") or "",
        }
        for w in record["worst"]
    ]


# -- settings and limits --------------------------------------------------------------------------------------------------
def settings(record: AuditRecord) -> list[tuple[str, list[Setting]]]:
    """Groups of named lines: models, rows, thresholds, settings, evidence, software."""
    models: list[Setting] = []
    for role, name, source in model_names(record):
        facts = record["models"][role]
        label = name[:1].upper() + name[1:]
        models += setting_lines((label, source)) + code_lines({f"{label}, fingerprint": facts["fingerprint"]})
        models += code_lines({f"{label}, files": facts.get("files")}) if facts.get("files") else []
    rows: list[Setting] = []
    for name, of in record["data"].items():
        label = f"{name[:1].upper()}{name[1:]} set"
        rows.append(Setting(label, f"{of['source']}: {count(of['measured'])} of {count(of['rows'])} rows measured"))
        rows += code_lines({f"{label}, fingerprint": of["fingerprint"]})
        rows += code_lines({f"{label}, file": of.get("file")}) if of.get("file") else []
    rewritten = record["rewritten"]
    if rewritten:
        rows.append(
            Setting(
                "Written by " + str(rewritten.get("by") or "nobody"),
                f"{plain(rewritten.get('questions'))} questions in other words, wrong answers to "
                f"{plain(rewritten.get('wrong'))} rows",
            )
        )
    groups = [
        ("Models", models),
        ("Rows", rows),
        ("Thresholds", code_lines(record["policy"])),
        ("Settings", code_lines({**record["settings"], "seed": record["seed"]})),
        ("Evidence, SHA-256", code_lines(record["evidence"])),
        ("Software", code_lines({"expunge": record["expunge"], **record["versions"], "platform": record["platform"],
                                 "command": record["command"]})),
    ]  # fmt: skip
    return [(name, lines) for name, lines in groups if lines]


def limits(record: AuditRecord) -> list[str]:
    """What no audit of this kind shows."""
    forget = record["data"].get("forget")
    rows = f"the {count(forget['measured'])} rows measured" if forget else "the rows measured"
    out = [
        f"That nothing is left. It shows what was found about {rows} by the questions and attacks listed here; others, and "
        "stronger ones, may find more.",
        "That other copies are gone: of the data, of the model before, of what was made from either.",
        "Anything about facts that no row states, or about other people's data.",
    ]
    if not any(a["trains"] and not a["problem"] for a in record["attacks"]):
        out.append("What comes back when the model is trained again: no attack that trains was carried out.")
    if drawing.name_of(record, "control") != "retrained":
        out.append("What a model retrained without the rows would answer: none was there to compare with.")
    return out


# -- numbers --------------------------------------------------------------------------------------------------------------
def number(value: float | None) -> str:
    """Two decimals; the sign of a small negative number stays.

    >>> number(0.256), number(-0.001), number(None)
    ('0.26', '0.00', '–')
    """
    return DASH if value is None else f"{round(value, 2) + 0:.2f}".replace("-0.00", "0.00").replace("-", "−")


def interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{number(low)} to {number(high)}"


def share(e: EstimateInfo | None) -> str:
    return DASH if e is None or e["value"] is None else f"{whole(e['value'])} %"


def share_interval(e: EstimateInfo | None) -> str:
    if e is None or e["low"] is None or e["high"] is None:
        return ""
    return f"{whole(e['low'])} to {whole(e['high'])} %"


def of_seeds(values: Sequence[float]) -> str:
    """The least and the greatest over seeds; empty for a single one.

    >>> of_seeds([0.1, 0.25, 0.2]), of_seeds([0.1])
    ('3 seeds: 10 to 25 %', '')
    """
    return f"{len(values)} seeds: {whole(min(values))} to {whole(max(values))} %" if len(values) > 1 else ""


def whole(share: float) -> str:
    """A share as a whole number of per cent.

    >>> whole(0.256), whole(-0.001), whole(-0.2)
    ('26', '0', '−20')
    """
    return f"{round(100 * share)}".replace("-", "−")


def upper(text: str | None) -> str:
    """``text`` with a capital letter first."""
    return (text or "")[:1].upper() + (text or "")[1:]
