"""Shared leading tokens are run once and change nothing."""

from __future__ import annotations

import pytest
import tiny
import torch
from transformers import LlamaForCausalLM

from expunge.data.example import Example
from expunge.forward import prefix
from expunge.forward.view import IGNORE, hidden_at, see

COMMON = tuple(range(5, 15))  # 10 tokens


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(prefix, "MIN_SAVED_TOKENS", 8)  # these rows are short


@pytest.mark.parametrize(
    ("ids", "labels", "expected"),
    [
        ([range(20), range(20)], [[IGNORE] * 12 + [1] * 8] * 2, 11),  # position 11 predicts the first label
        ([range(20), [*range(9), 99, *range(10, 20)]], [[IGNORE] * 12 + [1] * 8] * 2, 9),  # until they differ
        ([range(20), range(10)], [[IGNORE] * 15 + [1] * 5, [IGNORE] * 9 + [1]], 8),  # the earliest label counts
        ([range(20), range(7)], [[IGNORE] * 20, [IGNORE] * 7], 0),  # seven saved are not worth it
        ([range(20), range(7), range(7)], [[IGNORE] * 20, *[[IGNORE] * 7] * 2], 6),  # twelve are
        ([range(20), range(20)], [[1] * 20] * 2, 0),  # plain text is labelled from the start
        ([range(20)], [[IGNORE] * 12 + [1] * 8], 0),  # alone
    ],
)
def test_how_much_is_shared(ids, labels, expected):
    assert prefix.shared([list(i) for i in ids], labels, IGNORE) == expected


def rows() -> list[Example]:
    """Four rows of unequal length that begin with the same ten tokens."""
    tails = [tiny.example(i, prompt=3) for i in range(4)]
    return [Example(COMMON + t.input_ids, (IGNORE,) * len(COMMON) + t.labels) for t in tails]


def tokens_seen(m) -> list[int]:
    seen: list[int] = []
    m.get_input_embeddings().register_forward_hook(lambda _, args, __: seen.append(args[0].numel()))
    return seen


@pytest.mark.parametrize("read", ["token_logp", "margin"])
def test_value_and_gradient_are_those_of_the_whole_batch(read):
    batch = tiny.batch(rows())
    assert batch["prefix"] == len(COMMON)
    results = []
    for shared in (0, batch["prefix"]):
        m = tiny.model()
        getattr(see(m, tiny.batch(rows())), read)  # the model is asked whether it can
        seen = tokens_seen(m)
        value = getattr(see(m, {**batch, "prefix": shared}), read)
        (value**2).sum().backward()
        results.append((value.detach(), torch.cat([p.grad.flatten() for p in m.parameters()])))
        width = batch["input_ids"].shape[1]
        assert sum(seen) == (shared + 4 * (width - shared) if shared else 4 * width)
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_hidden_states_at_labelled_tokens():
    m, batch = tiny.model(), tiny.batch(rows())
    hidden = hidden_at(m, batch)
    torch.testing.assert_close(m.lm_head(hidden), see(m, {**batch, "prefix": 0}).logits)


class Forgetful(LlamaForCausalLM):
    """Takes a cache and does not read it."""

    def forward(self, *args, past_key_values=None, **kw):
        return super().forward(*args, **kw)


class Narrow(LlamaForCausalLM):
    """Takes no cache at all."""

    def forward(self, input_ids, attention_mask, use_cache):
        if use_cache:
            raise ValueError("there is no cache")
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)


@pytest.mark.parametrize("kind", [Forgetful, Narrow])
def test_a_model_that_cannot_share_is_run_whole(kind):
    batch, plain = tiny.batch(rows()), tiny.model()
    m = kind(plain.config)
    m.load_state_dict(plain.state_dict())
    torch.testing.assert_close(see(m, batch).logits, see(plain, {**batch, "prefix": 0}).logits)
    assert prefix.usable(m, batch) == 0 and prefix.usable(plain, batch) == len(COMMON)


def test_gradient_checkpointing_switches_sharing_off():
    m = tiny.model()
    m.gradient_checkpointing_enable()
    assert prefix.usable(m, tiny.batch(rows())) == 0
