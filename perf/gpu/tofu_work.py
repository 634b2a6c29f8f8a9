"""The work of ``perf.gpu.tofu``: teach a model, ask it, unlearn and ask again, all in memory; a record of each piece.

A run is that of ``expunge run`` (its settings, its trainer) without weights on the disk: every trial begins with a copy of
the target, which a process loads once.
"""

from __future__ import annotations

import copy
import gc
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from expunge import __version__, bench, files, models, record
from expunge.bench.run import Ready
from expunge.bench.teach import teach
from expunge.compare import describe as about
from expunge.compare.sweep import sentence
from expunge.data.sources import load_rows
from expunge.errors import RunFailed
from expunge.evaluation.benchmark import Benchmark, data_of, to_json
from expunge.evaluation.collect.one_pass import coded_of, collect, processes
from expunge.evaluation.collect.score import Coded
from expunge.evaluation.probe import fingerprint
from expunge.evaluation.table import Collected, Generated, Scored
from expunge.models.loaded import fingerprint_state
from expunge.unlearning import describe, train
from expunge.unlearning import settings as recipe
from expunge.unlearning.ready import method_of
from expunge.unlearning.rows import Data, encode
from perf.gpu import tofu_halves as halves
from perf.gpu import tofu_plan as plans
from perf.gpu.tofu_plan import Piece, Plan

MARGIN = 1.2  # times the longest piece of its kind so far: the time that a piece is expected to take


class Worker:
    """What one process holds between pieces: rows, their tokens, the target model, what the retrained one said."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @cached_property
    def first(self) -> Ready:
        """The first trial."""
        return plans.ready(self.plan, self.plan.trials[0])

    @cached_property
    def target(self) -> models.Loaded:
        """The model that all trials begin with."""
        return models.load(self.plan.out / "target", device=processes().device)

    @cached_property
    def data(self) -> Data:
        """The rows as tokens; no method here needs alternates, so they are the same for all."""
        assert self.first.plan
        return encode(self.first.rows, self.target.tokenizer, self.first.plan)

    def benchmark(self, which: str, *, seed: int = 0) -> Benchmark:
        """What is asked; gradient norms, a pass backward for each text, with seed 0 only."""
        return halves.CHOICE if which == "choice" else halves.report(self.plan.max_new_tokens, grad_norm=seed == 0)

    def said(self, model: Any, asked: Benchmark) -> Collected:
        """What ``model`` says to a benchmark."""
        how: dict[str, Any] = {"max_length": asked.max_length, "chat_template": asked.chat_template}
        probes = asked.probes(data_of(asked, self.plan.rows_folder))
        key = fingerprint(probes)
        if key not in self._coded:
            self._coded[key] = coded_of(probes, self.target.tokenizer, **how)
        return collect(model, self.target.tokenizer, probes, **how, coded=self._coded[key])

    @cached_property
    def _coded(self) -> dict[str, list[Coded]]:
        return {}

    def retrained(self, which: str) -> Collected:
        """What the retrained model said."""
        if which not in self._retrained:
            self._retrained[which] = read_table(table_file(self.plan, which))
        return self._retrained[which]

    @cached_property
    def _retrained(self) -> dict[str, Collected]:
        return {}


def carry_out(worker: Worker, piece: Piece) -> None:
    """Do a piece and write its record."""
    began = time.monotonic()
    if piece.kind == "teach":
        said = _teach(worker.plan, piece.name)
    elif piece.kind == "ask":
        said = _ask(worker, piece.name)
    else:
        said = {"run": _run(worker, piece)}
    plans.write(worker.plan, piece, {**said, "seconds": time.monotonic() - began})
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def work(plan: Plan, deadline: float | None, tell: Callable[[str], Any] = print) -> bool:
    """Do pieces until none is left, True, or until ``deadline`` (of ``time.time``) leaves no time for another, False.

    While other processes are at work it waits, for what they do may make room for more pieces.
    """
    worker = Worker(plan)
    while True:
        every = plans.pieces(plan)
        left = [p for p in every if not plans.is_done(plan, p)]
        if not left:
            return True
        outcome = _one(worker, every, left, deadline, tell)
        if outcome == "late" or (outcome == "busy" and deadline is not None and time.time() >= deadline):
            return False
        if outcome == "busy":
            time.sleep(0.5)


def _one(
    worker: Worker, every: list[Piece], left: list[Piece], deadline: float | None, tell: Callable[[str], Any]
) -> Literal["done", "busy", "late"]:
    """Do the first piece that waits for nothing, that no other process has and for which there is time.

    Without one: "busy" where other processes have pieces in hand, "late" where none has.
    """
    plan, busy = worker.plan, False
    for piece in left:
        if plans.waits(plan, piece, every):
            continue
        with plans.claimed(plan, piece) as mine:
            if not mine:
                busy = True
            elif deadline is None or time.time() + expected(plan, piece) < deadline:
                began = time.monotonic()
                carry_out(worker, piece)
                tell(f"{piece.kind} {piece.name}: {time.monotonic() - began:.1f} s, {len(left) - 1} known to be left")
                return "done"
    return "busy" if busy else "late"


def expected(plan: Plan, piece: Piece) -> float:
    """The seconds that a piece may take, by those of its kind that are done; 0 where none is."""
    done = (plan.out / "pieces").glob(f"{piece.kind}-*.json")
    took = [json.loads(file.read_text(encoding="utf-8")).get("seconds") or 0.0 for file in done]
    return MARGIN * max(took, default=0.0)


# -- pieces ---------------------------------------------------------------------------------------------------------------
def _teach(plan: Plan, who: str) -> dict[str, Any]:
    rows = [row for name in plans.TAUGHT[who] for row in load_rows(plan.rows_folder / f"{name}.json")]
    settings = recipe.make(
        {
            "model": plan.model,
            "model_name": plans.NAME,
            "forget": "-",
            "out": str(plan.out / who),
            "overwrite": True,
            "training": {**plan.teach, **plan.training, "disable_tqdm": True},
        }
    )
    teach(rows, settings, plan.out / who)
    made = files.read_json(plan.out / who / "made.json", description="record", remedy="remove it, and it is made again")
    return {"output": made["output"], "taught": {k: made.get(k) for k in ("rows", "steps", "loss", "settings")}}


def _ask(worker: Worker, name: str) -> dict[str, Any]:
    plan, (who, which) = worker.plan, name.split("-")
    model = worker.target if who == "target" else models.load(plan.out / who, device=processes().device)
    asked = worker.benchmark(which)
    found = worker.said(model.model, asked)
    if who == "retrained":
        write_table(found, table_file(plan, which))
    figures = to_json(asked.score(found, worker.retrained(which)))
    return {"fingerprint": model.fingerprint, "figures": figures}


def _run(worker: Worker, piece: Piece) -> dict[str, Any]:
    trial = piece.trial
    assert trial
    it = bench.ready(trial.settings, rows=worker.first.rows)
    out = Path(trial.settings.out).parents[1]
    try:
        return _unlearned(worker, piece, it, out)
    except Exception as error:  # one method's trouble is not the others'
        return about.failed(trial, it, sentence(error, it), out)


def _unlearned(worker: Worker, piece: Piece, it: Ready, out: Path) -> dict[str, Any]:
    """The record of a run, as a comparison has it."""
    trial = piece.trial
    assert trial and it.plan
    began = time.monotonic()
    target, data = worker.target, worker.data
    net = copy.deepcopy(target.model)
    method = train.fit(method_of(it.plan), net, target.tokenizer, data)
    train.check_fit(net, it.plan, method)
    args = train.training_arguments(it.plan, method, len(it.rows["forget"]), it.folder)
    trainer = train.train(train.prepare(net, it.plan, method), target.tokenizer, data, method, args)
    if broken := trainer.health.diverged:
        raise RunFailed(f"{broken.sentence}, at learning rate {args.learning_rate:g}")
    after = copy.deepcopy(target.model)  # without what the trainer laid around the model
    after.load_state_dict(trainer.accelerator.unwrap_model(net).state_dict())
    log = {
        "method": describe.describe(method),
        "training": describe.describe_training(args, trainer.state.max_steps, method.optimizer),
        "tokens": describe.tokens(trainer),
        "steps": describe.steps(trainer.state.log_history),
        "seconds": time.monotonic() - began,
        "device": device_name(trainer.args.device),
        "warnings": [*worker.data.warnings, *trainer.warnings],
    }
    del trainer, net
    began, which = time.monotonic(), plans.ASKED[piece.kind]
    asked = worker.benchmark(which, seed=trial.seed)
    found = worker.said(after, asked)
    figures = to_json(asked.score(found, worker.retrained(which)))
    said = {
        "seconds": time.monotonic() - began,
        "versions": record.versions(),
        "expunge": __version__,
        "model": {"fingerprint": fingerprint_state(after)},
        "figures": figures,
    }
    return about.run(trial, it, said, log, out) | {"record": None}


def device_name(device: torch.device) -> str:
    """The card's name, or the kind of device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


