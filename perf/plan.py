"""How near is `expunge plan` to what a run takes?  Whole runs on the CPU, each in a process of its own.

    python -m perf.plan --out results/plan/cpu.json [--only REGEX]
    python -m perf.plan --gpu results/gpu_h200/step.json --out results/plan/gpu.json
    python -m perf.plan --table results/plan/cpu.json results/plan/gpu.json docs/memory.md

A Llama of random weights (float32, vocabulary of 32,000 words) with rows as long as TOFU's (perf/gpu/lengths.json) is
unlearned for a few steps with ``expunge.unlearn``.  Measured is the peak of resident memory less what the process held
after a run of a tiny model: of the whole run, and of its training alone.  Estimated is what ``expunge plan`` says of the
same settings; with ``--gpu`` of the library's rows in a record of perf/gpu/step.py, whose peaks are of allocated tensors.
Rows: ``MODEL/WEIGHTS/METHOD/ROWS`` and perhaps ``/checkpointing``.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback

from perf import memory
from perf.gpu import lengths, rows

VOCABULARY = 32_000
TINY = "tiny"
SIZES = {
    "512x8": {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 1536},
    TINY: {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 48},
    "768x12": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 2048},
}
METHODS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "pdu": ("pdu", {"budget": 1.0}),
    "npo": ("npo", {}),
    "blur_npo": ("blur_npo", {}),
    "rmu": ("rmu", {}),
    "npo_kl": ("npo", {"retain": "kl"}),
}
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # glibc gives back what is freed; else it keeps up to as much again
STEPS = 3
ROWS = 48  # of each set


def settings(name: str, folder: Path) -> dict[str, Any]:
    """The settings of the row ``name``."""
    _, weights, method, batch, *more = name.split("/")
    made, parameters = METHODS[method]
    return {
        "method": made,
        "parameters": parameters,
        "out": str(folder / "out"),
        "save_every": "never",
        "eval_rows": 2,
        "chat_template": False,
        **({"adapter": "lora"} if weights == "lora" else {}),
        "training": {
            "max_steps": STEPS,
            "per_device_train_batch_size": int(batch),
            "gradient_accumulation_steps": 1,
            "gradient_checkpointing": "checkpointing" in more,
            "use_cpu": True,
            "disable_tqdm": True,
        },
    }


def make_model(size: str, folder: Path) -> Path:
    """A folder with a model of ``size`` and a tokenizer of as many words as it knows."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    place = folder / size
    if place.exists():
        return place
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES[size], vocab_size=VOCABULARY, max_position_embeddings=1024, tie_word_embeddings=False)
    LlamaForCausalLM(config).save_pretrained(place)
    words = {f"w{i}": i for i in range(VOCABULARY - 2)} | {"<end>": VOCABULARY - 2, "<unknown>": VOCABULARY - 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>", unk_token="<unknown>"
    )
    fast.save_pretrained(place)
    return place


def data() -> dict[str, list[dict[str, str]]]:
    """Rows of words, as long as TOFU's."""
    table = {name: pairs[:ROWS] for name, pairs in lengths.table().items()}
    return {
        name: [
            {
                "prompt": " ".join(f"w{(997 * i + k) % 30_000}" for k in range(prompt)),
                "completion": " " + " ".join(f"w{(1009 * i + 7 * k) % 30_000}" for k in range(answer)),
            }
            for i, (prompt, answer) in enumerate(pairs)
        ]
        for name, pairs in table.items()
    }


class Training(TrainerCallback):
    """Measures the peak of training alone; what came before is kept."""

    def __init__(self) -> None:
        self.before = self.start = self.peak = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.before, self.start = memory.peak(), memory.now()
        memory.reset_peak()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.peak = memory.peak()


def measured(name: str, folder: Path) -> dict[str, float]:
    """The peaks of the run ``name`` in this process, above what it holds after a run of a tiny model."""
    rows.silence()
    carried_out(f"{TINY}{name[name.index('/') :]}", folder)
    gc.collect()
    baseline = memory.now()
    memory.reset_peak()
    training = carried_out(name, folder)
    after = memory.peak()
    return {
        "whole": max(after, training.peak, training.before) - baseline,
        "training": training.peak - baseline,
        "before": training.before - baseline,
        "after": after - baseline,
        "baseline": baseline,
    }


