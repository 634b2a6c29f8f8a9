"""The page: a record, through tables and plots, into one HTML file without external resources."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from expunge.files import ORDINARY, PRIVATE, replace_text
from expunge.record import complete
from expunge.record_types import RunRecord
from expunge.report import ending, settings, trajectory
from expunge.report import format as words
from expunge.report import run_page as tables
from expunge.report.draw import curves as plots

FILE = "report.html"
MAX_EXAMPLES = 25


def write_report(record: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the report of a record to ``path`` (an HTML file, or a folder that gets ``report.html``); return
    the file.

    One self-contained page: style and charts are inside it, no script, no font and no image is loaded, and
    everything from the record is escaped.  The same record gives the same bytes.  Any part of the record may
    be missing.
    """
    target = Path(path)
    mode = PRIVATE if record.get("examples") else ORDINARY  # the page quotes them
    return replace_text(target / FILE if target.is_dir() else target, render(record), mode=mode)


def render(raw_record: Mapping[str, Any]) -> str:
    """The report of a record, as the text of an HTML page."""
    record = complete(RunRecord, raw_record)
    headline = None if tables.measured(record) else trajectory.headline(record)  # a release with figures of its own
    tiles = tables.tiles(record)
    examples = [(name, tables.examples(record, name)) for name in ("forget", "retain")]
    return page(
        "report.html.j2",
        source="the run's record",
        title=tables.title(record),
        created=words.day(record["created"]) if record["created"] else "",
        method=record["method"]["name"],
        model=record["model"]["source"],
        summary=headline[0] if headline else tables.summary(record),
        tiles=[*headline[1], *tiles[-2:]] if headline else tiles,
        movement=plots.movement(record),
        reference=tables.reference_name(record),
        figures=[] if headline else [(name, tables.figures(record, name)) for name in ("forget", "retain")],
        examples=[(name, rows[:MAX_EXAMPLES], len(rows)) for name, rows in examples if rows],
        stopped=ending.stopped(record),
        guard=ending.guard(record),
        notes=ending.notes(record),
        trajectory=trajectory.table(record),
        trajectory_chart=trajectory.chart(record),
        trajectory_words=trajectory.sentences(record),
        charts=plots.charts(record),
        warnings=tables.warnings(record),
        settings=settings.settings(record),
        limits=tables.limits(record),
        version=record["expunge"] or "",
        dash=words.DASH,
    )


def page(template: str, **values: Any) -> str:
    """The template of that name, filled; everything but our own drawings is escaped."""
    return str(_environment().get_template(template).render(**values))


@functools.cache
def _environment() -> Any:
    """Jinja's environment, which compiles a template once a process."""
    import jinja2
    from markupsafe import Markup

    templates = resources.files("expunge.report")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: templates.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = Markup  # only our own drawings, whose text matplotlib has escaped
    return environment
