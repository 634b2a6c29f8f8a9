"""A soft prompt: vectors before the input, trained on rows that the attacker has, with all weights as they are.

What a few trained vectors bring back was never gone (Schwinn et al. 2024, arXiv:2402.09063).  Trained on ``known``
alone, so that they cannot hold the measured answers.  The figure of a row is the share of its answer's tokens
(teacher-forced) that are the likeliest.

Cost: ``steps`` steps of ``size`` rows, forward and backward, and one forward pass over the rows a measurement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.attacks.attack import Array, Attack, Measure, Point, Subject
from expunge.attacks.forced import Forced, batches, by_row, hits
from expunge.attacks.restore import restored
from expunge.attacks.train import drawn
from expunge.forward.view import logits_at

VECTORS = 8
RATE = 0.1  # of AdamW, in units of the embeddings' standard deviation
STEPS = (8, 16, 32)
SIZE = 4


def soft_prompt(
    subject: Subject, measure: Measure, *, at: Sequence[int] = STEPS, vectors: int = VECTORS, rate: float = RATE
) -> list[Point]:
    """Without a soft prompt, then with one after each of ``at`` steps; ends early where the loss is not finite."""
    model, seed = subject.model, subject.seed
    with restored(model):
        model.requires_grad_(False)
        table: Tensor = model.get_input_embeddings().weight.detach()
        scale = float(table.float().std())
        picks = torch.randint(len(table), (vectors,), generator=torch.Generator().manual_seed(seed))
        free = nn.Parameter(table[picks.to(table.device)].float() / scale)  # (k, D), of embeddings at random
        optimizer = torch.optim.AdamW([free], lr=rate, weight_decay=0.0)
        forced = batches(subject, subject.forget)
        points = [Point(0, "no soft prompt", hits(model, forced))]
        for step, rows in enumerate(drawn(subject.known, max(at), SIZE, seed), 1):
            (batch,) = batches(subject, rows, size=len(rows))
            optimizer.zero_grad()
            with torch.enable_grad():
                loss = nn.functional.cross_entropy(prompted(model, batch, free * scale), batch.labels)
                loss.backward()
            if not math.isfinite(float(loss.detach())):
                break
            optimizer.step()
            if step in at:
                points.append(Point(step, f"{step} steps", _known(model, forced, free.detach() * scale)))
    return points


def prompted(model: Any, batch: Forced, vectors: Tensor) -> Tensor:
    """(N, V) logits in fp32 of the answer tokens of ``batch``, with ``vectors`` (k, D) before each row."""
    embedded = model.get_input_embeddings()(batch.inputs["input_ids"])  # (B, T, D)
    size, k = len(embedded), len(vectors)
    before = vectors.to(embedded.dtype).expand(size, -1, -1)
    mask = torch.cat([batch.inputs["attention_mask"].new_ones(size, k), batch.inputs["attention_mask"]], 1)
    keep = torch.cat([batch.keep.new_zeros(size, k), batch.keep], 1)
    inputs = {"inputs_embeds": torch.cat([before, embedded], 1), "attention_mask": mask}
    return logits_at(model, keep, use_cache=False, **inputs)[0].float()


@torch.no_grad()
def _known(model: Any, forced: Sequence[Forced], vectors: Tensor) -> Array:
    hit = [(batch, prompted(model, batch, vectors).argmax(-1) == batch.labels) for batch in forced]
    return np.concatenate([by_row(batch, values) for batch, values in hit])


ATTACKS = (
    Attack(
        "soft-prompt",
        "inside",
        "trained vectors before the question",
        soft_prompt,
        unit="steps",
        trains=True,
        needs=("known",),
        random=True,
    ),
)
