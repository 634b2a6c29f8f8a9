"""The target and the retrained model of the rows: LoRA adapters of one base, taught all people, or those to keep.

python teach.py DATA OUT [--base MODEL] [--epochs N]
"""

import argparse
from pathlib import Path

from expunge.bench.teach import teach
from expunge.data.sources import load_rows
from expunge.unlearning import settings

TRAINING = {"learning_rate": 1e-3, "per_device_train_batch_size": 8, "lr_scheduler_type": "linear", "warmup_steps": 10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--epochs", type=float, default=12.0)
    asked = parser.parse_args()
    kept, forgotten = (load_rows(str(asked.data / f"{name}.json")) for name in ("retain99", "forget01"))
    how = {
        "model": asked.base,
        "forget": "unused",
        "method": "gradient_ascent",
        "adapter": "lora",
        "chat_template": False,
    }
    how |= {"lora": {"r": 16, "alpha": 32}, "training": TRAINING | {"num_train_epochs": asked.epochs}}
    for name, rows in (("target", [*forgotten, *kept]), ("retrained", kept)):
        folder = asked.out / name
        teach(rows, settings.make({**how, "out": str(folder)}), folder)


if __name__ == "__main__":
    main()
