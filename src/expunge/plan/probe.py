"""A few real steps of a run: seconds a step, and the peak of memory."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from expunge import processes
from expunge.errors import InputError
from expunge.plan import peak
from expunge.unlearning import train
from expunge.unlearning.ready import ready
from expunge.unlearning.settings import Recipe

WARM, TIMED = 1, 3  # steps


class Clock(TrainerCallback):
    """Times the steps after the first, and ends the training."""

    def __init__(self, device: Any) -> None:
        self.device, self.began, self.seconds = device, 0.0, 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After the first step the clock starts; after the last it stops."""
        self._wait()
        if state.global_step == WARM:
            self.began = time.perf_counter()
        elif state.global_step >= WARM + TIMED or state.global_step == state.max_steps:
            self.seconds = (time.perf_counter() - self.began) / (state.global_step - WARM)
            control.should_training_stop = True

    def _wait(self) -> None:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def probe(settings: Recipe) -> dict[str, float]:
    """``{"seconds_a_step", "peak"}`` of the first steps of ``settings`` in this process; writes nothing that stays.

    Raises InputError for several processes, and as a run does.
    """
    import torch

    from expunge import models

    if (settings.processes or 1) > 1 or processes.count() > 1:
        raise InputError("--probe takes its steps in one process; leave --processes out, or leave --probe out")
    with tempfile.TemporaryDirectory() as folder:
        training = {**settings.training, "max_steps": WARM + TIMED, "disable_tqdm": True}
        training.pop("num_train_epochs", None)
        few = settings.model_copy(update={"out": str(Path(folder) / "probe"), "save_every": None, "training": training})
        method, data, args = ready(few)
        before = 0 if args.device.type == "cuda" else peak.now()
        peak.reset_peak(args.device)
        loaded = models.load(
            few.model,
            dtype=getattr(torch, few.loaded),
            device=train.device_of(few, args),
            trust_remote_code=few.trust_remote_code,
            attn=few.attn,
            **({"quantize": kind} if (kind := getattr(few, "quantize", None)) else {}),
        )
        method = train.fit(method, loaded.model, loaded.tokenizer, data)
        train.check_fit(loaded.model, few, method)
        clock = Clock(args.device)
        net = train.prepare(loaded.model, few, method)
        train.train(net, loaded.tokenizer, data, method, args, callbacks=[clock])
        return {"seconds_a_step": clock.seconds, "peak": float(peak.peak(args.device) - before)}
