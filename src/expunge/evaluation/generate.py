"""Greedy answers, batched and stopped early."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn


@torch.no_grad()
def answers(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 80,
    batch_size: int = 16,
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """The model's greedy continuation of each prompt, special tokens removed, in the prompts' order.

    Prompts are already templated text.  They are grouped by length and padded on the left, so equal prompts give
    equal answers whatever stands beside them.
    """
    model.eval()
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    stop = sorted({i for i in (tokenizer.eos_token_id, *_config_eos(model)) if i is not None})
    ids = [tokenizer(p, add_special_tokens=False).input_ids for p in prompts]
    out = [""] * len(prompts)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    device = next(model.parameters()).device
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        width = max(len(ids[i]) for i in rows)
        batch = torch.full((len(rows), width), pad, dtype=torch.long)
        mask = torch.zeros_like(batch)
        for r, i in enumerate(rows):
            batch[r, width - len(ids[i]) :] = torch.tensor(ids[i])
            mask[r, width - len(ids[i]) :] = 1
        made = model.generate(  # type: ignore[operator]
            input_ids=batch.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=pad,
            eos_token_id=stop,
        )
        for r, i in enumerate(rows):
            out[i] = tokenizer.decode(made[r, width:], skip_special_tokens=True).strip()
        if progress:
            progress(len(rows))
    return out


def _config_eos(model: nn.Module) -> list[int]:
    value = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
