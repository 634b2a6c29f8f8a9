"""A mask is left out only where the model's logits at real tokens are the same without it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny
import torch
from torch import nn

from expunge.forward import padding

ROWS = ((5, 9, 3, 7, 2, 8), (4, 6, 1))
ASKED = tuple(range(1, 31))  # the text that a model is asked about


def batch(side: str | None) -> dict[str, object]:
    """``ROWS`` padded with token 0 on ``side``, of which the batch says nothing where that is None (it is the left)."""
    width = max(map(len, ROWS))
    gaps = [[0] * (width - len(row)) for row in ROWS]
    both = [(list(row), gap) for row, gap in zip(ROWS, gaps, strict=True)]
    right = side == "right"
    ids = torch.tensor([row + gap if right else gap + row for row, gap in both])
    mask = torch.tensor(
        [[1] * len(row) + [0] * len(gap) if right else [0] * len(gap) + [1] * len(row) for row, gap in both]
    )
    return {"input_ids": ids, "attention_mask": mask} | ({"padding": side} if side else {})


def gap(model: nn.Module, b: dict[str, object]) -> float:
    """The largest difference of the logits at real tokens, as :func:`padding.run` gives them and with the mask."""
    masked = model(input_ids=b["input_ids"], attention_mask=b["attention_mask"]).logits
    return float(((padding.run(model, b).logits - masked).abs() * b["attention_mask"][:, :, None]).max().detach())


class SeesAhead(nn.Module):
    """Logits of a token from all tokens that the mask lets it see, those behind it included."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(tiny.V, tiny.V)

    def forward(self, input_ids, attention_mask=None, **_):
        seen = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        vectors = self.embed(input_ids)
        mean = (vectors * seen[:, :, None]).sum(1, keepdim=True) / seen.sum(1)[:, None, None]
        return SimpleNamespace(logits=vectors + mean)


class Counted(nn.Module):
    """A model that notes whether it was given a mask."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.masks = model, []

    def forward(self, attention_mask=None, **inputs):
        self.masks.append(attention_mask is not None)
        return self.model(attention_mask=attention_mask, **inputs)


def test_a_causal_model_runs_right_padding_without_a_mask():
    model = Counted(tiny.model().eval())
    padding.settle(model, ASKED)
    model.masks.clear()
    padding.run(model, batch("right"))
    assert model.masks == [False]
    assert gap(model, batch("right")) < 1e-5


@pytest.mark.parametrize("side", ["left", None])
def test_any_other_padding_keeps_its_mask(side):
    model = Counted(tiny.model().eval())
    padding.settle(model, ASKED)
    model.masks.clear()
    padding.run(model, batch(side))
    assert model.masks == [True]


def test_a_model_that_sees_ahead_keeps_its_mask():
    torch.manual_seed(0)
    model = SeesAhead()
    padding.settle(model, ASKED)
    assert gap(model, batch("right")) == 0
    setattr(model, padding.KEY, True)  # as if it had passed: then its padding is seen
    assert gap(model, batch("right")) > 0.1


def test_a_model_that_was_not_asked_or_fails_without_a_mask_keeps_it():
    model = Counted(tiny.model().eval())
    padding.run(model, batch("right"))
    assert model.masks == [True]

    class NeedsMask(SeesAhead):
        def forward(self, input_ids, attention_mask, **_):
            return super().forward(input_ids, attention_mask)

    needs = NeedsMask()
    padding.settle(needs, ASKED)
    assert gap(needs, batch("right")) == 0 and needs.training
