"""What a run saves on its way so that it goes on as if never interrupted: when, what besides transformers' own, and where.

A checkpoint is transformers' own (optimizer, schedule, random states, log; where it was asked for, the model) and beside it
``combiner.json``, ``expunge.json`` (what the trainer knows besides, and what the run adds), ``trained.safetensors`` (the
weights that train, under their names in the model), ``good.safetensors`` (the last weights that gave finite losses),
``kept.safetensors`` (the last that the utility guard passed) and ``before.safetensors`` (those of the last test of a method
that ends at a level).  It is whole or not there (:mod:`expunge.training.manifest`).
A run in shards gathers what it saves: the files are those of one process, the optimizer's state apart
(:mod:`expunge.training.moments`).
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import TrainerCallback

from expunge import files
from expunge.training import checkpoints, finite, manifest, moments, pieces, signals, trained

GOOD = "good"
GUARDED = "kept"
BEFORE = "before"
LAG = 0.5  # seconds of steps after which several processes ask each other whether to save or to stop


@dataclass(frozen=True)
class Plan:
    """Checkpoints of the run's own: one in ``folder``, renewed every so many ``seconds`` (None: only those asked for).

    ``facts()`` is what the run adds to each.
    """

    folder: Path
    seconds: float | None = None
    facts: Callable[[], Mapping[str, Any]] = dict


@dataclass
class Saved:
    """What became of a run's checkpoints: the step of the newest, ``problems`` of those that could not be written."""

    step: int | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def problem(self) -> str | None:
        """The sentence of a run whose weights are whole, and some of whose checkpoints could not be written."""
        if not self.problems:
            return None
        others = f", nor could {len(self.problems) - 1} more" if self.problems[1:] else ""
        return f"{self.problems[0]}{others}; the weights that came out are whole"


