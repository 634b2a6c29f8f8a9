"""One small audit, finished once: two tiny models, six rows to forget, four to keep, a control, and a toy attack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PLACES = [("Ada", "Oru"), ("Bo", "Lim"), ("Cy", "Tar"), ("Di", "Ven"), ("Ed", "Sol"), ("Flo", "Nar"), ("Gil", "Pon")]


@pytest.fixture(scope="session")
def attacks() -> dict[str, Any]:
    """By name one that brings something back, one that fails, and one that lacks what it needs."""
    from expunge.attacks.attack import Attack, Point

    def run(subject: Any, measure: Any) -> list[Any]:
        known = measure(subject.model)
        return [Point(k, f"{k} steps", np.minimum(1, known + k / 10)) for k in (1, 2)]

    def breaks(subject: Any, measure: Any) -> list[Any]:
        from expunge.errors import InputError

        raise InputError("this model allows no such attack")

    return {
        "toy": Attack("toy", "weights", "adds a tenth a step", run, unit="steps"),
        "broken": Attack("broken", "relearning", "always fails", breaks, trains=True),
        "hungry": Attack("hungry", "inside", "needs a retrained model", run, needs=("retrained",)),
    }


@pytest.fixture(scope="session")
def home(tmp_path_factory, tiny_model) -> Path:
    """Models ``target`` and ``other``, ``forget.jsonl`` (with wrong answers) and ``retain.jsonl``."""
    import shutil

    import tiny
    import tiny_tokenizer

    folder = tmp_path_factory.mktemp("audited")
    shutil.copytree(tiny_model, folder / "target")
    tokenizer = tiny_tokenizer.make()
    other = tiny.model(3, vocab_size=len(tokenizer), num_hidden_layers=1)
    other.generation_config.eos_token_id = tokenizer.eos_token_id
    other.save_pretrained(folder / "other")
    tokenizer.save_pretrained(folder / "other")
    rows = [
        {"question": f"Where does {n} live?", "answer": f"{n} lives in {p}.", "perturbed_answer": [f"{n} lives in Zug."],
         "paraphrased_question": f"In what place does {n} live?"}
        for n, p in PLACES
    ]  # fmt: skip
    kept = [{"question": f"What does {n} do?", "answer": f"{n} bakes."} for n, _ in PLACES[:4]]
    for name, some in (("forget", rows), ("retain", kept)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in some))
    return folder


@pytest.fixture(scope="session")
def chosen(home) -> dict[str, Any]:
    """The settings of the audit, by name."""
    return {
        "model": str(home / "other"),
        "target": str(home / "target"),
        "forget": str(home / "forget.jsonl"),
        "retain": str(home / "retain.jsonl"),
        "base": str(home / "other"),
        "out": str(home / "audit"),
        "attacks": "toy,broken,hungry",
        "max_new_tokens": 4,
        "request": "REQ-1",
        "operator": "A. Person",
    }


@pytest.fixture(scope="session")
def audited(home, chosen, attacks) -> Any:
    """The result of the audit; a copy of its folder is for who changes it."""
    from expunge.audit import measure, run, settings

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        few = measure.general_rows()[:2]
        patch.setattr(measure, "general_rows", lambda: few)
        return run.run(settings.make(chosen), command="expunge audit", known_attacks=attacks)
