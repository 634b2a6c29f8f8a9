r"""Logit lens: whether the answer stands in the middle of a model whose last layers hide it.

The model ends after layer l, with its own last norm and output embedding; the figure of a row is the share of its
answer's tokens (teacher-forced) that are the likeliest there.  nostalgebraist 2020; as an attack Patil et al. 2023,
arXiv:2309.17410.

Cost: (layers tried + 1) / 2 forward passes over the rows.
"""

from __future__ import annotations

import numpy as np

from expunge.attacks.attack import Attack, Measure, Point, Subject
from expunge.attacks.forced import batches, hits, spread
from expunge.attacks.restore import evaluated
from expunge.forward.family import unwrap
from expunge.forward.layers import decoder_layers, up_to

LAYERS = 8


def logit_lens(subject: Subject, measure: Measure, *, layers: int = LAYERS) -> list[Point]:
    """The model's own output, then after each of ``layers`` layers (strength: the share of the layers), then the best of
    them, row by row.
    """
    model = subject.model
    with evaluated(model):
        forced = batches(subject, subject.forget)
        points = [Point(0, "output", hits(model, forced))]
        number = len(decoder_layers(unwrap(model))[2])
        for layer in spread(number, layers)[:-1]:  # after the last one is the output
            with up_to(unwrap(model), layer):
                points.append(Point((layer + 1) / number, f"after layer {layer + 1}", hits(model, forced)))
    return [*points, Point(1, "best layer", np.max([p.known for p in points], axis=0))]


ATTACKS = (Attack("logit-lens", "inside", "the answer read off earlier layers", logit_lens, unit="share of layers"),)