class Keeper(TrainerCallback):
    """Decides when a checkpoint is saved, saves it whole, and gives a resumed trainer what it held."""

    def __init__(self, trainer: Any, plan: Plan | None):
        self.trainer = trainer
        self.plan = plan
        self.begin: Path | None = None  # the checkpoint that training goes on from
        self.saved = Saved()
        self.wanted: Callable[[], int | None] = lambda: None  # the signal that ends training
        self.stopped_by: int | None = None
        self.into: Path | None = None  # where the checkpoint that is being written goes
        self.whole: Any = None  # the model that is being written, where it is in shards
        self._own = False  # whether it is one of the run's own
        self._due_now = False
        self._last = time.monotonic()
        self._ended = False
        self._asked = (0, self._last)  # at which step the processes last asked each other, and when
        self._ask = 0  # at which they do next

    # -- when -----------------------------------------------------------------------------------------------------------
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the time from here; a resumed trainer gets what the checkpoint held."""
        self._last = time.monotonic()
        self._asked, self._ask = (state.global_step, self._last), state.global_step
        if self.begin:
            self._restore(self.begin, state)
            if self.plan and args.should_save and not args.disable_tqdm:
                tqdm.write(f"going on after step {state.global_step} of {state.max_steps}", file=sys.stderr)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Where the checkpoint was of the end there is nothing left to do."""
        if self._ended or state.global_step >= state.max_steps:
            control.should_training_stop = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Have a checkpoint saved where it is time, or where training is to end here."""
        self._own, self._due_now = not control.should_save, False
        if self.plan is None or (state.global_step < self._ask and state.global_step < state.max_steps):
            return
        main = self.trainer.args.process_index == 0
        due, gap, signal = self._agreed(main and self._due(state), main and self._gap(state), self.wanted() or 0)
        self._asked, self._ask = (state.global_step, time.monotonic()), state.global_step + gap
        self.stopped_by = signal or None
        self._due_now = bool((due and not self.trainer.health.diverged) or signal)
        control.should_save |= self._due_now

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What is saved at an epoch's end was asked for."""
        self._own = self._due_now = False

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Training ends after the checkpoint that a signal called for."""
        if self.stopped_by:
            control.should_training_stop = True

    def _due(self, state: Any) -> bool:
        assert self.plan
        if self.plan.seconds is None:
            return False
        last = state.global_step >= state.max_steps and self.saved.step is not None  # what follows may be long too
        return last or time.monotonic() - self._last >= self.plan.seconds

    def _gap(self, state: Any) -> int:
        """After how many steps the processes ask each other again, which makes each wait for its device."""
        assert self.plan
        step, at = self._asked
        soon = self.trainer.args.world_size == 1 or (self.plan.seconds is not None and self.plan.seconds <= LAG)
        done, took = state.global_step - step, time.monotonic() - at
        return 1 if soon else max(1, int(LAG * done / took)) if took > 0 else 1

    def _agreed(self, *flags: int) -> list[int]:
        """The largest of each flag in all processes, which all get."""
        if self.trainer.args.world_size == 1:
            return list(flags)
        both = torch.tensor([int(flag) for flag in flags], device=self.trainer.args.device)
        torch.distributed.all_reduce(both, op=torch.distributed.ReduceOp.MAX)
        return [int(flag) for flag in both.tolist()]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within, a signal ends training after the step that it comes in, which is saved; afterwards it is raised."""
        if self.plan is None:
            yield
            return
        with signals.deferred() as self.wanted:
            yield
        if self.stopped_by:
            state, saved = self.trainer.state, self.saved
            done = saved.step == state.global_step
            why = "is saved" if done else f"is not: {saved.problems[-1]}" if saved.problems else "is not saved"
            what = f"stopped after step {state.global_step} of {state.max_steps}, which {why}"
            raise signals.Interrupted(self.stopped_by, what, step=saved.step)

    # -- save -----------------------------------------------------------------------------------------------------------
    def save(self, write: Callable[[], None]) -> None:
        """Have transformers ``write`` its checkpoint, add the rest, and give it its name; a failure is told, not raised.

        One that was asked for without the optimizer's state is none to go on from: the run's own is saved, too.
        """
        self._save(write)
        if self._due_now and not self._own and self.trainer.args.save_only_model:
            self._own = True
            self._save(write)

    def _save(self, write: Callable[[], None]) -> None:
        args, step = self.trainer.args, self.trainer.state.global_step
        own = self._own and self.plan is not None
        folder = self.plan.folder if own and self.plan else Path(args.output_dir)
        place = folder / f"checkpoint-{step}"
        fresh = manifest.hidden(place)
        first = bool(args.should_save)

        def prepare() -> None:
            if first:
                shutil.rmtree(fresh, ignore_errors=True)
                fresh.mkdir(parents=True)

        def gather() -> None:
            if self.trainer.shards and not own:
                self.whole = self.trainer.gathered()

        def complete() -> None:
            if first:
                self._complete(fresh)
                manifest.seal(place)

        self.into = fresh
        asked, args.save_only_model = args.save_only_model, args.save_only_model and not own
        try:
            parts = (prepare, gather, write, *self._tensors(fresh), complete)
            problem = next(filter(None, map(self._problem, parts)), None)
        finally:
            self.into, self.whole, args.save_only_model = None, None, asked
            self._last = time.monotonic()
        if problem:
            self._tell(place, problem)
            if first:
                shutil.rmtree(fresh, ignore_errors=True)
            return
        self.saved.step = step
        if first:
            self._forget_older(folder, place, 1 if own else args.save_total_limit)

    def writes_weights(self) -> bool:
        """Whether the checkpoint that is being written has its weights from :meth:`_tensors` alone."""
        return self._own and self.plan is not None and not self.trainer.is_deepspeed_enabled

    def _problem(self, part: Callable[[], None]) -> str | None:
        """What went wrong in ``part`` of a save, here or in another process; every process waits for all."""
        said = None
        try:
            part()
        except Exception as error:  # a disk that is full is told as many things, by as many libraries
            lines = str(error).strip().splitlines() or [type(error).__name__]
            said = files.reason(error) if isinstance(error, OSError) else lines[0].rstrip(".")
        (failed,) = self._agreed(said is not None)
        if failed and self.trainer.args.world_size > 1:
            every: list[str | None] = [None] * self.trainer.args.world_size
            torch.distributed.all_gather_object(every, said)
            said = next(filter(None, every))
        return said

    def _tensors(self, fresh: Path) -> Iterator[Callable[[], None]]:
        """The parts of a save that write what is ours of weights and, in shards, of the optimizer's state; the same in all
        processes.
        """
        trainer = self.trainer
        main, shards, good = trainer.args.should_save, trainer.shards, trainer.health.good
        if trainer.is_deepspeed_enabled:
            return

        def put(name: str, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
            if main:
                pieces.write(fresh, name, tensors)
            elif shards:
                pieces.gather(tensors)

        def weights() -> None:
            inner = fresh / f"checkpoint-{trainer.state.global_step}"
            if shards or (main and (self.writes_weights() or not trained.covers(inner, trainer.model))):
                put(trained.NAME, trained.weights_of(trainer.model).items())

        def put_copy(name: str, copy: finite.Copy) -> None:
            put(name, finite.named(trainer.model, copy))

        copies = {
            GOOD: good,
            GUARDED: trainer.guard.weights() if trainer.guard else None,
            BEFORE: trainer.level.weights() if trainer.level else None,
        }

        def optimizer() -> None:
            put(moments.NAME, moments.tensors(trainer.optimizer))
            if main:
                moments.write_groups(fresh, trainer.optimizer)

        yield weights
        yield from (partial(put_copy, name, copy) for name, copy in copies.items() if copy is not None)
        if shards and not trainer.args.save_only_model:
            yield optimizer

    def _complete(self, fresh: Path) -> None:
        """Move what transformers wrote up to ``fresh``, and write beside it what is ours."""
        trainer = self.trainer
        inner = fresh / f"checkpoint-{trainer.state.global_step}"
        for entry in list(inner.iterdir()):
            entry.rename(fresh / entry.name)
        inner.rmdir()
        if held := trainer.combine.state_dict():
            files.write_json(fresh / checkpoints.COMBINER_FILE, held)
        said = {"schema": 1, "training": self._state(), "run": dict(self.plan.facts()) if self.plan else {}}
        files.write_json(fresh / checkpoints.STATE_FILE, said, mode=files.PRIVATE)

    def _state(self) -> dict[str, Any]:
        trainer = self.trainer
        broken, good = trainer.health.diverged, trainer.health.good
        return {
            "ended": bool(trainer.control.should_training_stop) and trainer.state.global_step < trainer.state.max_steps,
            "forget_loss": trainer.stop.found if trainer.stop else None,
            "loss": float(trainer._tr_loss),
            "total_loss": float(trainer._total_loss_scalar),
            "last_logged": trainer._globalstep_last_logged,
            "micro_batch": trainer.fit.state(),
            "utility": trainer.guard.state() if trainer.guard else None,
            "level": trainer.level.state() if trainer.level else None,
            "still": trainer.health.still,
            "moved": trainer.health.moved,
            "diverged": vars(broken) if broken else None,
            "good_step": good.step if good else None,
        }

    def _restore(self, place: Path, state: Any) -> None:
        """Give the trainer what :meth:`_state` said, and the combiner the log it has seen."""
        trainer = self.trainer
        self.saved.step = state.global_step
        for row in state.log_history:
            if "loss" in row:
                trainer._watch({k: v for k, v in row.items() if isinstance(v, int | float)})
        held = checkpoints.state_of(place).get("training")
        if not held:
            return
        self._ended = held["ended"]
        if trainer.stop:
            trainer.stop.found = held["forget_loss"]
        trainer._tr_loss += held["loss"] or 0.0
        trainer._total_loss_scalar = held["total_loss"] or 0.0
        trainer._globalstep_last_logged = held["last_logged"]
        trainer.fit.take(held.get("micro_batch"))
        trainer.health.still, trainer.health.moved = held.get("still", 0), held.get("moved", True)
        if trainer.guard and held.get("utility"):
            step = held["utility"]["good"]
            kept = finite.read(trainer.model, step, place, GUARDED) if pieces.exists(place, GUARDED) else None
            trainer.guard.take(held["utility"], kept)
        if trainer.level and (level := held.get("level")):
            before = level["before"]
            copy = finite.read(trainer.model, before, place, BEFORE) if pieces.exists(place, BEFORE) else None
            trainer.level.take(level, copy)
        if held["diverged"]:
            trainer.health.diverged = finite.Divergence(**held["diverged"])
        if held["good_step"] is not None and pieces.exists(place, GOOD):
            trainer.health.good = finite.read(trainer.model, held["good_step"], place, GOOD)

    def _forget_older(self, folder: Path, newest: Path, keep: int | None) -> None:
        """Remove all but ``keep`` of the checkpoints in ``folder``, now that the newest is on the disk."""
        if keep:
            with suppress(OSError):
                others = [p for p in manifest.numbered(folder) if p != newest]
                for place in sorted(others, key=lambda p: p.stat().st_mtime, reverse=True)[keep - 1 :]:
                    manifest.remove(place)

    def _tell(self, place: Path, why: str) -> None:
        sentence = f"the checkpoint {place} could not be written ({why})"
        if self.trainer.args.should_save:
            print(f"\nexpunge: {sentence}; training goes on", file=sys.stderr)
        self.saved.problems.append(sentence)
