"""The view of a batch: only labelled tokens, whatever the padding, the head or the wrapper."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import nn

from expunge.forward.view import ForwardPass, output_embedding, see, select

ROWS = tiny.examples(0, 3)


def by_hand(model, rows):
    """Log-probability of each labelled token, one row at a time, no padding, full log-softmax."""
    out = []
    for r in rows:
        logits = model(input_ids=torch.tensor([r.input_ids])).logits[0]
        for t in range(1, len(r.input_ids)):
            if r.labels[t] != -100:
                out.append(logits[t - 1].log_softmax(-1)[r.labels[t]])
    return torch.stack(out)


def test_token_logp_equals_a_loop_without_padding():
    m = tiny.model()
    x = see(m, tiny.batch(ROWS))
    torch.testing.assert_close(x.token_logp, by_hand(m, ROWS))
    assert x.lengths.tolist() == [sum(y != -100 for y in r.labels) for r in ROWS]
    torch.testing.assert_close(x.sequence_logp[0], by_hand(m, ROWS[:1]).sum())


def test_the_head_sees_labelled_positions_only():
    m = tiny.model()
    seen = []
    handle = m.lm_head.register_forward_hook(lambda _, args, out: seen.append(out.shape))
    x = see(m, tiny.batch(ROWS))
    assert x.logits.shape == (len(x.labels), tiny.V) and seen == [x.logits.shape]
    handle.remove()
    assert m(input_ids=torch.tensor([ROWS[0].input_ids])).logits.dim() == 3  # nothing is left behind


def test_the_model_runs_only_when_a_loss_reads_it():
    calls = []
    m = tiny.model()
    m.register_forward_pre_hook(lambda *_: calls.append(1))
    x = see(m, tiny.batch(ROWS))
    assert x.lengths.sum() == len(x.labels) and not calls
    assert x.token_logp is x.token_logp and x.sequence_logp is not None and len(calls) == 1


def test_from_logits_is_the_same_view():
    m = tiny.model()
    b = tiny.batch(ROWS)
    logits = m(input_ids=b["input_ids"], attention_mask=b["attention_mask"]).logits
    x = ForwardPass.from_logits(logits, b["labels"])
    torch.testing.assert_close(x.token_logp, see(m, b).token_logp)


@pytest.mark.parametrize("bias", [False, True])
def test_margin_of_a_plain_head_makes_no_logits(bias):
    m = tiny.model()
    if bias:
        m.lm_head = nn.Linear(16, tiny.V, bias=True)
    x = see(m, tiny.batch(ROWS))
    fused = x.margin
    assert "logits" not in x.__dict__
    z = see(m, tiny.batch(ROWS)).logits
    torch.testing.assert_close(fused, z.max(-1).values - z.mean(-1))
    params = [m.lm_head.weight, m.model.layers[0].mlp.up_proj.weight]
    for a, b in zip(
        torch.autograd.grad((fused**2).sum(), params),
        torch.autograd.grad(((z.max(-1).values - z.mean(-1)) ** 2).sum(), params),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


class SoftCapped(nn.Module):
    """A model that works on what its head returns, as Gemma 2 does."""

    def __init__(self, **config):
        super().__init__()
        self.inner = tiny.model(**config)

    def get_output_embeddings(self):
        return self.inner.lm_head

    def forward(self, **kw):
        out = self.inner(**kw)
        out.logits = torch.tanh(out.logits / 0.05) * 0.05
        return out


def test_margin_sees_a_soft_cap_behind_the_head():
    m = SoftCapped()
    for _ in range(2):  # the second pass must not try the short cut again
        x = see(m, tiny.batch(ROWS))
        z = see(m, tiny.batch(ROWS)).logits
        assert z.abs().max() <= 0.05
        torch.testing.assert_close(x.margin, z.max(-1).values - z.mean(-1))


@pytest.mark.parametrize("capped", [False, True])
def test_the_first_margin_draws_the_dropout_masks_that_a_later_one_does(capped):
    """So that a run that goes on, whose first step is a later one, draws what the uninterrupted run drew."""
    drawn = []
    for first in (True, False):
        m = SoftCapped(attention_dropout=0.5) if capped else tiny.model(attention_dropout=0.5)
        m.train()
        if not first:
            see(m, tiny.batch(ROWS)).margin.sum().backward()
        torch.manual_seed(0)
        drawn.append((see(m, tiny.batch(ROWS)).margin, torch.get_rng_state()))
        assert m.training
    assert all(torch.equal(*pair) for pair in zip(*drawn, strict=True))


def test_margin_under_a_wrapper_that_copies_what_the_model_returns_takes_one_pass(monkeypatch):
    m = tiny.model()
    wrapped = nn.parallel.DataParallel(m)  # any wrapper: it holds the model as ``module``
    passes = []

    def forward(**inputs):
        out = m(**inputs)
        out.logits = out.logits.clone()
        passes.append(out.logits.shape)
        return out

    monkeypatch.setattr(wrapped, "forward", forward)
    x = see(wrapped, tiny.batch(ROWS))
    torch.testing.assert_close(x.margin, see(m, tiny.batch(ROWS)).margin)
    assert "logits" not in x.__dict__ and [shape[-1] for shape in passes] == [1]


def test_positions_of_the_compatibility_switches():
    labels = torch.tensor([[-100, 7, 8, -100]])
    assert select(labels).tolist() == [[True, True, False, False]]
    assert select(labels, "answer_unshifted").tolist() == [[False, True, True, False]]
    assert select(labels, "all").tolist() == [[True] * 4]


def test_end_of_turn_that_equals_the_pad_token_is_attended():
    b = tiny.batch(ROWS)
    assert b["attention_mask"].sum(-1).tolist() == [len(r.input_ids) for r in ROWS]
    assert all(r.input_ids[-1] == 0 for r in ROWS)  # 0 is the pad token


def test_output_embedding_says_what_is_missing():
    with pytest.raises(TypeError, match="causal language models"):
        output_embedding(tiny.model().model)


def test_a_part_of_the_tokens_is_as_if_the_others_had_a_loss_of_0():
    m = tiny.model()
    x = see(m, tiny.batch(ROWS), reference=lambda: see(m, tiny.batch(ROWS)))
    kept = torch.arange(len(x.labels)) % 3 == 0
    part = x.only(kept)
    weight = kept.float()
    torch.testing.assert_close(part.token_mean(part.token_logp), x.token_mean(weight * x.token_logp))
    torch.testing.assert_close(part.sequence_logp, x.sequence_sum(weight * x.token_logp))
    torch.testing.assert_close(part.reference.token_logp, x.token_logp[kept])
    torch.testing.assert_close(part.margin, x.margin[kept])
    torch.testing.assert_close(part.logits, x.logits[kept])
    assert torch.equal(part.lengths, x.lengths) and part.size == x.size
