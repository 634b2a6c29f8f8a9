"""Text embeddings, for diversity and for the relevance of a text to a topic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from expunge.errors import InputError
from expunge.forward.view import logits_at

Embed: TypeAlias = Callable[[Sequence[str]], np.ndarray]  # n texts -> (n, D)
TOKENS = 2048  # of a batch, padding included
LENGTH = 256  # tokens of a text, the others are cut off


def hidden_states(model: nn.Module, tokenizer: Any) -> Embed:
    """The mean of a model's last hidden states over the tokens of a text, without a prompt; an empty text is zeros."""

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> np.ndarray:
        model.eval()
        device = next(model.parameters()).device
        ids = [tokenizer(t, add_special_tokens=True, truncation=True, max_length=LENGTH).input_ids for t in texts]
        width = model.config.get_text_config().hidden_size  # type: ignore[union-attr, operator]
        out = np.zeros((len(texts), width), np.float32)
        for rows in _batches(ids):
            longest = max(len(ids[i]) for i in rows)
            pad = int(tokenizer.pad_token_id)
            padded = torch.tensor([ids[i] + [pad] * (longest - len(ids[i])) for i in rows], device=device)
            mask = torch.tensor([[1] * len(ids[i]) + [0] * (longest - len(ids[i])) for i in rows], device=device)
            first = torch.zeros_like(mask, dtype=torch.bool)
            first[:, 0] = True  # the head needs at least one position
            _, output = logits_at(
                model, first, input_ids=padded, attention_mask=mask, use_cache=False, output_hidden_states=True
            )
            states = output.hidden_states[-1].float() * mask[:, :, None]  # (B, T, D)
            out[rows] = (states.sum(1) / mask.sum(1, keepdim=True)).cpu().numpy()
        return out

    return embed


def cached(embed: Embed) -> Embed:
    """``embed`` with a cache: no text is embedded twice."""
    vectors: dict[str, np.ndarray] = {}

    def cached_embed(texts: Sequence[str]) -> np.ndarray:
        new = [t for t in dict.fromkeys(texts) if t not in vectors]
        if new:
            vectors.update(zip(new, embed(new), strict=True))
        return np.stack([vectors[t] for t in texts])

    return cached_embed


def sentence_transformer(name: str) -> Embed:
    """The embeddings of a sentence-transformers model, by its hub name or folder (``pip install 'expunge[embeddings]'``)."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise InputError("sentence-transformers is not installed: pip install 'expunge[embeddings]'") from None
    try:
        encoder = SentenceTransformer(name)
    except (OSError, ValueError) as error:
        raise InputError(f"{name} cannot be loaded by sentence-transformers: {str(error).splitlines()[0]}") from error
    return lambda texts: np.asarray(encoder.encode(list(texts), show_progress_bar=False), np.float32)


def topic_relevance(
    embed: Embed, about: Sequence[str], neutral: Sequence[str]
) -> Callable[[Sequence[str]], np.ndarray]:
    r"""Position of a text between ``neutral`` texts (0) and texts ``about`` the topic (1).

    .. math:: r(y) = \operatorname{clip}_{[0,1]} \frac{\langle e(y) - \mu_0,\ \mu_1 - \mu_0 \rangle}
              {\lVert \mu_1 - \mu_0 \rVert^2}

    with μ₁ and μ₀ the mean embeddings of the two.  A cosine with the topic's own embedding would not do: all texts of a
    language model lie in one narrow cone, and the cone is what such a cosine measures.

    Raises InputError if one of the two is empty or their means are equal.

    >>> at = {"sea": (0.0, 2.0), "tax": (0.0, 0.0), "harbour": (3.0, 1.0)}
    >>> relevance = topic_relevance(lambda texts: np.array([at[t] for t in texts]), ["sea"], ["tax"])
    >>> relevance(["harbour", "sea"]).tolist()
    [0.5, 1.0]
    """
    if not about or not neutral:
        raise InputError("a topic needs texts about it and texts about anything else")
    centre = embed(neutral).mean(0)
    direction = embed(about).mean(0) - centre
    squared_length = float(direction @ direction)
    if not squared_length > 0:
        raise InputError("the texts about the topic cannot be told from the neutral ones; describe it otherwise")

    def relevance(texts: Sequence[str]) -> np.ndarray:
        if not texts:
            return np.zeros(0)
        result: np.ndarray = np.clip((embed(texts) - centre) @ direction / squared_length, 0.0, 1.0)
        return result

    return relevance


def _batches(ids: Sequence[Sequence[int]]) -> list[list[int]]:
    """The rows that are not empty, of like length together."""
    out: list[list[int]] = []
    for i in sorted((i for i, row in enumerate(ids) if row), key=lambda i: len(ids[i]), reverse=True):
        if not out or (len(out[-1]) + 1) * len(ids[out[-1][0]]) > TOKENS:
            out.append([])
        out[-1].append(i)
    return out
