"""``expunge report``: the page of a run or an audit again, or several side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli import result
from expunge.cli.errors import running
from expunge.cli.options import Json
from expunge.settings import check_filled


def command(
    folders: Annotated[list[str], typer.Argument(help="Folders of runs and audits.")],
    out: Annotated[
        str | None, typer.Option("--out", help="File of the page.  [default: report.html in the folder]")
    ] = None,
    figure: Annotated[
        list[str] | None,
        typer.Option(
            "--figure",
            metavar="FILE.svg|.png",
            help="Of audits: what is left, and what the worst attack brings back, as a figure; more than once for both.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the page of a run or an audit again, or compare several: verdict, what is left and what was kept."""
    check_filled({"folders": folders, "out": out}, "the command line")
    with running(as_json=as_json, quiet=False):
        from expunge import outputs
        from expunge.report import several_page, write_report
        from expunge.report.audit_page import write_page

        found = several_page.lines(folders)
        target = files_check(out) if out is not None else None
        written: Path | None = None
        drawn = draw(folders, figure) if figure else []
        if len(folders) == 1 and not drawn:
            kind, said = several_page.read(folders[0])
            place = outputs.path_of(folders[0])
            default = place / "report.html" if place.is_dir() else place.parent / "report.html"
            write = write_page if kind == "audit" else write_report
            written = write(said, target or default)
        elif target is not None:
            written = several_page.write_page(found, target)
    if as_json:
        rows = [
            dict(zip(several_page.COLUMNS, [c[0] for c in f.cells], strict=True)) | {"folder": f.name} for f in found
        ]
        result.print_json({"rows": rows, "page": str(written) if written else None})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("", *several_page.COLUMNS[:-1], box=None, padding=(0, 2, 0, 0))
    for f in found:
        table.add_row(f.name, *(value for value, _ in f.cells[:-1]))
    Console().print(table)
    for file in [*drawn, *([written] if written else [])]:
        typer.echo(f"  {file}")


def draw(folders: list[str], figures: list[str]) -> list[Path]:
    """The figure of the audits in ``folders``, as each of the files ``figures``."""
    from expunge.report import several_page
    from expunge.report.draw import stays

    named = several_page.audits(folders)
    return [stays.write(named, files_check(figure)) for figure in figures]


def files_check(out: str) -> Path:
    """The file ``out``, which can be written."""
    from expunge import files, outputs

    return files.check_file(outputs.path_of(out))
