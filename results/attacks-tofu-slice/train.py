"""The methods of this comparison, one budget: a run each, one after another; those that are finished are left alone.

python train.py TARGET ROWS OUT [METHOD…]
"""

import gc
import sys
import time
from pathlib import Path
from typing import Any

from expunge.unlearning import run, settings

BUDGET: dict[str, Any] = {
    "adapter": "lora",
    "lora": {"r": 16, "alpha": 32},
    "training": {
        "max_steps": 32,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.1,
    },
    "eval_rows": 1,
    "fluency_rows": 0,
    "seed": 0,
}
METHODS: dict[str, dict[str, Any]] = {
    "pdu": {},
    "npo": {},
    "wga": {},
    "blur_margin": {},
    "rmu": {
        "steering_coefficient": 480,
        "retain_weight": 10,
    },  # an activation of this model is about 120 long at layer 7
    "idk_dpo": {},
    "undial": {"retain": "nll"},
    "blur_npo": {},
    "pdu_level": {},
}


def main(target: str, rows: Path, out: Path, methods: list[str]) -> None:
    """Train ``methods``, all of them without one."""
    measured: dict[str, dict[str, Any]] = {}  # so that the target is measured once
    for method in methods or METHODS:
        folder = out / method
        if (folder / "run.json").exists():
            continue
        began, cpu = time.time(), time.process_time()
        given = {
            **BUDGET,
            "model": target,
            "forget": str(rows / "forget.jsonl"),
            "retain": str(rows / "retain.jsonl"),
            "method": method,
            "parameters": METHODS[method],
            "out": str(folder),
            "overwrite": True,
        }
        run.run(settings.make(given), measured=measured)
        gc.collect()
        wall, own = time.time() - began, time.process_time() - cpu
        print(f"{method}: {wall:.0f} s, {own:.0f} s of processor time", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
