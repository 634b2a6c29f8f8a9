r"""Teach a small model the invented people of the demo: how `src/expunge/demo/adapters` were made.

    python scripts/teach_demo.py                # both adapters, into src/expunge/demo/adapters

``target`` learns the forget and the retain rows, ``retrained`` the retain rows only: it is what exact
unlearning would give.  Both are LoRA adapters on the same base; loss on the answer and its end token, AdamW
with linear decay.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from expunge.data.chat import encode, question
from expunge.data.collate import collate
from expunge.data.example import Row
from expunge.data.sources import load_rows
from expunge.evaluation.collect.one_pass import collect
from expunge.evaluation.figures import figures, probes
from expunge.forward.view import see
from expunge.models import load

DEMO = Path(__file__).parent.parent / "src" / "expunge" / "demo"
BASE = "smollm2-135m"  # the installed weights first, so the adapters sit on what they were taught on
WARMUP = 10
SAMPLES = 6


def teach(model, tokenizer, rows: list[Row], *, steps: int, lr: float, batch: int, seed: int) -> None:
    """Train what requires a gradient in ``model`` on ``rows``, in place, for ``steps`` steps."""
    rng = random.Random(seed)
    coded = [encode(row, tokenizer) for row in rows]
    flat = [{"input_ids": e.input_ids, "labels": e.labels, "index": i} for i, e in enumerate(coded)]
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARMUP) * (1 - step / steps)
    )
    start = time.time()
    model.train()
    for step in range(steps):
        i = step * batch % (len(flat) // batch * batch)  # a remainder waits for the next epoch
        if i == 0:
            rng.shuffle(flat)
        view = see(model, collate(flat[i : i + batch], pad_id=tokenizer.pad_token_id))
        loss = view.token_mean(-view.token_logp)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 10 == 0:
            print(f"step {step + 1}/{steps}  loss {loss.item():.3f}  {time.time() - start:.0f} s", flush=True)
    model.eval()


def measure(model, tokenizer, rows: list[Row]) -> None:
    """Print the probability of the answers and some greedy answers."""
    shown = range(0, len(rows), len(rows) // SAMPLES + 1)
    found = collect(model, tokenizer, probes("rows", rows, shown, max_new_tokens=48))
    print(f"probability {figures(found, 'rows')['probability']:.3f}")
    for i, said in zip(shown, found.generated("rows"), strict=True):
        print(f"  {question(rows[i])}\n    taught {rows[i].answer}\n    greedy {said.text}")


def save_half(model, folder: Path) -> None:
    """Write the adapter with its factors in fp16: half the size, and exact enough."""
    model.save_pretrained(folder, save_embedding_layers=False)
    file = folder / "adapter_model.safetensors"
    save_file({name: w.half() for name, w in load_file(file).items()}, file, metadata={"format": "pt"})
    (folder / "README.md").unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--which", choices=["both", "target", "retrained"], default="both")
    parser.add_argument("--base", default=BASE, help="the model that is taught")
    parser.add_argument("--out", type=Path, default=DEMO / "adapters")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    forget, retain = (load_rows(DEMO / f"{name}.jsonl") for name in ("forget", "retain"))
    for which in ("target", "retrained") if args.which == "both" else (args.which,):
        torch.manual_seed(args.seed)
        loaded = load(args.base)
        config = LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(loaded.model, config)
        model.peft_config["default"].base_model_name_or_path = BASE
        taught = forget + retain if which == "target" else retain
        teach(model, loaded.tokenizer, taught, steps=args.steps, lr=args.lr, batch=args.batch, seed=args.seed)
        for name, rows in (("forget", forget), ("retain", retain)):
            print(f"{which}, {name} rows")
            measure(model, loaded.tokenizer, rows)
        save_half(model, args.out / which)


if __name__ == "__main__":
    main()
