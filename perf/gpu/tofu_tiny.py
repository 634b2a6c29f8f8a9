"""``perf.gpu.tofu`` at tiny size: a random model of one layer, a few made-up rows, two methods, two trials, one seed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from expunge.files import replacing
from perf.gpu import tofu_plan as plans
from perf.gpu.tofu_plan import Plan

ROWS = {
    "forget10": ("forget", 8),
    "retain90": ("keep", 10),
    "forget10_perturbed": ("forget", 8),
    "retain_perturbed": ("keep", 6),
    "real_authors_perturbed": ("author", 4),
    "world_facts_perturbed": ("fact", 4),
    "holdout10": ("holdout", 8),
}
METHODS = {
    "grad_diff": {"grid": {"learning_rate": [0.01, 0.03]}},
    "pdu": {"multiplier": 10.0, "grid": {"learning_rate": [0.01, 0.03]}},
}


def tiny(plan: Plan) -> Plan:
    """``plan`` at tiny size; its model and rows are written into ``plan.out`` unless they are there."""
    place = plan.out / "tiny"
    if not place.exists():
        with replacing(place, keep_existing=True) as fresh:
            write(fresh)
    on_cpu = {} if torch.cuda.is_available() else {"use_cpu": True}
    return replace(
        plan,
        data=place / "data",
        model=str(place / "model"),
        values={**plan.values, "methods": METHODS},
        teach={**plan.teach, "num_train_epochs": 2, "learning_rate": 0.03, "per_device_train_batch_size": 4},
        training={"max_steps": 3, "per_device_train_batch_size": 4, **plans.ON_GPU, **on_cpu, **plan.training},
        seeds=plan.seeds[:1],
        max_new_tokens=8,
    )


def write(folder: Path) -> None:
    """``model`` and ``data``, by the tests' helpers."""
    sys.path.append(str(Path(__file__).parents[2] / "tests"))
    import tiny as helpers
    import tiny_bench
    import tiny_tokenizer

    tokenizer = tiny_tokenizer.make()
    model = helpers.model(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "data").mkdir()
    for name, (kind, n) in ROWS.items():
        rows = tiny_bench.rows(kind, n, paraphrase=kind in ("forget", "keep"))
        (folder / "data" / f"{name}.json").write_text("".join(f"{json.dumps(r)}\n" for r in rows), encoding="utf-8")
    assert set(ROWS) == set(plans.FILES)
