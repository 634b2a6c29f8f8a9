"""The logit lens reads a layer before the one that hides the answer."""

from __future__ import annotations

import copy

import tiny_attacks as toy
import torch

from expunge.attacks.lens import logit_lens


def test_an_answer_that_the_last_layer_hides_is_read_before_it():
    early = copy.deepcopy(toy.toys().taught)
    over = copy.deepcopy(early.model.layers[1])
    early.model.layers = early.model.layers[:1]
    toy.teach(early, toy.ROWS)
    with torch.no_grad():
        for p in (over.mlp.down_proj.weight, over.self_attn.o_proj.weight):
            p.normal_(0, 3, generator=torch.Generator().manual_seed(0))  # a layer that writes the answer over
    hidden = copy.deepcopy(early)
    hidden.model.layers.append(over)
    before = toy.bits(hidden)
    points = logit_lens(toy.subject(hidden), None)
    assert [p.label for p in points] == ["output", "after layer 1", "best layer"]
    assert points[0].known.mean() < 0.4 and points[1].known.mean() > 0.9
    assert points[2].known.tolist() == [max(a, b) for a, b in zip(points[0].known, points[1].known, strict=True)]
    assert toy.same_bits(hidden, before) and len(hidden.model.layers) == 2
    control = logit_lens(toy.subject(toy.toys().control), None)
    assert control[-1].known.mean() < 0.5
