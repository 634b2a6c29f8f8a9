"""Texts that begin alike are run once as far as they do, and are scored as if each were run alone."""

from __future__ import annotations

import random

import pytest
import tiny
import torch

from expunge.data.example import Row
from expunge.evaluation.collect import score
from expunge.evaluation.collect.facts import fields
from expunge.evaluation.probe import Ask, Probe


def coded(prompt, texts, asks=True):
    return score.Coded(Probe("f", 0, Row("p", "a"), ask=Ask()), prompt, tuple(map(str, range(len(texts)))), texts, asks)


def greedy(model, prompt, n):
    ids = list(prompt)
    for _ in range(n):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return tuple(ids[len(prompt) :])


@torch.no_grad()
@pytest.mark.parametrize("seed", range(10))
def test_texts_that_begin_alike_are_scored_as_whole_ones(seed, monkeypatch):
    draw = random.Random(seed)
    monkeypatch.setattr(score, "CPU_TOKENS", draw.choice((1, 20, 256)))
    model = tiny.model(seed, initializer_range=0.3).eval()
    batch = []
    for _ in range(4):
        prompt = tuple(draw.choices(range(2, 32), k=draw.randint(1, 9)))
        texts = [greedy(model, prompt, 12)]
        for _ in range(6):
            begin = draw.choice(texts)
            texts.append(begin[: draw.randint(0, len(begin))] + tuple(draw.choices(range(2, 32), k=draw.randint(0, 5))))
        batch.append(coded(prompt, tuple(t for t in texts[draw.randint(0, 1) :] if t)))
    token_counts = []
    model.get_input_embeddings().register_forward_hook(lambda _, args, __: token_counts.append(args[0].numel()))
    reused, met = score.run_reusing(model, batch, 0, None)
    ours = sum(token_counts)
    for a, b in zip(reused, score.run_whole(model, batch, 0)[0], strict=True):
        for x, y in zip(fields(a), fields(b), strict=True):
            torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)
    assert ours < sum(token_counts) - ours
    for c, m in zip(batch, met, strict=True):
        own = greedy(model, c.prompt, max(len(m.said), *map(len, c.texts)))
        assert m.said == own[: len(m.said)]
        assert len(m.said) >= max(min(len(t), agreed(t, own[: len(t)]) + 1) for t in c.texts)
        (single,) = score.run_reusing(model, [coded(c.prompt + m.said[:-1], ())], 0, None)[1]
        for (keys, values), (k, v) in zip(m.keys, single.keys, strict=True):
            torch.testing.assert_close(keys, k, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(values, v, atol=1e-5, rtol=1e-5)


def agreed(text, own):
    return next((t for t, (a, b) in enumerate(zip(text, own, strict=True)) if a != b), len(text))


def test_a_text_goes_on_from_the_one_most_like_it():
    long, second, short = (1, 2, 3, 4, 5, 6, 7, 8), (1, 2, 3, 4, 9, 9, 9), (1, 2, 3, 4, 9, 9)
    other, begin = (1, 2, 3, 5, 5), (1, 2, 3, 4)
    batch = [coded((3,), (other, (7,))), coded((3,), (short, long, other, second, begin, long))]
    assert score._branches(batch) == {3: {5: 4, 6: 4, 7: 8}, 5: {2: 6}}


@torch.no_grad()
def test_what_texts_share_is_run_once():
    model = tiny.model().eval()
    inputs = []
    model.get_input_embeddings().register_forward_hook(lambda _, args, __: inputs.append(args[0].tolist()))
    score.run_reusing(model, [coded((30, 31), ((1, 2, 3, 4, 5, 6, 7), (1, 2, 3, 4, 9, 8), (1, 2, 3, 4)))], 0, None)
    assert inputs == [[[30, 31]], [[1, 2, 3, 4, 5, 6]], [[4, 9]]], (
        "the last shared token again, for what comes after it"
    )