def carried_out(name: str, models: Path) -> Training:
    """The run ``name``, as a user has it from Python."""
    from expunge import unlearn
    from expunge.method import build

    training = Training()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        chosen = settings(name, Path(folder))
        arguments = chosen.pop("training")
        method = build(chosen.pop("method"), chosen.pop("parameters"))
        unlearn(str(models / name.split("/")[0]), **data(), method=method, callbacks=[training], **chosen, **arguments)
    return training


def estimated(name: str, folder: Path) -> dict[str, Any]:
    """What ``expunge plan`` says of the same run."""
    from expunge.plan.run import plan
    from expunge.plan.settings import Plan
    from expunge.unlearning.settings import make

    with tempfile.TemporaryDirectory() as out:
        chosen = make({"model": str(folder / name.split("/")[0]), **data(), **settings(name, Path(out))})
        return dict(plan(chosen, Plan())["memory"])


def measure(name: str, folder: Path) -> dict[str, Any]:
    """One row: a process that runs, and the plan."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "perf.plan", "--measure", name, str(folder)],
        capture_output=True,
        text=True,
        env=os.environ | ALLOCATOR,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-300:])
    return compared(json.loads(done.stdout.splitlines()[-1]), estimated(name, folder))


def compared(found: Mapping[str, float], plan: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured beside what the plan says, and the ratios of the two."""
    phases = plan["phases"]
    estimate = {"whole": plan["peak"], "training": max(phases["step"], phases["optimizer step"])}
    ratios = {name: round(estimate[name] / found[name], 3) for name in estimate}
    return {"measured": dict(found), "estimated": estimate, "phase": plan["phase"], "ratio": ratios}


def again(log: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The record ``log`` with its estimates made anew."""
    for name, row in log["rows"].items():
        if row["status"] == "passed":
            row["figures"] = compared(row["figures"]["measured"], estimated(name, folder))
            print(f"{name:40} {said(row['figures'])}", flush=True)
    return log


def every(folder: Path) -> Iterator[rows.Row]:
    """All rows."""
    for batch, end in itertools.product((2, 4), ("", "/checkpointing")):
        for weights, method in itertools.product(("full", "lora"), METHODS):
            name = f"512x8/{weights}/{method}/{batch}{end}"
            yield rows.Row(name, partial(measure, name, folder))
    for name in ("768x12/full/npo/4", "768x12/full/blur_npo/4", "768x12/lora/pdu/4", "768x12/lora/npo_kl/4"):
        yield rows.Row(name, partial(measure, name, folder))


def on_gpu(record: Path, folder: Path) -> dict[str, Any]:
    """The library's rows of a record of ``perf.gpu.step``, each beside its estimate."""
    log = rows.read(record)
    found = {}
    for name, row in log["rows"].items():
        if "/library" in name and row["status"] == "passed":
            estimate = estimated_on_gpu(name, folder)["peak"]
            measured = row["figures"]["gib"] * 2**30
            found[name] = {"measured": measured, "estimated": estimate, "ratio": round(estimate / measured, 3)}
            print(f"{name:44} {found[name]['ratio']}", flush=True)
    return {"about": log["about"], "record": str(record), "rows": found}


def estimated_on_gpu(name: str, folder: Path) -> dict[str, Any]:
    """What the plan says of a row of ``perf.gpu.step``, on the same rows."""
    from expunge.plan.run import plan
    from expunge.plan.settings import Plan
    from expunge.unlearning.settings import make
    from perf.gpu.shapes import SHAPES
    from perf.gpu.step import COEFFICIENT, RUN

    label, batch, method, _, *end = name.split("/")
    shape = SHAPES[label]
    place = folder / label
    place.mkdir(exist_ok=True)
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **shape.sizes}
    (place / "config.json").write_text(json.dumps(config))
    made, parameters = METHODS[method]
    training = {
        "max_steps": RUN,
        "per_device_train_batch_size": int(batch.split("+")[0]),
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": bool(end),
    }
    chosen = {
        "model": str(place),
        "forget": [],
        "method": made,
        "parameters": {**parameters, **({"steering_coefficient": COEFFICIENT} if method == "rmu" else {})},
        "training": training,
    } | ({"adapter": "lora", "dtype": "bfloat16"} if shape.lora else {})
    streams = {s: lengths.examples(pairs[: shape.rows], 100, 0) for s, pairs in lengths.table().items()}
    return dict(plan(make(chosen), Plan(memory="1000GB"), data=streams)["memory"])  # type: ignore[arg-type]


