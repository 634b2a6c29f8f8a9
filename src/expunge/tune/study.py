"""The trials of a method as an Optuna study in one SQLite file: the only place that imports Optuna.

What a trial tries is drawn by TPE (Bergstra et al. 2011, Watanabe 2023, arXiv:2304.11127) from the trials before it; those
that still run count as bad ones, so that several at once lie apart.  The generator of trial n is seeded by the seed, the
method and n: a tuning that goes on draws what it would have drawn.  The file holds parameters, figures and sentences, no
data.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from expunge.errors import InputError
from expunge.tune.space import Choices, Range, Space, clipped

FILE = "study.db"
TIMEOUT = 60  # seconds that a process waits for another's write
STARTUP = 5  # random trials before TPE draws, and trials that a median is of before it prunes
FACTS = "facts"  # the user attribute that holds the result of a trial


def forget_opened() -> None:
    """Close the files that are open in this process: one of them goes."""
    _storage.cache_clear()


def check_installed() -> None:
    """Raise InputError where Optuna is missing."""
    if missing := [name for name in ("optuna", "sqlalchemy") if find_spec(name) is None]:
        raise InputError(f"`expunge tune` needs {' and '.join(missing)}: pip install 'expunge[tune]'")


@dataclass(frozen=True)
class Suggestion:
    """A trial that is to be carried out: its number in its method's study, and the values to try."""

    label: str
    number: int
    choice: Mapping[str, Any]


class Study:
    """The study of one method in the file ``file``, made if it is not there."""

    def __init__(self, file: Path, label: str, space: Space | None = None, *, seed: int = 0, prune: bool = False):
        self.label, self.seed = label, seed
        self.distributions = {key: _distribution(it) for key, it in (space or {}).items()}
        self.space = space or {}
        with _quiet() as optuna:
            never = optuna.pruners.NopPruner()
            pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP) if prune else never
            self.study = optuna.create_study(
                storage=_storage(str(file.absolute()), os.getpid()),
                study_name=label,
                direction="maximize",
                load_if_exists=True,
                sampler=optuna.samplers.RandomSampler(),
                pruner=pruner,
            )

    # -- trials to come -----------------------------------------------------------------------------------------------------
    def first(self, values: Mapping[str, Any]) -> None:
        """Have the first trial try ``values``, as far as they are searched and in their range."""
        near = {k: clipped(values[k], it) for k, it in self.space.items() if values.get(k) is not None}
        if not self.study.get_trials(deepcopy=False):
            with _quiet():
                self.study.enqueue_trial({k: v for k, v in near.items() if v is not None})

    def interrupted(self) -> list[Suggestion]:
        """The trials that were begun and are not finished."""
        from optuna.trial import TrialState

        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [Suggestion(self.label, t.number, dict(t.params)) for t in running]

    def begun(self) -> int:
        """How many trials were begun."""
        from optuna.trial import TrialState

        return sum(t.state != TrialState.WAITING for t in self.study.get_trials(deepcopy=False))

    def ask(self) -> Suggestion:
        """The next trial."""
        with _quiet() as optuna:
            number = self.begun()
            digest = hashlib.sha256(f"{self.seed} {self.label} {number}".encode()).digest()
            self.study.sampler = optuna.samplers.TPESampler(
                seed=int.from_bytes(digest[:4]), n_startup_trials=STARTUP, multivariate=True, constant_liar=True
            )
            trial = self.study.ask(self.distributions)
        return Suggestion(self.label, trial.number, dict(trial.params))

    # -- results ------------------------------------------------------------------------------------------------------------
    def tell(self, number: int, state: str, value: float | None, facts: Mapping[str, Any]) -> None:
        """Trial ``number`` is ``finished`` or ``failed`` with ``value``, or ``pruned``; ``facts`` (JSON) say more.

        TPE does not learn from a failure without a value.
        """
        from optuna.trial import TrialState

        with _quiet():
            self.trial(number).set_user_attr(FACTS, dict(facts))
            if state == "pruned":
                self.study.tell(number, state=TrialState.PRUNED)
            elif value is None:
                self.study.tell(number, state=TrialState.FAIL)
            else:
                self.study.tell(number, value)

    def trial(self, number: int) -> Any:
        """Optuna's handle of the trial ``number``."""
        import optuna

        storage = self.study._storage
        study = storage.get_study_id_from_name(self.label)
        return optuna.trial.Trial(self.study, storage.get_trial_id_from_study_id_trial_number(study, number))

    def results(self) -> dict[int, dict[str, Any]]:
        """Number -> choice, intermediate values and facts of every trial that ended."""
        return {
            t.number: {
                "choice": dict(t.params),
                "intermediate": [{"step": k, "value": v} for k, v in sorted(t.intermediate_values.items())],
                **t.user_attrs[FACTS],
            }
            for t in self.study.get_trials(deepcopy=False)
            if t.state.is_finished() and FACTS in t.user_attrs
        }

    # -- while one runs -----------------------------------------------------------------------------------------------------
    def report(self, number: int, step: int, value: float) -> bool:
        """Note the intermediate ``value`` of a trial; whether it should end there."""
        with _quiet():
            trial = self.trial(number)
            trial.report(value, step)
            return bool(trial.should_prune())


def _distribution(it: Range | Choices) -> Any:
    import optuna.distributions as of

    if isinstance(it, Choices):
        return of.CategoricalDistribution(it.values)
    if it.whole:
        return of.IntDistribution(int(it.low), int(it.high), log=it.log)
    return of.FloatDistribution(float(it.low), float(it.high), log=it.log)


@functools.lru_cache(maxsize=4)
def _storage(file: str, process: int) -> Any:
    """The SQLite file, opened once in each process; another process's write is waited for."""
    import optuna

    return optuna.storages.RDBStorage(f"sqlite:///{file}", engine_kwargs={"connect_args": {"timeout": TIMEOUT}})


@contextlib.contextmanager
def _quiet() -> Iterator[Any]:
    """Optuna without its lines for each trial and its notes on what is experimental in older versions."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message="The reported value is ignored because this `step`")  # after a kill
        yield optuna
