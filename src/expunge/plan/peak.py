"""Peak memory: of the card on CUDA, of this process's resident memory elsewhere (Linux)."""

from __future__ import annotations

from pathlib import Path

import torch


def reset_peak(device: torch.device | str = "cpu") -> None:
    """Forget the peak so far."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: torch.device | str = "cpu") -> int:
    """Bytes: the most since :func:`reset_peak`, allocated tensors on CUDA."""
    return torch.cuda.max_memory_allocated(device) if torch.device(device).type == "cuda" else _status("VmHWM")


def now(device: torch.device | str = "cpu") -> int:
    """Bytes in use."""
    return torch.cuda.memory_allocated(device) if torch.device(device).type == "cuda" else _status("VmRSS")


def _status(key: str) -> int:
    """Bytes of a line of /proc/self/status."""
    line = next(v for v in Path("/proc/self/status").read_text().splitlines() if v.startswith(key))
    return int(line.split()[1]) * 1024
