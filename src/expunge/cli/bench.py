"""``expunge bench`` and ``expunge rescore``: a benchmark's figures of any model, and again from what was collected."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from expunge.cli import asking
from expunge.cli.errors import told
from expunge.errors import InputError


def bench(
    name: Annotated[
        str,
        typer.Argument(
            help="Such as tofu/forget10, lm-eval:arc_easy,hellaswag, a Python file, or a recipe (.toml) that names one."
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="With --method: settings of the unlearning, as `expunge run` takes them (max_steps=20, seed=1).",
            show_default=False,
        ),
    ] = None,
    model: asking.Model = None,
    out: Annotated[
        str | None, typer.Option(help="Folder for figures.json, report.html and all that was made.  [default: figures]")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Unlearn the benchmark's forget set first, with one of `expunge methods`.")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="KEY=VALUE", help="A parameter of the method."),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="sophia or sophia_published (second order), or adamw: what the training argument optim names; "
            "the method's if not given."
        ),
    ] = None,
    adapter: asking.AnAdapter = None,
    teach: Annotated[
        bool, typer.Option("--teach", help="The model is a base model: teach it the forget and the retain rows first.")
    ] = False,
    teach_retrained: Annotated[
        bool | None,
        typer.Option("--teach-retrained", help="And, apart, the retain rows only: that is the retrained model."),
    ] = None,
    teach_setting: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A training argument of the teaching; without any 5 epochs at 1e-5, or 2e-4 with LoRA.",
        ),
    ] = None,
    data: asking.Data = None,
    retrained: asking.Retrained = None,
    model_name: asking.ModelName = None,
    data_name: asking.DataName = None,
    retrained_name: asking.RetrainedName = None,
    limit: asking.Limit = None,
    dtype: asking.Dtype = None,
    device: asking.Device = None,
    chat_template: asking.ChatTemplate = None,
    backend: asking.Backend = None,
    arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="For lm-eval:TASKS: an argument of the harness, such as num_fewshot=5."
        ),
    ] = None,
    trust_remote_code: asking.TrustRemoteCode = None,
    overwrite: Annotated[
        bool | None, typer.Option("--overwrite", help="Write over earlier figures in the folder.")
    ] = None,
) -> None:
    """Measure a model on a benchmark, every figure with its interval; with --method unlearn first and measure both.

    An interrupted command goes on: what was taught, unlearned or asked before with the same settings is not done again.
    """
    with told():
        asking.need_extra()
        from expunge import bench as whole
        from expunge.evaluation.evaluate import LM_EVAL

        flags: dict[str, Any] = {
            "model": model,
            "out": out,
            "method": method,
            "optimizer": optimizer,
            "adapter": adapter,
            "teach": {} if teach or teach_setting else None,
            "teach_retrained": teach_retrained,
            "data": data,
            "retrained": retrained,
            "model_name": model_name,
            "data_name": data_name,
            "retrained_name": retrained_name,
            "limit": limit,
            "dtype": dtype,
            "chat_template": chat_template,
            "device": device,
            "backend": backend,
            "trust_remote_code": trust_remote_code,
            "overwrite": overwrite,
        }
        if arg and not name.startswith(LM_EVAL):
            raise InputError(f"--arg is for lm-eval:TASKS, {name} has no arguments")
        if name.startswith(LM_EVAL):
            said = _lm_eval(name, {k: v for k, v in flags.items() if v is not None}, [*(settings or [])], arg or [])
            _say(said, out or "figures")
            return
        values = whole.read_file(name) if name.endswith(".toml") else {"benchmark": name}
        given = {k: v for k, v in flags.items() if v is not None and not (k == "teach" and "teach" in values)}
        pairs = [f"method.{p}" for p in parameter or []] + [f"teach.{p}" for p in teach_setting or []]
        chosen = whole.make(whole.override(values | given, [*(settings or []), *pairs]))
        from expunge.cli.quiet import quiet
        from expunge.evaluation.collect.one_pass import leave

        quiet()
        said = whole.run(chosen, command=shlex.join(["expunge", *sys.argv[1:]]))
        leave()
    if said:
        _say(said, chosen.out)


def rescore(folder: Annotated[str, typer.Argument(help="The folder of an earlier `expunge bench`.")]) -> None:
    """Recompute the figures from what was collected, without a model."""
    with told():
        asking.need_extra()
        from expunge.benchmarks import named
        from expunge.evaluation.evaluate import read
        from expunge.evaluation.evaluate import rescore as again
        from expunge.report.bench_page import write_report

        again(named, folder)
        said = read(folder)
        write_report(said, folder)
    _say(said, folder)


def _lm_eval(name: str, flags: dict[str, Any], settings: list[str], arguments: list[str]) -> dict[str, Any]:
    """General capability by lm-evaluation-harness: figures.json and the page of it."""
    from expunge.cli.quiet import quiet
    from expunge.evaluation.evaluate import LM_EVAL, read
    from expunge.evaluation.lm_eval import measure
    from expunge.evaluation.probe import How
    from expunge.report.bench_page import write_report

    taken = {"limit", "dtype", "chat_template", "device", "trust_remote_code"}
    if other := [
        *settings,
        *("--" + k.replace("_", "-") for k in flags if k not in taken | {"model", "out", "data", "overwrite"}),
    ]:
        raise InputError(f"lm-eval:TASKS measures one model as it is; leave out {', '.join(other)}")
    if "model" not in flags:
        raise InputError("model is missing; give --model")
    quiet()
    out = flags.get("out", "figures")
    measure(
        name.removeprefix(LM_EVAL).split(","),
        flags["model"],
        out,
        arguments=arguments,
        data=flags.get("data"),
        how=How(**{k: v for k, v in flags.items() if k in taken}),
        overwrite=flags.get("overwrite", False),
    )
    said = read(out)
    write_report(said, out)
    return said


def _say(said: Mapping[str, Any], folder: str) -> None:
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
    for name in ("figures.json", "report.html"):
        typer.echo(f"  {Path(folder) / name}")
