r"""One step's modules: a retain LoRA, a forget LoRA orthogonal to it, and the update from both.

.. math:: (A_r, B_r) = \arg\min L(D_r;\, W_t + s B_r A_r), \qquad
          (A_f, B_f) = \arg\min L(D_f;\, W_t + s B_f A_f) + \lambda \sum_{\text{layers}} \sum_{jk} |(A_r A_f^\top)_{jk}|

with :math:`A_r` frozen in the second.  Both *lower* their loss: forgetting is the minus sign of
:math:`W_{t+1} = W_t - \eta_f\, s B_f A_f + \eta_r\, s B_r A_r`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from expunge import losses, models
from expunge.combine import WeightedSum
from expunge.data.example import Example
from expunge.method import Method, Objective
from expunge.models.lora import Adapter, concatenate, orthogonality, scaled
from expunge.release.settings import Release
from expunge.training import arguments as training
from expunge.unlearning import describe as about_run
from expunge.unlearning.resumable import train_resumable
from expunge.unlearning.rows import Data

# Ours: a module takes about training.MIN_STEPS optimizer steps, sees a row at least twice and at most training.EPOCHS times,
# unless that would be under LEAST steps (twelve teach it little); 2e-4, 20 times full fine-tuning's, is LoRA's rate.
EPOCHS, LEAST = 2, 16
Role = Literal["retain", "forget"]
Pairs = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Module:
    """A trained module: its factors, the penalty at the end, the log, the number of optimizer steps, and warnings."""

    adapter: Adapter
    penalty: float
    log: list[dict[str, Any]]
    steps: int
    warnings: list[str]
    broken: str | None = None  # what was not finite, where its training broke down
    seconds: float = 0.0  # of earlier parts, where its training went on from a checkpoint


def method(pairs: Pairs = (), weight: float = 0.0) -> Method:
    """Plain training on the stream "forget", and ``weight`` times the penalty of ``pairs`` where there is one."""
    objectives = {"forget": Objective(losses.nll, on=("forget",))}
    if pairs and weight:
        objectives["orthogonality"] = Objective(partial(orthogonality, pairs), on=())
    return Method(objectives, WeightedSum(1.0, weight), learning_rate=1e-5, name="release")


def arguments(settings: Release, role: Role, index: int, rows: int, folder: Path) -> Any:
    """The ``TrainingArguments`` of one module, by default sized to its rows: 50 optimizer steps in 2 to 10 epochs, at 2e-4.

    >>> epochs(5000, 32), epochs(64, 8), epochs(16, 8), epochs(3, 3)
    (2, 7, 10, 16)

    Each module has a seed of its own, a function of the run's seed, the step's ``index`` and the role.
    """
    suited = training.defaults(method(), rows, lora=True)
    window = suited["per_device_train_batch_size"] * suited["gradient_accumulation_steps"]
    suited["num_train_epochs"] = float(epochs(rows, window))
    seed = zlib.crc32(f"{settings.run.seed} {index} {role}".encode())
    return training.arguments(settings.run.training, suited, folder / f"{index:02d}-{role}", seed, settings.run.device)


def epochs(rows: int, window: int) -> int:
    """How often a module sees its rows, where an optimizer step has ``window`` of them."""
    per_epoch = math.ceil(rows / window)
    wanted, most = math.ceil(training.MIN_STEPS / per_epoch), max(training.EPOCHS, math.ceil(LEAST / per_epoch))
    return max(EPOCHS, min(wanted, most))


def number(settings: Release, role: Role, index: int, *, both: bool) -> str:
    """What the progress of a module's training says; ``both``: whether a step has a retain module too.

    >>> number(Release(run={"model": "m", "forget": []}), "forget", 2, both=True)
    'module 4 of 10'
    """
    each = 1 + both
    return f"module {each * index - (both and role == 'retain')} of {each * settings.steps}"


def update(
    net: Any,
    tokenizer: Any,
    examples: Mapping[str, Sequence[Example]],
    settings: Release,
    index: int,
    folder: Path,
    key: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Adapter, dict[Role, Module]]:
    """Step ``index`` from the current weights of ``net``: its update, and the trained modules.

    ``net`` is not changed.  ``examples``: the streams "forget" and, for a retain module, "retain".  ``key``: what decides
    the steps; a training in ``folder`` that was interrupted and has the same one is gone on with.
    """
    trained: dict[Role, Module] = {}
    frozen = None
    both = bool("retain" in examples and settings.retain_coefficient)
    named = partial(number, settings, index=index, both=both)
    if both:
        args = arguments(settings, "retain", index, len(examples["retain"]), folder)
        what = named(role="retain")
        trained["retain"] = train(net, tokenizer, examples["retain"], settings, args, key=key, progress=what)
        frozen = trained["retain"].adapter
    args = arguments(settings, "forget", index, len(examples["forget"]), folder)
    what = named(role="forget")
    trained["forget"] = train(net, tokenizer, examples["forget"], settings, args, frozen, key=key, progress=what)
    change = scaled(trained["forget"].adapter, -settings.forget_coefficient)
    return concatenate(change, scaled(frozen, settings.retain_coefficient)) if frozen else change, trained


def train(
    net: Any,
    tokenizer: Any,
    rows: Sequence[Example],
    settings: Release,
    args: Any,
    frozen: Adapter | None = None,
    *,
    key: Mapping[str, Any] = MappingProxyType({}),
    progress: str = "unlearning",
) -> Module:
    """A new module trained on ``rows``, orthogonal to ``frozen`` if that is given; ``net`` is not changed.

    ``key``: see :func:`update`.
    """
    wrapped: Any = models.attach_lora(
        net, **models.without_experts(net, settings.run.lora.model_dump()), seed=args.seed
    ).to(args.device)
    pairs = input_factors(wrapped, frozen) if frozen else []
    ended = train_resumable(
        wrapped,
        tokenizer,
        Data({}, {"forget": list(rows)}, []),
        method(pairs, settings.orthogonality),
        args,
        folder=Path(args.output_dir),
        settings=settings.run,
        decides=key,
        fingerprint=str(key.get("model")),
        progress=progress,
    )
    trainer = ended.trainer
    with torch.no_grad():
        penalty = float(orthogonality(pairs))
    _, adapter = models.detach_lora(wrapped)
    net.eval()
    log = about_run.steps(trainer.state.log_history)
    diverged = trainer.health.diverged
    broken = diverged.sentence if diverged else None
    warnings = [*trainer.warnings, *([ended.problem] if ended.problem else [])]
    return Module(adapter, penalty, log, trainer.state.global_step, warnings, broken, ended.seconds)


def input_factors(wrapped: nn.Module, frozen: Adapter) -> Pairs:
    """Of each layer that both adapt: the A of ``frozen``, and the parameter A of ``wrapped``'s own adapter."""
    pairs = []
    for name, parameter in wrapped.named_parameters():
        stored = name.replace(".default.weight", ".weight")
        if ".lora_A." in name and stored in frozen.state:
            pairs.append((frozen.state[stored].to(parameter.device), parameter))
    return pairs
