"""``expunge guard``: agents that keep targets out of a model's answers while its weights stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expunge.cli import result
from expunge.cli.errors import running
from expunge.cli.options import Commands, DryRun, Json, Quiet, from_settings

if TYPE_CHECKING:
    from expunge.guard import Endpoint, Guard, Trail
    from expunge.guard.settings import GuardOptions

ASKED, SETTINGS = "expunge.guard.settings.GuardOptions", "expunge.guard.settings.Settings"
MEASURED = "expunge.guard.settings.MeasureOptions"
REQUIRED = ("model", "targets")

app = typer.Typer(
    cls=Commands,
    help="Keep targets out of a model's answers: its weights stay, agents check and rewrite what it says.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("ask")
@from_settings(ASKED, SETTINGS, required=REQUIRED)
def ask(
    given: dict[str, Any],
    question: Annotated[str, typer.Argument(help="What to ask.")],
    trail: Annotated[
        bool, typer.Option("--trail", help="SHOW what every agent said, so also what the model said at first.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Ask one question and print the guarded answer."""
    with running(as_json=as_json, quiet=quiet):
        from expunge.errors import InputError
        from expunge.guard import EndpointError, answer
        from expunge.guard.trail import format_trail

        if not question.strip():
            raise InputError("the question is empty")
        asked, guard, write = _checked(given, dry_run=dry_run)
        if not dry_run:
            guard = _with_models(asked, guard)
            try:
                said = answer(guard, [{"role": "user", "content": question}])
            except EndpointError as error:
                if error.trail:
                    write(error.trail)
                raise
            write(said)
    if dry_run:
        result.show_plan({"command": "guard ask", **_plan(asked, guard), "data": {"questions": 1}}, as_json=as_json)
    elif as_json:
        shown = {"answer": said.answer, "outcome": said.outcome, "calls": said.calls, "seconds": said.seconds}
        result.print_json(shown | ({"trail": asdict(said)} if trail else {}))
    else:
        if trail:
            typer.echo(format_trail(said) + "\n")
        typer.echo(said.answer)


