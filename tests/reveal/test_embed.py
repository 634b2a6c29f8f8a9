"""Texts as vectors, and how near they are to a topic."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tiny
import torch

from expunge.errors import InputError
from expunge.reveal import embed


def test_an_embedding_is_the_mean_of_the_last_hidden_states(tokenizer):
    model = tiny.model(vocab_size=len(tokenizer))
    texts = ["Ada", "", "a much longer text", "Bo lives"]
    vectors = embed.hidden_states(model, tokenizer)(texts)
    assert vectors.shape == (4, 16) and not vectors[1].any()
    for text, row in zip(texts, vectors, strict=True):
        if text:
            states = model(torch.tensor([tokenizer(text).input_ids]), output_hidden_states=True).hidden_states[-1][0]
            assert np.allclose(row, states.mean(0).detach().numpy(), atol=1e-5)


def test_batches_do_not_change_an_embedding(tokenizer, monkeypatch):
    encode = embed.hidden_states(tiny.model(vocab_size=len(tokenizer)), tokenizer)
    texts = ["a", "bbbbb", "cc", "dddddddd"]
    whole = encode(texts)
    monkeypatch.setattr(embed, "TOKENS", 1)
    assert np.allclose(encode(texts), whole, atol=1e-6)


def test_no_text_is_read_twice():
    read = []

    def count(texts):
        read.extend(texts)
        return np.array([[len(t), 1.0] for t in texts])

    encode = embed.cached(count)
    assert encode(["a", "bb", "a"]).tolist() == [[1, 1], [2, 1], [1, 1]]
    assert encode(["bb", "ccc"]).tolist() == [[2, 1], [3, 1]]
    assert read == ["a", "bb", "ccc"]


PLACES = {
    "tax": (1.0, 1.0),
    "law": (1.0, 3.0),
    "sea": (5.0, 2.0),
    "half": (3.0, 9.0),
    "far": (9.0, 2.0),
    "back": (-4.0, 0.0),
}


def at(texts):
    return np.array([PLACES[t] for t in texts])


def test_relevance_to_a_topic_by_hand():
    """Neutral mean (1, 2), topic (5, 2): only the first coordinate counts, from 0 at 1 to 1 at 5."""
    near = embed.topic_relevance(at, ["sea"], ["tax", "law"])
    assert near(["tax", "law", "half", "sea", "far", "back"]).tolist() == [0, 0, 0.5, 1, 1, 0]
    assert near([]).shape == (0,)


@pytest.mark.parametrize(("about", "neutral"), [([], ["tax"]), (["sea"], []), (["sea"], ["sea"])])
def test_a_topic_that_cannot_be_told_apart_is_told(about, neutral):
    with pytest.raises(InputError, match="topic"):
        embed.topic_relevance(at, about, neutral)


def test_sentence_transformers_that_are_not_installed_are_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(InputError, match=r"pip install 'expunge\[embeddings\]'"):
        embed.sentence_transformer("some/encoder")
