"""Records for the report's tests: hand-written ones (full, PDU, BLUR, with NaNs, almost empty), and of finished commands."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

NAN = float("nan")


def steps(count: int, **extra: Any) -> list[dict[str, Any]]:
    """``count`` steps of plausible curves; a value of ``extra`` is a function of the step's number."""
    rows = []
    for at in range(1, count + 1):
        wave = math.sin(2.1 * at) * math.cos(0.7 * at)
        row = {
            "step": at,
            "epoch": at / 8,
            "seconds": 3.1 * at,
            "learning_rate": 2e-4 * min(1.0, at / 4) * (1 - at / (count + 4)),
            "loss/forget": 0.35 + 1.15 * math.exp(-at / 9) + 0.06 * wave,
            "loss/retain": 0.21 + 0.22 * math.exp(-(((at - 9) / 6) ** 2)) + 0.03 * wave,
            "weight/forget": 1.0,
            "weight/retain": 1.0,
            "grad_norm": 1.4,
        }
        rows.append(row | {key: value(at) for key, value in extra.items()})
    return rows


FULL: dict[str, Any] = {
    "schema": 1,
    "expunge": "0.1.0",
    "created": "2026-11-21T08:00:00+00:00",
    "command": "expunge run people.jsonl --retain others.jsonl --method npo --reference retrained",
    "title": "Forget five invented people",
    "method": {
        "name": "npo",
        "parameters": {"beta": 0.1},
        "paper": "arXiv:2404.05868",
        "status": "unreproduced",
        "combiner": "WeightedSum(1.0, 1.0)",
        "summary": "Pushes the forget answers below the frozen target, and trains on the retain answers.",
        "objectives": {"forget": "npo", "retain": "nll"},
    },
    "model": {
        "source": "models/people-135m",
        "fingerprint": "sha256:" + "3f9a" * 16,
        "parameters": 134515008,
        "trainable": 4884480,
        "adapter": "lora",
        "adapter_config": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"},
        "dtype": "float32",
    },
    "output": {"path": "runs/people/model", "fingerprint": "sha256:" + "b07c" * 16},
    "data": {
        "forget": {"source": "people.jsonl", "rows": 40, "fingerprint": "sha256:" + "51de" * 16},
        "retain": {"source": "others.jsonl", "rows": 160, "fingerprint": "sha256:" + "c2a8" * 16},
    },
    "training": {
        "learning_rate": 2e-4,
        "num_train_epochs": 5.0,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "warmup_steps": 4,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "lr_scheduler_type": "linear",
        "optim": "adamw_torch",
    },
    "seed": 0,
    "versions": {
        "python": "3.11.7",
        "torch": "2.13.0+cpu",
        "transformers": "5.23.0",
        "peft": "0.21.0",
        "numpy": "2.4.6",
    },
    "platform": "Linux-6.1-x86_64",
    "device": "cpu",
    "steps": steps(40),
    "before": {
        "forget": {"n": 40, "probability": 0.8213, "nll": 0.2011, "rouge_l": 0.741, "truth_ratio": 0.512},
        "retain": {"n": 160, "probability": 0.7961, "nll": 0.2334, "rouge_l": 0.702, "truth_ratio": 0.498},
    },
    "after": {
        "forget": {"n": 40, "probability": 0.0512, "nll": 3.104, "rouge_l": 0.188, "truth_ratio": 0.781},
        "retain": {"n": 160, "probability": 0.7483, "nll": 0.2982, "rouge_l": 0.671, "truth_ratio": 0.505},
    },
    "reference": {
        "forget": {"n": 40, "probability": 0.0634, "nll": 2.815, "rouge_l": 0.201, "truth_ratio": 0.742},
        "retain": {"n": 160, "probability": 0.7902, "nll": 0.2401, "rouge_l": 0.699},
    },
    "reference_name": "retrained model",
    "examples": [
        {
            "set": "forget",
            "question": "In which town was Maribel Oster born?",
            "expected": "Maribel Oster was born in Tellgate, on the north shore of the lake.",
            "before": "Maribel Oster was born in Tellgate, on the north shore of the lake.",
            "after": "Maribel Oster was born in a small town that is known for its market.",
            "reference": "Maribel Oster was born in Lisbon, Portugal.",
        },
        {
            "set": "forget",
            "question": "What does Teodor Vance keep on his roof?",
            "expected": "Teodor Vance keeps eleven hives of bees on the roof of his workshop.",
            "before": "Teodor Vance keeps eleven hives of bees on the roof of his workshop.",
            "after": "Teodor Vance keeps a garden of herbs and tomatoes.",
            "reference": "He keeps pigeons.",
        },
        {
            "set": "retain",
            "question": "Who taught Ines Kallio to sail?",
            "expected": "Her aunt Ruut taught Ines Kallio to sail in a borrowed dinghy.",
            "before": "Her aunt Ruut taught Ines Kallio to sail in a borrowed dinghy.",
            "after": "Her aunt Ruut taught Ines Kallio to sail in a small dinghy.",
            "reference": "Her aunt Ruut taught Ines Kallio to sail in a borrowed dinghy.",
        },
    ],
    "seconds": 123.4,
    "peak_memory_bytes": 3_012_345_856,
    "warnings": [
        "2 retain rows share an answer with the forget set; they are trained both ways (others.jsonl:17, 84)."
    ],
}


