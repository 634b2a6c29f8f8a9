"""The figures of an audit: forget against utility, recovery under each attack, and curves over its strength."""

from __future__ import annotations

from typing import Any

from expunge.record_types import AttackInfo, AuditRecord
from expunge.report.draw.curves import COLOURS, Chart, Size, svg
from expunge.report.draw.tradeoff import TARGET, Point, frame, put, words_of, write_names

WIDTH, ROW = 912, 30  # points of a figure, of a line of the forest
RUN = COLOURS | {"--target": (TARGET, "--ink")}
MARKED = ("relearning", "weights", "sampling")  # families whose strength is a number


def _figure(record: AuditRecord, part: str, name: str, role: str) -> tuple[float, float | None, float | None] | None:
    for f in record["figures"]:
        if (f["part"], f["name"], f["model"]) == (part, name, role) and f["value"] is not None:
            return f["value"], f["low"], f["high"]
    return None


def name_of(record: AuditRecord, role: str) -> str:
    """What a model is called: its role, and of the control what kind it is."""
    kind = record["models"][role].get("kind") if role in record["models"] else None
    return kind or role if role == "control" else role


def tradeoff(record: AuditRecord) -> Chart | None:
    """Probability of the answers to forget against that of the answers to keep, each model a mark with its intervals."""
    part = "retain" if any(f["part"] == "retain" for f in record["figures"]) else "general"
    points: dict[str, Point] = {}
    for role in ("target", "unlearned", "control"):
        y, x = _figure(record, "forget", "probability", role), _figure(record, part, "probability", role)
        if y and x:
            points[role] = Point(name_of(record, role), x, y)
    if len(points) < 2 or "unlearned" not in points:
        return None
    names = (
        f"Probability of {'answers to keep' if part == 'retain' else 'general answers'}",
        "Probability of answers to forget",
    )

    def draw(axes: Any) -> None:
        ink = COLOURS["ink"][0]
        frame(axes, list(points.values()), names, True)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        axes.grid(color=COLOURS["grid"][0], linewidth=0.8)
        if control := points.get("control"):
            axes.axvline(control.x[0], color=ink, linewidth=0.8, dashes=(4, 3), zorder=1.5)
            axes.axhline(control.y[0], color=ink, linewidth=0.8, dashes=(4, 3), zorder=1.5)
        put(axes, points["unlearned"], COLOURS["forget"][0], "s", 9, full=True)
        others = {role: p for role, p in points.items() if role != "unlearned"}
        for role, p in others.items():
            put(axes, p, TARGET, "o" if role == "target" else "D", 10, full=False)
        write_names(axes, [], {p.label: p for p in points.values()}, {})

    text = "Forget against utility. " + " ".join(words_of(p) for p in points.values())
    picture = svg("tradeoff", text, draw, size=Size(WIDTH, 420, left=52, right=16, top=34), colours=RUN)
    return Chart(
        "Forget against utility",
        picture,
        "Hollow circle: the target, before unlearning; hollow diamond and dashed lines: the control. Bars: intervals.",
    )


