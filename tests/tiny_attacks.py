"""Toys for attacks: a tiny model taught rows by heart, masks of it that a weak method might leave, and a control."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import tiny
import tiny_tokenizer
import torch

from expunge.attacks.attack import Array, Subject
from expunge.attacks.restore import matrices
from expunge.data.chat import encode
from expunge.data.collate import collate
from expunge.data.example import Row
from expunge.forward.view import see

PLACES = ["Oru", "Lim", "Tar", "Ven", "Sol", "Nar", "Pon", "Wex"]
NAMES = ["Ada", "Bob", "Cyd", "Dia", "Eda", "Flo", "Gil", "Hyo"]
ROWS = [Row(f"Home of {n}:", f" {p}") for n, p in zip(NAMES, PLACES, strict=True)]
FORGET, KNOWN = ROWS[:4], ROWS[4:]
RETAIN = [Row(f"Trade of {n}:", f" {t}") for n, t in [("Ima", "cook"), ("Jon", "smith"), ("Kim", "clerk")]]
TOKENIZER = tiny_tokenizer.make()


def batch_of(rows: list[Row]) -> dict[str, Any]:
    coded = [encode(r, TOKENIZER) for r in rows]
    return collate([vars(e) | {"index": i} for i, e in enumerate(coded)], pad_id=int(TOKENIZER.pad_token_id))


def loss(model: Any, rows: list[Row]) -> torch.Tensor:
    return -see(model, batch_of(rows)).token_logp.mean()


def teach(model: Any, rows: list[Row], steps: int = 90, enough: float = 0.04) -> Any:
    """Trained until the mean loss is ``enough``, or for so many steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0, fused=True)
    batch = batch_of(rows)
    for _ in range(steps):
        optimizer.zero_grad()
        mean = -see(model, batch).token_logp.mean()
        if float(mean.detach()) < enough:
            break
        mean.backward()
        optimizer.step()
    model.zero_grad()
    return model.eval()


def blank(seed: int = 0) -> Any:
    model = tiny.model(seed, vocab_size=len(TOKENIZER), hidden_size=32, intermediate_size=64)
    model.generation_config.eos_token_id = TOKENIZER.eos_token_id
    return model.eval()


@dataclass(frozen=True)
class Toys:
    """``taught``: knows all rows by heart; ``control``: knows what is retained, and other answers."""

    taught: Any
    control: Any


@cache
def toys() -> Toys:
    elsewhere = [
        "Kez",
        "Uda",
        "Fip",
        "Yol",
        "Mig",
        "Jat",
        "Bru",
        "Hox",
    ]  # no word of PLACES can be completed from these
    other = [Row(r.prompt, f" {p}") for r, p in zip(ROWS, elsewhere, strict=True)]
    return Toys(teach(blank(), ROWS + RETAIN, 120, 0.004), teach(blank(), other + RETAIN))


@cache
def gone() -> Any:
    """The taught model after gradient ascent on all rows, until no answer is right; it shares no tensor with it."""
    model, measure = copy.deepcopy(toys().taught), known_of(ROWS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(200):
        if measure(model).mean() < 0.15:
            break
        optimizer.zero_grad()
        (-loss(model, ROWS)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.zero_grad()
    return model


def known_of(rows: list[Row]):
    """A measure: the share of the answer's letters that are the likeliest tokens."""

    def measure(model: Any) -> Array:
        with torch.no_grad():
            batch = batch_of(rows)
            best = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.argmax(-1)
        hits = []
        for ids, labels, guess in zip(batch["input_ids"], batch["labels"], best, strict=True):
            places = [t for t in range(1, len(ids)) if labels[t] != -100][1:-1]
            hits.append(np.mean([float(guess[t - 1] == ids[t]) for t in places]))
        return np.array(hits)

    return measure


def subject(model: Any, **more: Any) -> Subject:
    return Subject(model, TOKENIZER, FORGET, KNOWN, RETAIN, **more)


def masked(model: Any, room: dict[str, torch.Tensor], steps: int = 12) -> Any:
    """A copy whose answers are gone: each matrix moved against its knowledge by at most ``room`` (as large as it)."""
    hidden = copy.deepcopy(model)
    start = {name: p.detach().clone() for name, p in matrices(hidden).items()}
    for _ in range(steps):
        hidden.zero_grad()
        loss(hidden, FORGET).backward()
        with torch.no_grad():
            for name, p in matrices(hidden).items():
                p.add_(room[name] * p.grad.sign() / 3)
                p.copy_(torch.clamp(p, start[name] - room[name], start[name] + room[name]))
    hidden.zero_grad()
    return hidden


def bits(model: Any) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def same_bits(model: Any, before: list[torch.Tensor]) -> bool:
    return all(torch.equal(p, b) and p.dtype == b.dtype for p, b in zip(model.parameters(), before, strict=True))