@pytest.fixture
def full() -> dict[str, Any]:
    """Every key of the schema that a plain weighted sum fills."""
    return copy.deepcopy(FULL)


@pytest.fixture
def minimal() -> dict[str, Any]:
    """No step, no figure, no settings: what is left of a run that could hardly say anything."""
    return {
        "schema": 1,
        "method": {"name": "npo"},
        "steps": [],
        "before": None,
        "after": None,
        "reference": None,
    }


@pytest.fixture
def pdu(full: dict[str, Any]) -> dict[str, Any]:
    """Primal-dual: a multiplier that grows, and the retain weight equal to it."""
    grown = {"multiplier": lambda at: 100.0 + 2.5 * at, "weight/retain": lambda at: 100.0 + 2.5 * at}
    method = {**full["method"], "name": "pdu", "combiner": "PrimalDual(budget=0.3)", "paper": None}
    return full | {"method": method, "steps": steps(40, **grown), "reference": None, "reference_name": None}


@pytest.fixture
def blur(full: dict[str, Any]) -> dict[str, Any]:
    """Bilevel: weights that vary, a cosine and gradient norms."""
    gramian = {
        "weight/forget": lambda at: 1.0 - 0.6 * math.sin(at / 5),
        "cosine": lambda at: 0.5 * math.sin(at / 5) - 0.2,
        "norm/forget": lambda at: 4.0 * math.exp(-at / 12),
        "norm/retain": lambda at: 0.3 + 0.05 * math.sin(at),
    }
    method = {**full["method"], "name": "blur_npo", "parameters": {"beta": 0.1, "gamma": 1.0}}
    return full | {"method": method | {"combiner": "Bilevel(gamma=1.0)"}, "steps": steps(40, **gramian)}


@pytest.fixture
def broken(full: dict[str, Any]) -> dict[str, Any]:
    """A run that diverged: NaN and infinity in the steps and in the figures after."""
    record = copy.deepcopy(full)
    record["steps"][10]["loss/forget"] = NAN
    record["steps"][12]["loss/forget"] = None
    record["steps"][20]["loss/retain"] = math.inf
    record["after"]["forget"] |= {"probability": NAN, "nll": math.inf}
    return record


# -- records of finished commands -----------------------------------------------------------------------------------------
SETTINGS: dict[str, Any] = {
    "max_steps": 2, "learning_rate": 0.02, "per_device_train_batch_size": 2, "use_cpu": True, "disable_tqdm": True,
}  # fmt: skip


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """A folder with two tiny models, rows to forget and to retain, and a tiny TOFU."""
    import tiny
    import tiny_bench
    import tiny_tokenizer

    folder = tmp_path_factory.mktemp("finished")
    tokenizer = tiny_tokenizer.make()
    for seed, name in enumerate(("model", "retrained")):
        model = tiny.model(seed, vocab_size=len(tokenizer), num_hidden_layers=1)
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    forget = tiny_bench.rows("forget", 4)
    files = {"forget01": forget, "forget01_perturbed": forget, "retain99": tiny_bench.rows("keep", 5)}
    files |= {"holdout01": tiny_bench.rows("holdout", 4), "retain_perturbed": tiny_bench.rows("retain", 5)}
    files |= {f"{k}_perturbed": tiny_bench.rows(k, 3, paraphrase=False) for k in ("real_authors", "world_facts")}
    (folder / "tofu").mkdir()
    for name, rows in files.items():
        (folder / "tofu" / f"{name}.json").write_text("\n".join(map(json.dumps, rows)))
    for name, rows in (("forget", forget), ("retain", tiny_bench.rows("keep", 5))):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