def recoveries(record: AuditRecord) -> Chart | None:
    """What each attack brings back, of the unlearned model and of the control, with intervals; the limit as a line."""
    done = [a for a in record["attacks"] if a["recovery"] and a["recovery"]["value"] is not None]
    if not done:
        return None
    limit = record["policy"].get("recovery")

    def draw(axes: Any) -> None:
        for row, a in enumerate(done):
            for e, colour, shape, shift in (
                (a["recovery"], "forget", "s", -0.13),
                (a["control_recovery"], "retain", "D", 0.13),
            ):
                if e is None or e["value"] is None:
                    continue
                ink = COLOURS[colour][0]
                if e["low"] is not None and e["high"] is not None:
                    ends = [min(1.5, max(-0.5, e["low"])), min(1.5, max(-0.5, e["high"]))]
                    axes.plot(ends, [row + shift] * 2, color=ink, linewidth=1.6, solid_capstyle="butt")
                at = min(1.5, max(-0.5, e["value"]))
                axes.plot([at], [row + shift], shape, color=ink, markersize=5.5)
        if isinstance(limit, int | float):
            axes.axvline(limit, color=COLOURS["ink"][0], linewidth=0.8, dashes=(4, 3), zorder=1.5)
        axes.set(xlim=(-0.52, 1.52), ylim=(len(done) - 0.5, -0.5))
        axes.set_yticks(range(len(done)), [(a["name"] or "").replace("-", " ") for a in done])
        axes.set_xticks([-0.5, 0, 0.5, 1, 1.5], ["−50 %", "0", "50 %", "100 %", "150 %"])
        axes.grid(axis="x", color=COLOURS["grid"][0], linewidth=0.8)

    text = "What attacks bring back. " + " ".join(map(_words, done))
    height = round(48 + ROW * len(done))
    note = "Square: the unlearned model; diamond: the control; dashed: the limit. 100 %: all that was lost is back."
    return Chart("What attacks bring back", svg("recoveries", text, draw, size=Size(WIDTH, height, left=150)), note)


def _words(a: AttackInfo) -> str:
    parts = []
    for name, e in (("unlearned", a["recovery"]), ("control", a["control_recovery"])):
        if e and e["value"] is not None:
            parts.append(f"{name} {e['value']:.2f}")
    return f"{a['name']}: {', '.join(parts)}."


def curves_of(record: AuditRecord) -> list[Chart]:
    """A chart of each attack whose strength is a number and that was measured at several."""
    target = {scale: _figure(record, "forget", scale, "target") for scale in ("probability", "recall")}
    out = []
    for a in record["attacks"]:
        points = [p for p in a["curve"] if p["strength"] is not None and p["unlearned"] is not None]
        if a["family"] in MARKED and len({p["strength"] for p in points}) > 1:
            out.append(_curve(a, target.get(a["scale"] or "")))
    return out


def _curve(a: AttackInfo, target: tuple[float, float | None, float | None] | None) -> Chart:
    points = sorted((p for p in a["curve"] if p["strength"] is not None), key=lambda p: p["strength"] or 0)
    lines = {}
    for role, colour in (("unlearned", "forget"), ("control", "retain")):
        pairs = [(p["strength"], p[role]) for p in points if p[role] is not None]  # type: ignore[literal-required]
        if pairs:
            lines[role] = (pairs, COLOURS[colour][0])

    def draw(axes: Any) -> None:
        for pairs, ink in lines.values():
            axes.plot(*zip(*pairs, strict=True), "-o", color=ink, linewidth=1.5, markersize=4)
        if target:
            axes.axhline(target[0], color=COLOURS["ink"][0], linewidth=1, dashes=(4, 3))
        axes.set_ylim(-0.03, 1.03)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.grid(axis="y", color=COLOURS["grid"][0], linewidth=0.8)
        axes.set_xlabel(a["unit"] or "strength", color=COLOURS["ink"][0], loc="right", labelpad=2)
        for k, (role, (pairs, ink)) in enumerate(lines.items()):
            y = pairs[-1][1]
            axes.annotate(role, (1.01, y), xycoords=("axes fraction", "data"), color=ink, fontsize=11, va="center",
                          xytext=(0, 6 if k == 0 else -6), textcoords="offset points")  # fmt: skip

    name = (a["name"] or "").replace("-", " ")
    text = f"{name}: " + "; ".join(
        f"{role} " + ", ".join(f"{y:.2f} at {x:g}" for x, y in pairs) for role, (pairs, _) in lines.items()
    )
    what = "probability of the right answers" if a["scale"] == "probability" else "score of the answers"
    note = f"The {what}; dashed: the target." if target else f"The {what}."
    slug = "".join(c if c.isalnum() else "-" for c in name)
    return Chart(f"{name[:1].upper()}{name[1:]}", svg(f"curve-{slug}", text, draw, size=Size(right=78)), note)
