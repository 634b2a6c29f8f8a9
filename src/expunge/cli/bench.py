"""``expunge bench`` and ``expunge rescore``: a benchmark's figures of any model, and again from what was collected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from expunge.cli import result
from expunge.cli.errors import running
from expunge.cli.launching import several
from expunge.cli.options import DryRun, Json, Quiet, from_settings
from expunge.cli.unexpected import writes_to
from expunge.errors import InputError
from expunge.settings import check_filled, is_recipe

BENCH, EVALUATION = "expunge.bench.settings.Bench", "expunge.evaluation.probe.EvaluationOptions"
LM_EVAL_OPTIONS = {
    "limit",
    "dtype",
    "chat_template",
    "device",
    "attn",
    "trust_remote_code",
}  # what lm-evaluation-harness takes too


def need_extra() -> None:
    """Raise InputError where the packages of ``expunge[bench]`` are not there."""
    if missing := [name for name in ("scipy", "rouge_score") if find_spec(name) is None]:
        raise InputError(f"benchmarks need {' and '.join(missing)}: pip install 'expunge[bench]'")


RUN_OPTIONS = ("optimizer", "adapter", "seed", "processes", "save_every", "fresh")


@from_settings(BENCH, EVALUATION, ("expunge.unlearning.settings.Recipe", *RUN_OPTIONS))
def bench(
    given: dict[str, Any],
    name: Annotated[
        str,
        typer.Argument(
            help="Such as tofu/forget10, lm-eval:arc_easy,hellaswag, a Python file, or a recipe (.toml, .yaml) that names "
            "one."
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="With --method: settings of the unlearning, as `expunge run` takes them (max_steps=20, lr=1e-4).",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Hub id, folder, GGUF file or PEFT adapter folder; several --model are measured one by one."),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="KEY=VALUE", help="A parameter of the method."),
    ] = None,
    teach: Annotated[
        bool, typer.Option("--teach", help="The model is a base model: teach it the forget and the retain rows first.")
    ] = False,
    teach_setting: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A training argument of the teaching; without any 5 epochs at 1e-5, or 2e-4 with LoRA.",
        ),
    ] = None,
    arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="For lm-eval:TASKS: an argument of the harness, such as num_fewshot=5."
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Measure a model on a benchmark, every figure with its interval; with --method unlearn first and measure both.

    An interrupted command goes on: what was taught, unlearned or asked before with the same settings is not done again.
    """
    plan: Mapping[str, Any] | None = None
    said: Mapping[str, Any] = {}
    with running(as_json=as_json, quiet=quiet):
        need_extra()
        from expunge import bench as benchmark_run
        from expunge.cli.quiet import quiet as hush
        from expunge.evaluation.evaluate import LM_EVAL

        if arg and not name.startswith(LM_EVAL):
            raise InputError(f"--arg is for lm-eval:TASKS, {name} has no arguments")
        flags = given | ({"teach": {}} if teach or teach_setting else {})
        flags |= {"model": model if len(model) > 1 else model[0]} if model else {}
        out = str(flags.get("out", "figures"))
        if name.startswith(LM_EVAL):
            taken = _for_lm_eval(name, flags, settings or [], arg or [])
            if dry_run:
                plan = _lm_eval_plan(taken)
            else:
                hush()
                writes_to(out)
                said = _lm_eval(taken)
        else:
            values = benchmark_run.read_file(name) if is_recipe(name) else {"benchmark": name}
            if "teach" in values:
                flags.pop("teach", None)
            pairs = [f"method.{p}" for p in parameter or []] + [f"teach.{p}" for p in teach_setting or []]
            whole = benchmark_run.override(values | flags, [*(settings or []), *pairs])
            if isinstance(whole.get("model"), list) and len(whole["model"]) > 1:
                plan, said, out = _each(whole, quiet=quiet, dry_run=dry_run)
            else:
                chosen = benchmark_run.make(whole)
                if chosen.jobs or chosen.cluster:
                    raise InputError("--jobs and --cluster are for several models; give more than one --model")
                several(chosen.run.get("processes"), chosen.run.get("training") or {})
                hush()
                out = chosen.out
                writes_to(out)
                if dry_run:
                    plan = benchmark_run.planned(chosen)
                else:
                    said = benchmark_run.run(chosen, command=result.command_line())
    if plan:
        result.show_plan({"command": "bench", **plan}, as_json=as_json)
    elif "models" in said:
        _show_each(said, out, as_json=as_json, quiet=quiet)
    elif said:
        warnings = [*said.get("warnings", []), *(said.get("unlearning") or {}).get("warnings", [])]
        result.show(
            {**said, "out": out}, lambda: _print_result(said, out), as_json=as_json, quiet=quiet, warnings=warnings
        )


def _each(
    values: Mapping[str, Any], *, quiet: bool, dry_run: bool
) -> tuple[Mapping[str, Any] | None, Mapping[str, Any], str]:
    """Of several models the plan or what ``models.json`` says, and the folder of all."""
    from expunge import bench as benchmark_run
    from expunge.cli.quiet import hush_without_bars
    from expunge.cli.quiet import quiet as hush

    each = benchmark_run.make_each(values)
    out = str(Path(next(iter(each.values())).out).parent.parent)
    hush()
    writes_to(out)
    if dry_run:
        return benchmark_run.planned_each(each), {}, out
    tell = (lambda line: None) if quiet else typer.echo
    said = benchmark_run.run_each(each, command=result.command_line(), tell=tell, prepare=hush_without_bars)
    return None, said, out


