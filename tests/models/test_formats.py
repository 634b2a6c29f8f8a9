"""Whole weights under ``--dtype bfloat16``: float32 while they train, so that small steps land, bfloat16 in the files."""

from __future__ import annotations

import tiny
import torch
from safetensors.torch import load_file

from expunge import methods, unlearn
from expunge.models.formats import in_format
from expunge.models.load import load

FAST = {"use_cpu": True, "disable_tqdm": True, "method": "grad_diff", "fluency_rows": 0}


def test_a_step_of_1e_5_lands():
    """bfloat16 has 8 bits: next to a weight of 0.02 it has no other number within 6e-5, so a step of 1e-5 would be lost."""
    moved = {}
    for dtype in (torch.float32, torch.bfloat16):
        m = tiny.model().to(torch.bfloat16).to(dtype)
        start = {n: p.detach().clone() for n, p in m.named_parameters()}
        kw = {"learning_rate": 1e-5, "optim": "adamw_torch", "max_steps": 1, "weight_decay": 0.0}
        tiny.trainer(methods.grad_diff(), m=m, **kw).train()
        steps = torch.cat([(p.detach().float() - start[n].float()).abs().flatten() for n, p in m.named_parameters()])
        moved[dtype] = ((steps > 0.5e-5) & (steps < 1.5e-5)).float().mean().item()
    assert moved[torch.float32] > 0.8  # Adam's first step has the learning rate's length
    assert moved[torch.bfloat16] < 0.2  # what is avoided


def test_whole_weights_are_saved_in_the_format_that_was_asked_for(workplace):
    done = unlearn(
        "model", forget="forget.jsonl", retain="retain.jsonl", dtype="bfloat16", max_steps=2, lr=1e-3, **FAST
    )
    stored = load_file(workplace / "unlearned" / "model" / "model.safetensors")
    assert {v.dtype for v in stored.values()} == {torch.bfloat16}
    again = load("unlearned/model").model.state_dict()
    held = done.model.state_dict()
    assert {v.dtype for v in held.values()} == {torch.float32}
    assert all(torch.equal(held[k], again[k]) for k in again)  # what was measured is what was saved
    assert done.record["output"]["dtype"] == "float32" and not done.record.get("failed")
    start = load("model").model.state_dict()
    assert any(not torch.equal(start[k].to(torch.bfloat16), stored[k]) for k in stored)


def test_a_format_holds_only_while_it_is_open():
    m = tiny.model(tie_word_embeddings=True)
    buffers = {n: b.clone() for n, b in m.named_buffers()}
    with in_format(m, torch.bfloat16):
        assert m.dtype == torch.bfloat16 and m.lm_head.weight is m.model.embed_tokens.weight
    assert m.dtype == torch.float32
    assert all(torch.equal(b, buffers[n]) for n, b in m.named_buffers())  # the positions' frequencies are no weights
    with in_format(m, None):
        assert m.dtype == torch.float32
