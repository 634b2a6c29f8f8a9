"""What makes tiny models quick, in every process of the tests: imported for what it does."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import sqlite3
import stat
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # a thread for each weight takes longer than a tiny weight

import accelerate.utils.imports
import accelerate.utils.memory
import torch
import typer.testing
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

torch.set_num_threads(1)  # tiny models drown in thread hand-over
# Every forward pass asks whether DeepSpeed is installed, and the answer is searched for on the disk.
accelerate.utils.imports._is_package_available = functools.cache(accelerate.utils.imports._is_package_available)

# Every end of a training run walks all objects of the session, most of which live to its end.
accelerate.utils.memory.gc = SimpleNamespace(collect=int)
# So does every run that frees its memory: here what is young is walked, and the rest when the collector itself finds it due.
_collect = gc.collect
gc.collect = lambda generation=2: _collect(min(generation, 1))  # type: ignore[assignment]

# Every command line that a test types begins with the table of all commands.
typer.testing._get_command = functools.cache(typer.testing._get_command)


# Every layer reads dozens of settings, each by a search for its other names, of which a Llama has none.
if not LlamaConfig.attribute_map:
    LlamaConfig.__getattribute__ = object.__getattribute__

# The disk takes 4 to 12 ms to hold a file, for thousands of files of which no test asks for more than that it was called.
_fsync = os.fsync


def _flushed(file: Any) -> None:
    """As ``os.fsync``, but what is on a disk may stay in memory."""
    mode = os.fstat(file if isinstance(file, int) else file.fileno()).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        _fsync(file)


os.fsync = _flushed  # type: ignore[assignment]

_connect = sqlite3.dbapi2.connect


def _connected(*args: Any, **kwargs: Any) -> sqlite3.Connection:
    """A study's file waits for the disk at every step of a trial."""
    connection = _connect(*args, **kwargs)
    with contextlib.suppress(sqlite3.DatabaseError):  # it is no study
        connection.execute("PRAGMA synchronous = OFF")
    return connection


sqlite3.dbapi2.connect = _connected

# A seed for a device that is not there waits for it with a whole traceback.
for _device in (torch.cuda, torch.xpu):
    if not _device.is_available():
        _device.manual_seed_all = lambda seed: None


def _if_stored(fill: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A weight without storage has no values; torch finds that out slowly."""

    @functools.wraps(fill)
    def filled(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return tensor if tensor.is_meta else fill(tensor, *args, **kwargs)

    return filled


for _name in ("normal_", "uniform_", "kaiming_uniform_"):
    setattr(torch.nn.init, _name, _if_stored(getattr(torch.nn.init, _name)))


def of_a_llama(decide: Callable[..., bool]) -> Callable[..., bool]:
    """``decide``, a comparison of two ways of running its first argument, until a Llama of that kind has passed: weights do
    not matter to it.  A model with a forward pass of its own is compared itself."""
    passed = set()

    @functools.wraps(decide)
    def decided(model: Any, *given: Any) -> bool:
        adapters = getattr(model, "peft_config", {})
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        if type(base) is not LlamaForCausalLM or "forward" in vars(model) or "forward" in vars(base):
            return decide(model, *given)
        settings = base.config
        kind = (
            *(type(model).forward, LlamaForCausalLM.forward, LlamaModel.forward, base.dtype),
            *(settings.num_hidden_layers, settings.hidden_size, settings._attn_implementation),
            *(base.is_gradient_checkpointing, *(a.peft_type for a in adapters.values())),
        )
        if kind not in passed and decide(model, *given):
            passed.add(kind)
        return kind in passed

    return decided
