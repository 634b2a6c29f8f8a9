"""A run that is killed and goes on, against one that was never interrupted, all on the device.

    python -m perf.gpu.resume FOLDER METHOD DEVICE    # the victim: it kills itself in its third step

The victim is a process of its own, ended by SIGKILL after the checkpoint of step 2; then the same run is started
again from that checkpoint.  On the CPU the two models are equal bit for bit; on CUDA sums may be made in another
order: ``‖Δ‖ ≤ 0.001`` of the movement.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

ROOT = Path(__file__).parents[2]
METHODS = ("pdu",)  # it has a state of its own, the multiplier
STEPS, KILLED, CLOSE = 4, 3, 1e-3


class Killed(TrainerCallback):
    """Ends the process at the end of step 3 as a power cut does."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)


def unlearned(here: Path, out: Path, method: str, device: torch.device, *callbacks: Any, **more: Any) -> Any:
    """The run: four steps with a checkpoint after two."""
    from expunge import unlearn

    settings = {
        "max_steps": STEPS, "save_steps": 2, "learning_rate": 0.01, "lr_scheduler_type": "constant", "disable_tqdm": True,
        "use_cpu": device.type == "cpu", "bf16": False, "device": device.type, "per_device_train_batch_size": 2,
    }  # fmt: skip
    data = {"forget": here / "forget.jsonl", "retain": here / "retain.jsonl"}
    return unlearn(here / "model", **data, method=method, out=out, callbacks=callbacks, **settings, **more)


def rows(device: torch.device, folder: Path) -> Iterator[Any]:
    """``resume/METHOD``."""
    from perf.gpu.rows import Row

    for method in METHODS:
        yield Row(f"resume/{method}", partial(compared, method, device, folder))


def compared(method: str, device: torch.device, folder: Path) -> dict[str, float]:
    """How far the resumed model is from the uninterrupted one; Differs where that is too far."""
    from expunge.models import load
    from perf.gpu import place
    from perf.gpu.contract import values
    from perf.gpu.rows import Differs

    here, out = place.made(folder / "place"), folder / f"{method}-cut"
    killed(out, method, device, folder)
    with place.own_cache(folder / "cache-there"):
        start = values(load(here / "model").model)
        never = values(unlearned(here, folder / f"{method}-whole", method, device).model)
        again = values(unlearned(here, out, method, device, resume_from_checkpoint=True).model)
    moved = float((never - start).norm())
    found = {"relative": float((again - never).norm()) / moved, "moved": moved}
    if not (moved > 1e-3 and found["relative"] <= (CLOSE if device.type == "cuda" else 0)):
        raise Differs(f"the resumed run is {found['relative']:.1e} of its movement from the uninterrupted one", found)
    return found


def killed(out: Path, method: str, device: torch.device, folder: Path) -> None:
    """Run the victim in ``out``; raises where it was not killed after a checkpoint."""
    paths = [ROOT / "src", ROOT, ROOT / "tests"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*map(str, paths), os.environ.get("PYTHONPATH", "")]),
        "EXPUNGE_CACHE": str(folder / "cache-victim"),
    }
    victim = [sys.executable, "-m", "perf.gpu.resume", str(out), method, device.type]
    done = subprocess.run(victim, env=environment, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)
    if done.returncode != -signal.SIGKILL:
        raise RuntimeError(f"the victim ended with {done.returncode}: {done.stderr[-300:]}")
    if not (out / "checkpoints" / "checkpoint-2" / "trainer_state.json").exists():
        raise RuntimeError(f"the victim left no checkpoint of step 2 in {out}")


def main() -> None:
    """The victim."""
    out, method, device = sys.argv[1:]
    unlearned(Path(out).parent / "place", Path(out), method, torch.device(device), Killed())


if __name__ == "__main__":
    main()
