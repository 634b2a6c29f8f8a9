"""What is cached of a model's predictions, against a softmax."""

from __future__ import annotations

import pytest
import torch

from expunge.training.predictions import LIKELIEST, Calibration, packed, unpacked


@pytest.mark.parametrize(
    "how", [Calibration(1.0, 0.0), Calibration(0.6, 0.0), Calibration(0.6, 1.5), Calibration(2.0, -1.0)]
)
def test_the_label_and_the_likeliest_tokens(how):
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(5, 50), torch.tensor([0, 7, 7, 49, 3])
    logits[1, 7] = 20.0  # known by heart
    p = (logits.double() / how.temperature).softmax(-1)
    own = p.gather(1, labels[:, None])
    odds = own / (1 - own) / torch.tensor(how.shift).double().exp()
    p = p * (1 - odds / (1 + odds)) / (1 - own)
    p.scatter_(1, labels[:, None], odds / (1 + odds))
    torch.testing.assert_close(p.sum(-1), torch.ones(5).double())
    logp, (tokens, of_tokens) = unpacked(packed(logits, labels, how))
    torch.testing.assert_close(logp.double(), p.gather(1, labels[:, None])[:, 0].log(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        of_tokens.double(), p.gather(1, tokens).log(), atol=0.1, rtol=0
    )  # row 1: of 1 - p = 1e-7
    keep = torch.tensor([0, 2, 3, 4])
    torch.testing.assert_close(of_tokens[keep].double(), p.gather(1, tokens)[keep].log(), atol=1e-5, rtol=1e-4)
    assert tokens.shape == (5, LIKELIEST) and torch.equal(tokens, logits.topk(LIKELIEST, -1).indices)


def test_a_small_vocabulary_is_cached_whole():
    _, (tokens, logp) = unpacked(packed(torch.randn(2, 9), torch.tensor([1, 2])))
    assert tokens.shape == (2, 9)
    torch.testing.assert_close(logp.exp().sum(-1), torch.ones(2))
