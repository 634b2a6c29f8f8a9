"""A GGUF round trip undoes a mask that is thinner than its rounding, and leaves nothing behind."""

from __future__ import annotations

import copy
import tempfile

import pytest
import tiny_attacks as toy
import torch

from expunge.attacks.gguf_file import round_trip
from expunge.attacks.restore import matrices, replaced
from expunge.errors import InputError
from expunge.models import gguf_write

gguf = pytest.importorskip("gguf")
MEASURE = toy.known_of(toy.FORGET)


def q4(weight: torch.Tensor) -> torch.Tensor:
    kind = gguf.GGMLQuantizationType.Q4_0
    return torch.from_numpy(gguf.dequantize(gguf.quantize(weight.numpy(), kind), kind).copy())


def test_rounding_of_a_file_undoes_a_thin_mask(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = copy.deepcopy(toy.toys().taught)
    replaced(matrices(model), lambda _, w: q4(w))
    assert MEASURE(model).mean() > 0.9
    room = {}
    for name, p in matrices(model).items():
        blocks = p.detach().flatten().view(-1, 32)
        step = blocks.abs().amax(1, keepdim=True) / 8
        room[name] = torch.where(blocks.abs() < 7.5 * step, 0.45 * step, 0.0).view_as(p)
    hidden = toy.masked(model, room)
    assert MEASURE(hidden).mean() < 0.5
    before = toy.bits(hidden)
    points = round_trip(toy.subject(hidden), MEASURE)
    assert [(p.label, p.strength) for p in points] == [("GGUF Q8_0", 1 / 8), ("GGUF Q4_0", 1 / 4)]
    assert points[1].known.mean() >= MEASURE(model).mean() - 0.1
    assert toy.same_bits(hidden, before) and list(tmp_path.iterdir()) == []
    assert round_trip(toy.subject(toy.toys().control), MEASURE)[1].known.mean() < 0.5


def test_the_package_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(gguf_write.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"expunge\[gguf\]"):
        round_trip(toy.subject(toy.toys().taught), MEASURE)