def _show_each(said: Mapping[str, Any], out: str, *, as_json: bool, quiet: bool) -> None:
    """Print what came of several models; the exit code is 1 where one failed."""
    failures = [f"{one['name']} failed: {one['said']}" for one in said["models"] if not one["done"]]
    warnings = [f"{one['name']}: {warning}" for one in said["models"] for warning in one["warnings"]]

    def say() -> None:
        _table(said["models"])
        result.files(out, "models.json", *(f"{one['folder']}/report.html" for one in said["models"] if one["done"]))

    result.show({**said, "out": out}, say, as_json=as_json, quiet=quiet, warnings=[*warnings, *failures])
    if failures:
        raise typer.Exit(1)


def _table(models: Sequence[Mapping[str, Any]]) -> None:
    """Every figure in a line, every model in a column."""
    from rich.console import Console
    from rich.table import Table

    from expunge.report.bench_page import number_words

    done = [one for one in models if one["done"]]
    table = Table("part", "figure", *(one["name"] for one in done), box=None, padding=(0, 2, 0, 0))
    values = {one["name"]: {(f["part"], f["name"]): f["value"] for f in one["figures"]} for one in done}
    for part, name in dict.fromkeys(key for of_model in values.values() for key in of_model):
        table.add_row(part, name, *(number_words(values[one["name"]].get((part, name))) for one in done))
    Console().print(table)


def rescore(
    folder: Annotated[str, typer.Argument(help="The folder of an earlier `expunge bench`.")],
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Recompute the figures from what was collected, without a model."""
    with running(as_json=as_json, quiet=quiet):
        check_filled({"folder": folder}, "the command line")
        need_extra()
        from expunge.benchmarks import named
        from expunge.evaluation.evaluate import FIGURES, read
        from expunge.evaluation.evaluate import rescore as again
        from expunge.report.bench_page import write_report

        folder = folder.removesuffix(FIGURES) or "."  # the file itself is as good
        again(named, folder)
        said = read(folder)
        write_report(said, folder)
    result.show({**said, "out": folder}, lambda: _print_result(said, folder), as_json=as_json, quiet=quiet)


def _for_lm_eval(name: str, flags: Mapping[str, Any], settings: list[str], arguments: list[str]) -> dict[str, Any]:
    """The arguments of ``lm_eval.measure``; InputError for what means nothing there."""
    from expunge.evaluation.evaluate import LM_EVAL
    from expunge.evaluation.probe import EvaluationOptions

    known = LM_EVAL_OPTIONS | {"model", "out", "data", "overwrite"}
    if other := [*settings, *("--" + k.replace("_", "-") for k in flags if k not in known)]:
        raise InputError(f"lm-eval:TASKS measures one model as it is; leave out {', '.join(other)}")
    if "model" not in flags:
        raise InputError("model is missing; give --model")
    if not isinstance(flags["model"], str):
        raise InputError("lm-eval:TASKS measures one model; give one --model")
    return {
        "tasks": name.removeprefix(LM_EVAL).split(","),
        "model": flags["model"],
        "out": flags.get("out", "figures"),
        "arguments": arguments,
        "data": flags.get("data"),
        "how": EvaluationOptions(**{k: v for k, v in flags.items() if k in LM_EVAL_OPTIONS}),
        "overwrite": flags.get("overwrite", False),
    }


def _lm_eval_plan(taken: Mapping[str, Any]) -> dict[str, Any]:
    from expunge.evaluation.evaluate import check_folder

    check_folder(taken["out"], inputs={k: taken[k] for k in ("model", "data")}, overwrite=taken["overwrite"])
    return {"benchmark": ",".join(taken["tasks"]), "model": taken["model"], "out": taken["out"]}


def _lm_eval(taken: Mapping[str, Any]) -> dict[str, Any]:
    """General capability by lm-evaluation-harness: figures.json and the page of it."""
    from expunge.evaluation.evaluate import read
    from expunge.evaluation.lm_eval import measure
    from expunge.report.bench_page import write_report

    measure(**taken)
    said = read(taken["out"])
    write_report(said, taken["out"])
    return said


def _print_result(said: Mapping[str, Any], folder: str) -> None:
    """The figures as a table, and what was written."""
    from rich.console import Console
    from rich.table import Table

    from expunge.report.bench_page import columns, number_words, rows

    models, found = columns(said), rows(said)
    alone = len(models) == 1
    table = Table(
        "part", "figure", *models.values(), *(["95 % interval", "n"] if alone else []), box=None, padding=(0, 2, 0, 0)
    )
    for row in found:
        cells = [number_words(row.figures[who]["value"]) if who in row.figures else "" for who in models]
        one = next(iter(row.figures.values()))
        more = [row.interval("model"), str(one["n"])] if alone else []
        table.add_row(row.part, row.name, *cells, *more)
    Console().print(table)
    result.files(folder, "figures.json", "report.html")