@app.command("serve")
@from_settings(ASKED, SETTINGS, required=REQUIRED)
def serve(
    given: dict[str, Any],
    host: Annotated[
        str, typer.Option(help="Address to listen on; any other than a loopback one lets others ask, without a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    name: Annotated[str | None, typer.Option(help="What the endpoint calls the model.  [default: as --model]")] = None,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> None:
    """Serve a guarded model as an OpenAI-compatible endpoint, /v1/chat/completions and /v1/models, on this machine."""
    with running(as_json=False, quiet=quiet):
        from expunge.guard import server

        server.check_installed()
        asked, guard, write = _checked(given, dry_run=dry_run)
        shown = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
        if dry_run:
            result.show_plan({"command": "guard serve", **_plan(asked, guard), "address": shown}, as_json=False)
            return
        guard = _with_models(asked, guard)
        if not server.names(host):
            typer.echo(f"Whoever reaches {host} port {port} can ask: there is no key.", err=True)
        if not quiet:
            typer.echo(f"{shown} answers for {asked.model}; end it with Ctrl-C.")
        server.serve(guard, name=name or asked.model, host=host, port=port, log=write)


@app.command("measure")
@from_settings(MEASURED, ASKED, SETTINGS, required=(*REQUIRED, "forget", "retain"))
def measure(
    given: dict[str, Any],
    quiet: Quiet = False,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Ask all questions and print how often a target is named, what is refused, ROUGE-L, calls and seconds of a query."""
    with running(as_json=as_json, quiet=quiet):
        from expunge.data.sources import load_rows
        from expunge.guard.measure import measure as measured
        from expunge.guard.measure import questions, table, to_json, warnings, write_json
        from expunge.guard.settings import MeasureOptions
        from expunge.settings import checked_mapping

        chosen = MeasureOptions(**_of(MeasureOptions, given))
        file = _figures_file(chosen.out, overwrite=chosen.overwrite)
        how: dict[str, Any] = {"limit": chosen.limit, "columns": checked_mapping(list(chosen.columns))}
        sets = {name: load_rows(getattr(chosen, name), **how) for name in ("forget", "retain")}
        for rows in sets.values():
            questions(rows)
        asked, guard, write = _checked(given, dry_run=dry_run)
        if not dry_run:
            guard = _with_models(asked, guard)
            found = {name: measured(guard, rows, each=write)[0] for name, rows in sets.items()}
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(found, guard.settings, len(guard.targets), asked.model, file)
    if dry_run:
        data = {name: len(rows) for name, rows in sets.items()}
        plan = {"command": "guard measure", **_plan(asked, guard), "data": data, "out": str(file)}
        result.show_plan(plan, as_json=as_json)
        return
    value = to_json(found, guard.settings, len(guard.targets), asked.model) | {"out": str(file)}
    told = [warning for name, rows in sets.items() for warning in warnings(name, rows)]
    result.show(value, lambda: typer.echo(f"{table(found)}\n  {file}"), as_json=as_json, quiet=quiet, warnings=told)


def _of(kind: Any, given: dict[str, Any]) -> dict[str, Any]:
    """What was given of the settings of ``kind``."""
    return {name: value for name, value in given.items() if name in kind.__dataclass_fields__}


def _figures_file(out: str, *, overwrite: bool) -> Path:
    """The path of the figures; InputError if it cannot be written, or if the folder holds earlier ones."""
    from expunge.evaluation.evaluate import FIGURES, check_folder
    from expunge.outputs import check_file

    if out.endswith(".json") and not Path(out).is_dir():
        return check_file(out)
    return check_folder(out, overwrite=overwrite) / FIGURES


def _checked(given: dict[str, Any], *, dry_run: bool) -> tuple[GuardOptions, Guard, Callable[[Trail], Any]]:
    """What the flags say, a guard without its models, and what keeps a trail; nothing is loaded."""
    from expunge.guard import Guard, read_targets
    from expunge.guard.endpoints import check_address
    from expunge.guard.settings import GuardOptions, Settings
    from expunge.guard.trail import appender

    asked, settings = GuardOptions(**_of(GuardOptions, given)), Settings(**_of(Settings, given))
    guard = Guard(lambda messages, **_: [], read_targets(asked.targets), settings)  # prompts too
    for url in (asked.url, asked.agents_url):
        if url:
            check_address(url)
    write = appender(asked.log) if asked.log and not dry_run else lambda trail: None
    return asked, guard, write


def _plan(asked: GuardOptions, guard: Guard) -> dict[str, Any]:
    return {"model": asked.model, "targets": len(guard.targets), "method": f"guard, auditor {guard.settings.auditor}"}


def _with_models(asked: GuardOptions, guard: Guard) -> Guard:
    """``guard`` around the model that is named, with the agents' model where there is another."""
    from expunge.guard import Guard

    agents = _endpoint(asked.agents_model, asked.agents_url, asked) if asked.agents_model else None
    return Guard(_endpoint(asked.model, asked.url, asked), guard.targets, guard.settings, agents)


def _endpoint(name: str, url: str | None, asked: GuardOptions) -> Endpoint:
    """A local model, or one at an address."""
    from expunge.guard.endpoints import local, remote

    if url:
        return remote(url, name, timeout=asked.timeout)
    import torch

    from expunge.cli.quiet import quiet
    from expunge.data import template
    from expunge.models import load
    from expunge.models.check import usual_device
    from expunge.settings import scalars

    quiet()
    dtype = getattr(torch, asked.dtype)
    where = usual_device(asked.device)
    loaded = load(
        name,
        dtype=dtype,
        device=where,
        trust_remote_code=asked.trust_remote_code,
        attn=asked.attn,
        quantize=asked.quantize,
        compute_dtype=None if asked.dtype == "float32" else dtype,
    )
    if asked.template_arguments:
        template.use(loaded.tokenizer, scalars(asked.template_arguments))
    return local(loaded.model, loaded.tokenizer, seed=asked.seed, chat_template=asked.chat_template)
