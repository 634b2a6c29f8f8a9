r"""TOFU's forget probability as OpenUnlearning's evaluator has it where the pad token is the end token (SmolLM2, GPT-2, …).

Its attention mask is ``input_ids != pad``, made after the row was tokenised: the end-of-turn tokens of the prompt are hidden
from the model.  And it appends an end token to the rendered conversation and labels all that follows the prompt: what the
template writes after the answer's end of turn, and that second end token.  Both lower the probability of a model that knows
its answers.  Our own figure attends to every real token and labels the answer up to its first end of turn
(``forget/probability``); this one exists to compare with numbers that were published.

Dorna et al. 2025, arXiv:2506.12618; the figure is that of Maini et al. 2024 (TOFU), :math:`P(a|q)^{1/|a|}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from expunge.errors import InputError

IGNORE = -100


@dataclass(frozen=True)
class PaddedRow:
    """Tokens, attention mask and labels of one row, equally long."""

    input_ids: tuple[int, ...]
    attention_mask: tuple[int, ...]
    labels: tuple[int, ...]


def openunlearning_row(question: str, answer: str, tokenizer: Any, *, system: str | None = None) -> PaddedRow:
    """A question and its answer as OpenUnlearning's evaluator feeds them to a chat model.

    Raises InputError for a tokenizer without a chat template.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "the tokenizer has no chat template, so OpenUnlearning's mask cannot be made; use its own evaluator"
        )
    asked = [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": question}]
    before = _ids(tokenizer, asked, generate=True)
    whole = _ids(tokenizer, [*asked, {"role": "assistant", "content": answer}], generate=False)
    if whole[-1:] != [tokenizer.eos_token_id]:
        whole = [*whole, tokenizer.eos_token_id]
    mask = tuple(int(i != tokenizer.pad_token_id) for i in whole)
    labels = tuple(IGNORE if i < len(before) else token for i, token in enumerate(whole))
    return PaddedRow(tuple(whole), mask, labels)


def openunlearning_probability(
    model: Any, tokenizer: Any, rows: Sequence[tuple[str, str]], **named: Any
) -> list[float]:
    r"""The probability per token of each (question, answer) in ``rows``, a row at a time; ``named``: of the row.

    .. math:: \exp\Bigl(\tfrac{1}{|L|} \sum_{t \in L} \log p_\theta(x_t \mid x_{<t})\Bigr)
    """
    import torch

    out = []
    for question, answer in rows:
        row = openunlearning_row(question, answer, tokenizer, **named)
        ids = torch.tensor([row.input_ids], device=model.device)
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=torch.tensor([row.attention_mask], device=model.device)).logits
        labels = torch.tensor(row.labels[1:], device=model.device)
        loss = torch.nn.functional.cross_entropy(logits[0, :-1].float(), labels, ignore_index=IGNORE)
        out.append(float((-loss).exp()))
    return out


def _ids(tokenizer: Any, messages: Sequence[dict[str, str]], *, generate: bool) -> list[int]:
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=generate)
    return list(tokenizer(text, add_special_tokens=False).input_ids)