# -- the table ------------------------------------------------------------------------------------------------------------
BEGIN, END = "<!-- plan:begin -->", "<!-- plan:end -->"


def table(cpu: Mapping[str, Any], gpu: Mapping[str, Any]) -> str:
    """Both records in Markdown: estimate, measurement, ratio."""
    gib = 2**30
    out = [
        f"On {gpu['about']['card']} (peak of allocated tensors, model included; `{gpu['record']}`):\n",
        "| row | estimated GiB | measured GiB | ratio |\n|---|--:|--:|--:|",
        *(
            f"| {name.replace('/library', '')} | {row['estimated'] / gib:.2f} | {row['measured'] / gib:.2f} "
            f"| {row['ratio']:.2f} |"
            for name, row in gpu["rows"].items()
        ),
        "\nOn a CPU (peak of resident memory above the process's own; training alone, and the whole run with loading, "
        "figures before and after, and the check of what was saved):\n",
        "| row | training: estimated MiB | measured MiB | ratio | whole run: estimated MiB | measured MiB | ratio |\n"
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    mib = 2**20
    for name, row in cpu["rows"].items():
        if row["status"] != "passed":
            continue
        figures = row["figures"]
        cells = [
            f"{figures['estimated'][part] / mib:.0f} | {figures['measured'][part] / mib:.0f} | {figures['ratio'][part]:.2f}"
            for part in ("training", "whole")
        ]
        out.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([out[0], *out[1:]])


def write_table(cpu: Path, gpu: Path, page: Path) -> None:
    """Put the table between the marks of ``page``."""
    text = page.read_text()
    made = table(rows.read(cpu), rows.read(gpu))
    page.write_text(f"{text.split(BEGIN)[0]}{BEGIN}\n{made}\n{END}{text.split(END)[1]}")


def said(found: rows.Figures) -> str:
    """A row in a few words."""
    mib = 2**20
    return (
        f"measured {found['measured']['whole'] / mib:7.0f} MiB, estimated {found['estimated']['whole'] / mib:7.0f}, "
        f"{found['ratio']['whole']:.2f}; training {found['measured']['training'] / mib:7.0f}, "
        f"{found['estimated']['training'] / mib:7.0f}, {found['ratio']['training']:.2f}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure, or write the table of a record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="REGEX", help="the rows whose name it is found in")
    parser.add_argument("--out", type=Path, help="the record, JSON")
    parser.add_argument("--models", type=Path, help="where the models are made, and kept")
    parser.add_argument("--again", action="store_true", help="only the estimates of the record, anew")
    parser.add_argument("--gpu", type=Path, metavar="RECORD", help="a record of perf.gpu.step to estimate the rows of")
    parser.add_argument(
        "--table", nargs=3, type=Path, metavar=("CPU", "GPU", "PAGE"), help="write both records' table into a page"
    )
    parser.add_argument("--measure", nargs=2, metavar=("ROW", "MODELS"), help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.measure:
        print(json.dumps(measured(args.measure[0], Path(args.measure[1]))))
        return 0
    if args.table:
        write_table(*args.table)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        if args.gpu:
            rows.write(args.out, on_gpu(args.gpu, Path(temporary)))
            return 0
        folder = args.models or Path(temporary)
        for size in SIZES:
            make_model(size, folder)
        if args.again:
            rows.write(args.out, again(rows.read(args.out), folder))
            return 0
        log = rows.run(rows.chosen(every(folder), args.only), torch.device("cpu"), args.out, line=said)
    return rows.exit_status(log, args.out)


if __name__ == "__main__":
    sys.exit(main())