# -- what the retrained model said ----------------------------------------------------------------------------------------
def table_file(plan: Plan, which: str) -> Path:
    """Where it stands; it quotes the rows, so only its owner may read it."""
    return plan.out / "asked" / f"retrained-{which}.json"


def write_table(found: Collected, file: Path) -> None:
    """Write all that was collected."""
    scores = [{k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(s).items()} for s in found.scores]
    files.private_folder(file.parent)
    files.write_json(file, {"scores": scores, "answers": [asdict(a) for a in found.answers]}, mode=files.PRIVATE)


def read_table(file: Path) -> Collected:
    """What :func:`write_table` wrote."""
    said = files.read_json(file, description="table", remedy="remove the folder asked/, and it is made again")
    return Collected(tuple(_scored(row) for row in said["scores"]), tuple(Generated(**row) for row in said["answers"]))


def _scored(row: Mapping[str, Any]) -> Scored:
    numbers = {k: np.asarray(row[k], np.float32) for k in ("logp", "vocab_mean", "vocab_std")}
    return Scored(**{**row, **numbers, "hit": np.asarray(row["hit"], bool)})


def workers(n: int, command: Sequence[str]) -> list[int]:
    """Run ``command`` in ``n`` processes and wait; their exit codes."""
    import subprocess

    threads = str(max(1, (os.cpu_count() or 1) // n))
    running = [subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": threads}) for _ in range(n)]
    return [process.wait() for process in running]
