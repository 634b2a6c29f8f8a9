"""``expunge bench`` and ``expunge rescore``: a benchmark's figures of any model, and again from what was collected."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Any

import typer

from expunge.cli.errors import told
from expunge.errors import InputError


def bench(
    name: Annotated[str, typer.Argument(help="Such as tofu/forget10, lm-eval:arc_easy,hellaswag, or a Python file.")],
    model: Annotated[str, typer.Option(help="Hub id, folder, GGUF file or PEFT adapter folder.")],
    out: Annotated[str, typer.Option(help="Folder for figures.json and what was collected.")] = "figures",
    data: Annotated[str | None, typer.Option(help="Folder with the benchmark's files, instead of the Hub.")] = None,
    retrained: Annotated[
        str | None, typer.Option(help="A model that never saw the forget set: forget quality and PrivLeak need it.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows of each part: a quick look.")] = None,
    dtype: Annotated[str, typer.Option(help="Number format of the weights: float32, bfloat16 or float16.")] = "float32",
    chat_template: Annotated[
        bool | None,
        typer.Option(help="Ask in the tokenizer's chat template, or as plain text; as the benchmark does if left out."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where the model runs, such as cuda.")] = None,
    backend: Annotated[
        str, typer.Option(help="What writes the answers: transformers, or vllm where it is installed.")
    ] = "transformers",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that the model's repository brings.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over earlier figures in the folder.")] = False,
    arg: Annotated[
        list[str] | None,
        typer.Option(help="For lm-eval: an argument of the harness, such as num_fewshot=5; repeatable."),
    ] = None,
) -> None:
    """Measure a model on a benchmark: one pass over the model, every figure with its interval."""
    with told():
        _need_extra()
        from expunge.benchmarks import named
        from expunge.evaluation.evaluate import LM_EVAL, How, evaluate
        from expunge.quiet import quiet

        how = How(
            chat_template=chat_template,
            limit=limit,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
            backend=backend,
        )
        if name.startswith(LM_EVAL):
            from expunge.evaluation.lm_eval import measure

            if retrained is not None:
                raise InputError("lm-eval:TASKS measures one model; leave out --retrained")
            quiet()
            tasks = name.removeprefix(LM_EVAL).split(",")
            show(measure(tasks, model, out, arguments=arg or (), data=data, how=how, overwrite=overwrite))
            return
        if arg:
            raise InputError(f"--arg is for lm-eval:TASKS, {name} has no arguments")
        chosen = named(name)
        quiet()
        given = name if name.endswith(".py") else None
        figures = evaluate(
            chosen, model, out, data=data, retrained=retrained, how=how, overwrite=overwrite, defined_in=given
        )
        if figures:  # under several processes the main one has them
            show(figures)


def rescore(folder: Annotated[str, typer.Argument(help="The folder of an earlier `expunge bench`.")]) -> None:
    """Recompute the figures from what was collected, without a model."""
    with told():
        _need_extra()
        from expunge.benchmarks import named
        from expunge.evaluation.evaluate import rescore as again

        show(again(named, folder))


def _need_extra() -> None:
    if missing := [name for name in ("scipy", "rouge_score") if find_spec(name) is None]:
        raise InputError(f"benchmarks need {' and '.join(missing)}: pip install 'expunge[bench]'")


def show(figures: Any) -> None:
    """The figures as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("part", "figure", "value", "95 % interval", "n", box=None, padding=(0, 2, 0, 0))
    for f in figures:
        interval = "" if f.low is None else f"{f.low:.4g} to {f.high:.4g}"
        table.add_row(f.part, f.name, f"{f.value:.4g}", interval, str(f.n))
    Console().print(table)
