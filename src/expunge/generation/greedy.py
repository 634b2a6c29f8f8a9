"""Greedy answers by a model's own ``generate``, batched and stopped early: for models that ``decode`` cannot continue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from expunge.forward import family


@torch.no_grad()
def answers(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 80,
    stop: Sequence[str] = (),
    batch_size: int = 16,
) -> list[str]:
    """The model's greedy continuation of each prompt (token ids), special tokens removed, in the prompts' order.

    Prompts are grouped by length and padded on the left.  An answer ends before the first of ``stop``; a batch ends
    when all its answers have.
    """
    model.eval()
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ends = sorted(end_tokens(model, tokenizer))
    strings = {"stop_strings": list(stop), "tokenizer": tokenizer} if stop else {}
    out = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    device = next(model.parameters()).device
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        width = max(len(prompts[i]) for i in rows)
        batch = torch.full((len(rows), width), pad, dtype=torch.long)
        mask = torch.zeros_like(batch)
        for r, i in enumerate(rows):
            batch[r, width - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[r, width - len(prompts[i]) :] = 1
        generated = model.generate(  # type: ignore[operator]
            input_ids=batch.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=family.tokens_left(model, width, max_new_tokens),
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=pad,
            eos_token_id=ends,
            **family.without_routers(model),
            **strings,
        )
        for r, i in enumerate(rows):
            out[i] = cut(tokenizer.decode(generated[r, width:], skip_special_tokens=True), stop).strip()
    return out


def cut(text: str, stop: Sequence[str]) -> str:
    """``text`` before the first place where any of ``stop`` begins."""
    return text[: min((at for s in stop if (at := text.find(s)) >= 0), default=len(text))]


def end_tokens(model: nn.Module, tokenizer: Any) -> set[int]:
    """The tokens that end an answer: the tokenizer's, and those of the model's generation settings."""
    return {i for i in (tokenizer.eos_token_id, *_config_eos(model)) if i is not None}


def _config_eos(model: nn.Module) -> list[int]:
    value = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
