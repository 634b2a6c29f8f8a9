"""``expunge fingerprint FOLDER``: the fingerprint by which records name a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from expunge import files
from expunge.cli import result
from expunge.cli.errors import running
from expunge.cli.options import Json
from expunge.errors import InputError, nearest
from expunge.settings import DTYPES, check_filled


def command(
    model: Annotated[str, typer.Argument(help="Hub id, folder, GGUF file, PEFT adapter folder, or a run's folder.")],
    dtype: Annotated[str, typer.Option(help="Number format in which the model is loaded.")] = "float32",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that the model's repository brings.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print a model's fingerprint, as a run's record has it of the model that it begins with and of the one that it wrote.

    Of a run's folder it is that of the model in it; where its record says otherwise the exit code is 1.
    """
    with running(as_json=as_json, quiet=True):
        check_filled({"model": model, "dtype": dtype}, "the command line")
        if dtype not in DTYPES:
            raise InputError(f"dtype must be {', '.join(DTYPES)}, not {dtype!r}{nearest(dtype, DTYPES)}")
        from expunge.cli.quiet import quiet as hush

        hush()
        said = described(model, dtype, trust_remote_code=trust_remote_code)
    result.show(said, lambda: typer.echo(said["fingerprint"]), as_json=as_json, quiet=False)
    if said["recorded"] not in (None, said["fingerprint"]):
        typer.secho(f"expunge: the record in {said['run']} names {said['recorded']}", fg=typer.colors.RED, err=True)
        raise typer.Exit(1)


def described(model: str, dtype: str, *, trust_remote_code: bool = False) -> dict[str, Any]:
    """The fingerprint of ``model``; of one that a run wrote also the run's folder and the fingerprint in its record."""
    import torch

    from expunge import models

    place = model_of(model)
    loaded = models.load(place, dtype=getattr(torch, dtype), trust_remote_code=trust_remote_code)
    run, recorded = recorded_of(place, dtype)
    return {"model": place, "dtype": dtype, "fingerprint": loaded.fingerprint, "run": run, "recorded": recorded}


def model_of(place: str) -> str:
    """``place``, or the model in it where it is a run's folder."""
    from expunge import record

    folder = files.expanded(place)
    if not (folder / record.FILE).is_file() or (folder / "config.json").exists():
        return place
    output = record.read(folder).get("output") or {}
    return str(folder / str(output.get("path", "model")))


def recorded_of(place: str, dtype: str) -> tuple[str | None, str | None]:
    """The folder of the run that wrote ``place``, and the fingerprint in its record, if it is of that number format."""
    from expunge import record

    folder = files.expanded(place).parent
    if not (folder / record.FILE).is_file():
        return None, None
    output = record.read(folder).get("output") or {}
    if output.get("path") != Path(place).name:
        return None, None
    return str(folder), output.get("fingerprint") if output.get("dtype") == dtype else None
