"""``expunge plan``: what a run would take, and what fits."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from expunge.cli import result
from expunge.cli.errors import running
from expunge.cli.options import Json, Quiet, from_settings
from expunge.cli.unexpected import typed
from expunge.processes import check_one


@from_settings("expunge.plan.settings.Plan", "expunge.unlearning.settings.Recipe")
def command(
    given: dict[str, Any],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE.toml|.yaml] [KEY=VALUE]...",
            help="As of `expunge run`: a recipe, then settings over it.",
            show_default=False,
        ),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="KEY=VALUE", help="A parameter of the method."),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Say what `expunge run` with the same settings would take: parameters, memory by part, steps, time, what fits.

    Reads the model's configuration and no weights, unless --probe measures a few steps. Where the run does not fit, the
    command that would is printed. The configuration alone is enough: a folder with config.json, with --row-tokens and
    --answer-tokens in place of data.
    """
    with running(as_json=as_json, quiet=quiet):
        from expunge.cli.quiet import quiet as hush
        from expunge.plan import settings as own
        from expunge.plan.describe import lines
        from expunge.plan.run import plan
        from expunge.settings import checked, recipe_first
        from expunge.unlearning import settings as recipe

        check_one("plan")
        values, pairs, where = recipe_first(settings, recipe.read, "the plan")
        how = checked(own.Plan, {key: given.pop(key) for key in own.Plan.model_fields if key in given}, where)
        pairs += [f"method.{p}" for p in parameter or []]
        unknown: dict[str, Any] = {"forget": []} if how.row_tokens else {}
        chosen = recipe.make(unknown | recipe.override(values | given, pairs), where)
        hush()
        found = plan(chosen, how, typed=typed())
    text = "\n".join(lines(found))
    result.show({"command": "plan", **found}, lambda: typer.echo(text), as_json=as_json, quiet=quiet)


def memory_plan(settings: Any, *, as_json: bool) -> dict[str, Any]:
    """What a dry run says of parameters and memory: in full as JSON, else in a line each; nothing where it is unknown."""
    from expunge.errors import InputError
    from expunge.plan.describe import summary
    from expunge.plan.run import plan
    from expunge.plan.settings import Plan

    try:
        found = plan(settings, Plan.model_validate({}), typed=typed())
    except InputError:
        return {"memory": None}
    keys = ("parameters", "memory", "machine", "fits", "would_fit")
    return {key: found[key] for key in keys} if as_json else summary(found)
