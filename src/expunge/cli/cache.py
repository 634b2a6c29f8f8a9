"""``expunge cache``: what the cache holds, and taking it away."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from expunge.cli import result
from expunge.cli.errors import running
from expunge.cli.options import DryRun, Json, Quiet
from expunge.settings import check_filled


def command(
    clear: Annotated[
        bool, typer.Option("--clear", help="Take away everything that no running process uses, or what is said below.")
    ] = False,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="With --clear: only what was not used for so long, such as 30d.")
    ] = None,
    keep: Annotated[
        str | None, typer.Option(metavar="SIZE", help="With --clear: only until so much is left, such as 5GB.")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """List what the cache holds (answers to benchmarks, so texts of forget sets too; copies of GGUF models), or clear it.

    It is held to 90 days since the last use and 20 GB in all, or what EXPUNGE_CACHE_AGE and EXPUNGE_CACHE_SIZE say.
    """
    with running(as_json=as_json, quiet=quiet):
        from expunge import cache, files
        from expunge.errors import InputError

        check_filled({"older_than": older_than, "keep": keep}, "the command line")
        if (older_than or keep) and not clear:
            raise InputError("--older-than and --keep say what --clear takes away; add --clear")
        limits: dict[str, Any] = {"older_than": cache.seconds(older_than) if older_than else None}
        limits["keep"] = cache.number_of_bytes(keep) if keep else None if older_than else 0
        found = cache.entries()
        chosen = cache.excess(found, **limits) if clear else []
        gone = [] if dry_run else cache.remove(chosen)
        left = [e for e in found if e not in gone]
        place = files.cache_folder()

    removed = sum(e.size for e in gone)
    value: dict[str, Any] = {
        "folder": str(place),
        "entries": [
            {
                "what": e.description,
                "bytes": e.size,
                "days": e.age / cache.DAY,
                "in_use": e.busy,
                "folder": str(e.folder),
            }
            for e in left
        ],
        "removed": len(gone),
        "removed_bytes": removed,
    }

    def say() -> None:
        for line in cache.lines(chosen if dry_run and clear else left):
            typer.echo(line)
        if dry_run and clear:
            typer.echo(f"{len(chosen)} entries would go, {cache.size_words(sum(e.size for e in chosen))}.")
        elif clear:
            typer.echo(f"{len(gone)} entries are gone, {cache.size_words(removed)}.")
        typer.echo(f"{place}: {len(left)} entries, {cache.size_words(sum(e.size for e in left))}")

    result.show(value, say, as_json=as_json, quiet=quiet)