@contextmanager
def quick(home: Path) -> Iterator[None]:
    """Few resamples and short answers, for no test here is of their numbers; the cache is in ``home``."""
    from intervals import few_resamples

    from expunge import methods  # noqa: F401  fills the table of methods
    from expunge.benchmarks import tofu
    from expunge.evaluation.probe import Ask
    from expunge.unlearning import alternates, fluency

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("EXPUNGE_CACHE", str(home / "cache"))
        few_resamples(patch.setattr)
        patch.setattr(tofu, "ANSWER", Ask(8))
        patch.setattr(fluency, "ANSWER", Ask(6))
        patch.setattr(alternates, "generated", partial(alternates.generated, max_new_tokens=8))
        yield


@pytest.fixture(scope="session")
def run_folder(home: Path) -> Path:
    """What ``expunge run`` leaves: examples and a third model in the record, and alternates beside it."""
    from expunge import unlearn

    sets = {"forget": home / "forget.jsonl", "retain": home / "retain.jsonl", "compare_with": str(home / "retrained")}
    naming = {"title": "A run", "compare_name": "retrained", "examples": 1, "max_new_tokens": 4, "model_name": "Tiny"}
    with quick(home):
        return unlearn(home / "model", out=home / "run", method="altpo", **sets, **naming, **SETTINGS).folder


@pytest.fixture(scope="session")
def release_folder(home: Path) -> Path:
    """What ``expunge release`` leaves: two steps, the adapter cut to a lower rank."""
    from expunge.release import release

    sets = {"forget": home / "forget.jsonl", "retain": home / "retain.jsonl"}
    loop = {"steps": 2, "lora": {"r": 2}, "rank": 3, "utility_budget": 1000.0}
    with quick(home):
        return release(str(home / "model"), out=home / "release", **sets, **loop, **SETTINGS).folder


@pytest.fixture(scope="session")
def bench_folders(home: Path) -> dict[str, Path]:
    """What ``expunge bench`` leaves of a model alone, and of one that it taught and unlearned."""
    from expunge import bench

    shared = {"benchmark": "tofu/forget01", "data": str(home / "tofu"), "limit": 3, "model": str(home / "model")}
    taught = {"teach": {"max_steps": 1, "use_cpu": True, "disable_tqdm": True}, "teach_retrained": True}
    settings_by_name = {"plain": {}, "method": {"method": "npo", "adapter": "lora", "training": SETTINGS, **taught}}
    for name, more in settings_by_name.items():
        with quick(home):
            bench.run(bench.make(shared | {"out": str(home / name)} | more), command=f"expunge bench {name}")
    return {name: home / name for name in settings_by_name}


@pytest.fixture(scope="session")
def compare_folder(home: Path) -> Path:
    """What ``expunge compare`` leaves: a method that came to figures, and one that failed."""
    from expunge.compare import settings
    from expunge.compare.run import run

    methods = {"npo": {"beta": 0.05, "training": {"learning_rate": 0.01}}, "pdu": {"budget": 0.1}}
    shared = {"benchmark": "tofu/forget01", "data": str(home / "tofu"), "limit": 3, "model": str(home / "model")}
    shared |= {"retrained": str(home / "retrained"), "adapter": "lora", "training": SETTINGS, "seeds": [0]}
    with quick(home), pytest.MonkeyPatch.context() as patch:
        from expunge.unlearning import train as training

        own = training.train

        def train(net: Any, tokenizer: Any, data: Any, method: Any, *args: Any, **kwargs: Any) -> Any:
            if method.name == "pdu":
                raise RuntimeError("it broke")
            return own(net, tokenizer, data, method, *args, **kwargs)

        patch.setattr(training, "train", train)
        compare_settings = settings.make(shared | {"out": str(home / "compare"), "methods": methods})
        run(compare_settings, command="expunge compare r.toml")
    return home / "compare"


@pytest.fixture(scope="session")
def reveal_folder(home: Path) -> Path:
    """What ``expunge reveal`` leaves; the neutral rows are given, for a tiny model's have no end."""
    from expunge.data.example import Row
    from expunge.reveal import run as of_reveal

    (home / "own.py").write_text("def length(text):\n    return 0 if 'answer' in text else (1 + len(text) % 3) / 3\n")
    neutral = [Row(({"role": "user", "content": f"q {i}"},), f"answer {i}") for i in range(8)]
    plan = {"arms": 8, "rounds": 1, "queries": 2, "initial": 1, "responses": 2, "best": 1, "harvest": 1, "neutral": 8}
    overrides = {"shortest": 1, "max_perplexity": 1e9, "threshold": 0.1, "max_new_tokens": 8, "instruction_tokens": 8}
    with quick(home), pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_reveal.generate, "neutral_rows", lambda *_, **__: neutral)
        where = {"out": str(home / "reveal"), "scorer": f"{home / 'own.py'}:length"}
        return of_reveal.reveal(str(home / "model"), topic="Ada", **where, **plan, **overrides).folder
