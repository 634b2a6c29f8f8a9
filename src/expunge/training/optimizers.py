"""transformers' optimizers that hold their moments in 8 or 4 bits, or page them into main memory: what each of them needs.

The moments are those of the weights that train, so they matter for whole weights; of LoRA factors they are small anyway.
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import Any

from expunge.errors import InputError

TORCHAO = ("adamw_torch_4bit", "adamw_torch_8bit")
BITSANDBYTES = (
    "adamw_8bit",
    "ademamix",
    "ademamix_8bit",
    "lion_8bit",
    "lion_32bit",
)  # and any with bnb or paged_ in it
COMPILERS = ("c++", "g++", "clang++", "cl")


def is_of_bitsandbytes(optim: str) -> bool:
    """Whether transformers takes the optimizer that it calls ``optim`` from bitsandbytes.

    >>> [is_of_bitsandbytes(name) for name in ("paged_adamw_8bit", "rmsprop_bnb", "lion_32bit", "adamw_torch")]
    [True, True, True, False]
    """
    return optim in BITSANDBYTES or optim.startswith("paged_") or "bnb" in optim


def check_package(optim: str) -> None:
    """Raise InputError where the package of ``optim`` is not installed."""
    if is_of_bitsandbytes(optim) and find_spec("bitsandbytes") is None:
        raise InputError(f"optim={optim} needs the package bitsandbytes: pip install 'expunge[gpu]'")
    if optim in TORCHAO and find_spec("torchao") is None:
        raise InputError(f"optim={optim} needs the package torchao: pip install torchao")


def check_device(optim: str, args: Any) -> None:
    """Raise InputError where ``optim`` cannot step on the device, or the shards, of ``args``."""
    if not (is_of_bitsandbytes(optim) or optim in TORCHAO):
        return
    if is_of_bitsandbytes(optim) and args.fsdp:
        raise InputError(f"optim={optim} cannot step on weights in shards (fsdp); say adamw_torch, or adamw_torch_8bit")
    if args.device.type != "cpu":
        return
    if optim.startswith("paged_"):
        bits8 = optim.endswith("8bit")
        raise InputError(
            f"optim={optim} pages between a GPU and main memory, and training is on a CPU; say "
            f"{'adamw_bnb_8bit' if bits8 else 'adamw_torch'}"
        )
    if optim in TORCHAO and not any(map(shutil.which, (os.environ.get("CXX") or "", *COMPILERS))):
        raise InputError(
            f"optim={optim} compiles its step, and no C++ compiler is installed; install g++, or say adamw_torch"
        )


def check_step(optim: str, optimizer: Any, settings: Any) -> None:
    """Raise InputError where bitsandbytes' ``optimizer`` (a class, made with ``settings``) has no step for a CPU."""
    import torch

    if not is_of_bitsandbytes(optim):
        return
    weights = torch.nn.Parameter(torch.zeros(4096))  # smaller ones have moments in 32 bits
    weights.grad = torch.ones(4096)
    try:
        optimizer([weights], **settings).step()
    except Exception as error:
        raise InputError(
            f"optim={optim}: this bitsandbytes has no step for a CPU ({type(error).__name__}); install a newer one (pip "
            "install -U bitsandbytes), or say adamw_torch"
        ) from error
