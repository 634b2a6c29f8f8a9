"""Save what a run trained, somewhere else if it must be, and load the files again: they must give the same numbers."""

from __future__ import annotations

import math
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expunge import outputs
from expunge.errors import InputError, RunFailed
from expunge.files import reason
from expunge.outputs import Layout
from expunge.unlearning.measure import measure
from expunge.unlearning.rows import Data
from expunge.unlearning.settings import Recipe

ROWS = 2  # of each set
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.02}  # times 1 + the loss


# -- saving ---------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Stored:
    """The ``folder`` that record and report belong to, and the weights in it; ``problem``: why it is another one."""

    folder: Path
    path: Path
    problem: str | None = None


def store(write: Callable[[Path], Path], folder: Path, layout: Layout | None, name: str = "model") -> Stored:
    """``write`` the weights to ``folder/name``, or where that fails to the first of several other folders that takes them.

    An earlier record of ``layout`` in ``folder`` is set aside when the weights beside it are replaced.  Raises RunFailed
    where no place takes them.
    """
    try:
        if layout:
            outputs.retire(folder, layout)
        return Stored(folder, write(folder / name))
    except Exception as error:
        if layout:
            outputs.reinstate(folder, layout)
        first = error
    for place in _other_folders(folder):
        try:
            path = write(place / name)
        except Exception:
            shutil.rmtree(place, ignore_errors=True)
            continue
        return Stored(place, path, f"{folder / name} cannot be written ({_said(first)}); the weights are in {path}")
    raise RunFailed(f"{folder / name} cannot be written ({_said(first)}), nor can any other folder") from first


def _other_folders(folder: Path) -> Iterator[Path]:
    """New folders that may take what ``folder`` does not: beside it, for temporary files, at home."""
    name = f"expunge-rescued-{uuid.uuid4().hex[:6]}"
    parents: tuple[Callable[[], Path], ...] = (
        lambda: folder.absolute().parent,
        lambda: Path(tempfile.gettempdir()),
        Path.home,
    )
    for parent in parents:
        try:
            place = parent() / name
            place.mkdir(mode=0o700)
        except (OSError, RuntimeError):  # there may be no folder for temporary files, and no home
            continue
        yield place


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return reason(error)
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


# -- loading again --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Reloaded:
    """The saved files loaded again: the ``model`` (None where there was no room for it) and its fingerprint.

    ``losses``: set -> the loss of a few rows in memory and from the files; ``problem``: what is wrong with the files.
    """

    fingerprint: str | None = None
    model: Any = None
    tokenizer: Any = None
    losses: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    problem: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def described(self) -> dict[str, Any] | None:
        """What the record says of the comparison."""
        if not self.losses:
            return None
        pairs = {name: {"in_memory": a, "reloaded": b} for name, (a, b) in self.losses.items()}
        return {"rows": ROWS, "nll": pairs}


def reload(
    path: Path, net: Any, tokenizer: Any, data: Data, settings: Recipe, *, compare: bool = True, compute: Any = None
) -> Reloaded:
    """Load the weights at ``path`` again, in the same number format, and ``compare`` a few rows with ``net``'s losses.
    ``compute``: what quantised layers compute in.

    One process does it alone.
    """
    import torch

    from expunge import models

    dtype = getattr(torch, settings.loaded)
    device, lacking = room(net, dtype)
    if device is None:
        return Reloaded(warnings=(f"the saved weights were not loaded again for a check: {lacking}",))
    try:
        again = models.load(
            path,
            dtype=dtype,
            device=device,
            trust_remote_code=settings.trust_remote_code,
            attn=settings.attn,
            quantize=settings.quantize,
            compute_dtype=compute,
        )
    except Exception as error:
        return Reloaded(problem=f"the saved weights in {path} cannot be loaded again: {_said(error)}")
    known = Reloaded(again.fingerprint, again.model, again.tokenizer)
    if not compare or (expected := _losses(net, tokenizer, data, settings)) is None:
        return known
    found = _losses(again.model, again.tokenizer, data, settings) or dict.fromkeys(expected, math.nan)
    pairs = {name: (value, found[name]) for name, value in expected.items()}
    said = f"the saved weights in {path} are not the trained ones: " + ", ".join(
        f"the {name} set's loss is {a:.4g} in memory and {b:.4g} from the files" for name, (a, b) in pairs.items()
    )
    return Reloaded(
        again.fingerprint,
        again.model,
        again.tokenizer,
        pairs,
        None if all(_equal(a, b, settings.dtype) for a, b in pairs.values()) else said,
    )


def _losses(net: Any, tokenizer: Any, data: Data, settings: Recipe) -> dict[str, float] | None:
    """Set -> the loss of its few rows; None for a model whose losses are no numbers."""
    few = settings.model_copy(
        update={
            "eval_rows": ROWS,
            "examples": 0,
            "fluency_rows": 0,
            "training": {**settings.training, "disable_tqdm": True},
        }
    )
    try:
        return {
            name: figures["nll"] for name, figures in measure(net, tokenizer, data, few, alone=True)["figures"].items()
        }
    except InputError:
        return None


def _equal(a: float, b: float, dtype: str) -> bool:
    return abs(a - b) <= TOLERANCE[dtype] * (1 + abs(a))


def room(net: Any, dtype: Any) -> tuple[Any, str]:
    """The device with room for a second copy of ``net``: its own, else the CPU, else None, with the reason."""
    import psutil
    import torch

    needed = sum(p.numel() * (dtype.itemsize if p.is_floating_point() else p.element_size()) for p in net.parameters())
    own = next(net.parameters()).device
    if own.type == "cuda":
        torch.cuda.empty_cache()
        if torch.cuda.mem_get_info(own)[0] > 1.2 * needed:
            return own, ""
    elif own.type != "cpu":
        return own, ""
    free = psutil.virtual_memory().available
    if free > 1.2 * needed:
        return torch.device("cpu"), ""
    return None, f"that takes {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free"
