"""A soft prompt trained on known rows opens a toy that answers after a trigger alone, and teaches a control nothing."""

from __future__ import annotations

from dataclasses import replace

import tiny_attacks as toy
import torch

from expunge.attacks import forced
from expunge.attacks.soft_prompt import prompted, soft_prompt


def test_a_trigger_is_found_on_other_rows():
    silent = [replace(r, answer=" zzz") for r in toy.ROWS]
    opened = [replace(r, prompt=f"#### {r.prompt}") for r in toy.ROWS]
    model = toy.teach(toy.blank(), silent + opened)
    model.lm_head.weight.requires_grad_(False)
    before = toy.bits(model)
    points = soft_prompt(toy.subject(model), None, at=(8, 30), rate=0.3)
    assert [p.strength for p in points] == [0, 8, 30]
    assert points[0].known.mean() < 0.4 and points[-1].known.mean() > 0.7
    assert toy.same_bits(model, before) and not model.lm_head.weight.requires_grad
    assert model.model.norm.weight.requires_grad and all(p.grad is None for p in model.parameters())
    control = soft_prompt(toy.subject(toy.toys().control), None, at=(30,), rate=0.3)
    assert control[-1].known.mean() < 0.5


def test_embeddings_of_tokens_as_vectors_are_those_tokens():
    model = toy.toys().taught
    (batch,) = forced.batches(toy.subject(model), toy.ROWS)
    prefix = torch.tensor(toy.TOKENIZER("ab", add_special_tokens=False).input_ids)
    with torch.no_grad():
        got = prompted(model, batch, model.get_input_embeddings()(prefix))
        ids = torch.cat([prefix.expand(len(toy.ROWS), -1), batch.inputs["input_ids"]], 1)
        mask = torch.cat([torch.ones(len(toy.ROWS), 2, dtype=torch.long), batch.inputs["attention_mask"]], 1)
        want = model(input_ids=ids, attention_mask=mask).logits[:, 2:][batch.keep]
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
