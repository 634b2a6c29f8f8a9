"""UDS: the retrained model has forgotten to the ground, the target not at all, a model with a new last layer only there."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import tiny_attacks as toy
import torch

from expunge.attacks import forced
from expunge.attacks.patching import kept, losses, patching
from expunge.errors import InputError


def test_the_formula_against_a_plain_loop():
    rng = np.random.default_rng(0)
    retrained, unlearned = rng.normal(0.3, 1, size=(2, 6, 5))
    retrained[:, 4] = 0.04  # no layer counts
    got = kept(retrained, unlearned)
    for i in range(5):
        layers = [k for k in range(6) if retrained[k, i] > 0.05]
        if not layers:
            assert got[i] == 0
            continue
        above = sum(retrained[k, i] * min(max(unlearned[k, i] / retrained[k, i], 0), 1) for k in layers)
        assert got[i] == pytest.approx(1 - above / sum(retrained[k, i] for k in layers))


def test_target_retrained_and_a_shallow_mask():
    target, retrained = toy.toys().taught, toy.toys().control
    shallow = copy.deepcopy(target)
    with torch.no_grad():
        shallow.model.layers[1].mlp.down_proj.weight.normal_(0, 3, generator=torch.Generator().manual_seed(0))

    def known(model):
        return patching(toy.subject(model, target=target, retrained=retrained), None)

    assert [p.label for p in known(target)] == ["last layer", "all layers"]
    assert all(p.known == pytest.approx([1.0] * 4) for p in known(target))
    assert all(p.known == pytest.approx([0.0] * 4) for p in known(retrained))
    before = toy.bits(target)
    output, depth = known(shallow)
    assert depth.known.mean() > output.known.mean() + 0.1
    assert toy.same_bits(target, before) and not target.model.layers[0]._forward_hooks


def test_a_layer_patched_with_a_model_of_its_own_loses_nothing():
    """And the last one patched with another model says what that one's last states say through the target's head."""
    target, other = toy.toys().taught, toy.toys().control
    (batch,) = forced.batches(toy.subject(target), toy.FORGET)
    assert np.abs(losses(target, target, batch, [0, 1])).max() < 1e-5
    with torch.no_grad():
        raw = {}
        handle = other.model.layers[1].register_forward_hook(lambda _, __, out: raw.update(h=out))
        other(**batch.inputs)
        handle.remove()
        hidden = raw["h"][0] if isinstance(raw["h"], tuple) else raw["h"]
        z = target.lm_head(target.model.norm(hidden)).log_softmax(-1)[batch.keep]
        want = forced.token_logp(target, batch) - z.gather(1, batch.labels[:, None]).squeeze(1)
    assert losses(target, other, batch, [1])[0] == pytest.approx(forced.by_row(batch, want), abs=1e-4)


def test_models_of_other_shapes_are_refused():
    import tiny

    small = tiny.model(vocab_size=len(toy.TOKENIZER), num_hidden_layers=1)
    with pytest.raises(InputError, match="layers and width"):
        patching(toy.subject(toy.toys().taught, target=small, retrained=small), None)
