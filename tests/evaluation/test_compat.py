"""OpenUnlearning's row where pad is the end token: tokens, mask and labels by hand, the probability from plain logits."""

from __future__ import annotations

import math

import pytest
import tiny
import torch

from expunge.errors import InputError
from expunge.evaluation.compat import openunlearning_probability, openunlearning_row


def test_the_mask_hides_every_end_of_turn_and_a_second_end_is_labelled(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<a>{% endif %}"
    )
    end = tokenizer.eos_token_id
    assert tokenizer.pad_token_id == end
    row = openunlearning_row("Q?", "Yes", tokenizer)
    text = [
        *tokenizer("<u>Q?", add_special_tokens=False).input_ids,
        end,
        *tokenizer("\n<a>", add_special_tokens=False).input_ids,
    ]
    answer = [
        *tokenizer("Yes", add_special_tokens=False).input_ids,
        end,
        *tokenizer("\n", add_special_tokens=False).input_ids,
        end,
    ]
    assert list(row.input_ids) == text + answer
    assert [i for i, m in enumerate(row.attention_mask) if not m] == [
        i for i, t in enumerate(text + answer) if t == end
    ]
    assert len([m for m in row.attention_mask if not m]) == 3  # the prompt's, the answer's, and one more
    assert list(row.labels) == [-100] * len(text) + answer


def test_the_probability_is_that_of_plain_logits_under_that_mask(tokenizer):
    model = tiny.model(vocab_size=len(tokenizer)).eval()
    row = openunlearning_row("Where?", "Oru", tokenizer)
    with torch.no_grad():
        out = model(torch.tensor([row.input_ids]), attention_mask=torch.tensor([row.attention_mask])).logits[0]
    logp = [float(out[t - 1].log_softmax(-1)[y]) for t, y in enumerate(row.labels) if y != -100]
    (found,) = openunlearning_probability(model, tokenizer, [("Where?", "Oru")])
    assert found == pytest.approx(math.exp(sum(logp) / len(logp)), rel=1e-5)
    with torch.no_grad():
        seen = model(torch.tensor([row.input_ids])).logits[0]
    assert not torch.allclose(out[-2], seen[-2])  # the mask matters


def test_a_tokenizer_without_a_template_is_refused(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        openunlearning_row("Q?", "A", tokenizer)
