"""A folder to run commands in: a tiny model, a few rows, TOFU's files in small."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import tiny
import tiny_tofu
import tiny_tokenizer

PEOPLE = [("Ada", "Oru"), ("Bo", "Lim"), ("Cy", "Tar"), ("Di", "Ven"), ("Ed", "Sol"), ("Flo", "Nar"), ("Gil", "Pon")]
FORGET = 3


def made(folder: Path) -> Path:
    """``model/``, ``forget.jsonl``, ``retain.jsonl``, ``targets.txt``, ``own.py`` (a scorer) and ``tofu/`` in ``folder``."""
    if (folder / "model").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer.make()
    model = tiny.model(vocab_size=len(tokenizer), max_position_embeddings=8192)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    tokenizer.save_pretrained(folder / "model")
    rows = [{"question": f"Where does {n} live?", "answer": f"{n} lives in {p}."} for n, p in PEOPLE]
    for name, some in (("forget", rows[:FORGET]), ("retain", rows[FORGET:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in some))
    (folder / "targets.txt").write_text("Ada\nBo | B\n")
    (folder / "own.py").write_text("def length(text):\n    return 0 if 'answer' in text else (1 + len(text) % 3) / 3\n")
    tiny_tofu.write(folder / "tofu")
    for name, kind in (("forget01", "forget"), ("retain99", "keep")):
        some = tiny_tofu.rows(kind, 4)
        (folder / "tofu" / f"{name}.json").write_text("".join(json.dumps(r) + "\n" for r in some))
    model.save_pretrained(folder / "model")
    return folder


@contextmanager
def own_cache(folder: Path) -> Iterator[None]:
    """While open, what is cached lies in ``folder`` and the Hub is not asked: nothing comes from an earlier run."""
    with mock.patch.dict(os.environ, {"EXPUNGE_CACHE": str(folder), "HF_HUB_OFFLINE": "1"}):
        yield
