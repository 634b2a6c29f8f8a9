"""What a model says of right answers, against transformers' own forward pass on one row at a time."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_attacks as toy
import torch

from expunge.attacks import forced
from expunge.data.chat import encode
from expunge.data.example import Row
from expunge.errors import InputError


def test_tokens_of_each_row_without_the_end_token():
    model = toy.toys().taught
    got = forced.batches(toy.subject(model), toy.ROWS, size=3)
    assert [b.start for b in got] == [0, 3, 6]
    logp = forced.per_row(got, lambda b: forced.token_logp(model, b))
    for row, value in zip(toy.ROWS, logp, strict=True):
        e = encode(row, toy.TOKENIZER)
        with torch.no_grad():
            z = model(input_ids=torch.tensor([e.input_ids])).logits[0].log_softmax(-1)
        places = [t for t in range(1, len(e.labels)) if e.labels[t] != -100][:-1]
        assert value == pytest.approx(float(np.mean([float(z[t - 1, e.input_ids[t]]) for t in places])), abs=1e-4)
    assert forced.hits(model, got).tolist() == [1.0] * 8


def test_a_row_without_an_answer_is_named():
    with pytest.raises(InputError, match=r"here\.jsonl, line 2: there is no answer"):
        forced.batches(toy.subject(toy.blank()), [toy.ROWS[0], Row("Who?", "", where="here.jsonl, line 2")])


def test_conversations_as_the_subject_says():
    row = Row(({"role": "user", "content": "Who?"},), "Ada")
    texts = {}
    for template in (None, True, False):
        (batch,) = forced.batches(toy.subject(toy.blank(), chat_template=template), [row])
        texts[template] = toy.TOKENIZER.decode(batch.inputs["input_ids"][0])
    assert texts[None] == texts[True] == "<|user|>Who?<|end|>\n<|assistant|>Ada<|end|>"
    assert texts[False].startswith("Question: Who?\nAnswer: Ada")
    bare = toy.Subject(None, object(), [])
    assert not bare.templated and toy.Subject(None, toy.TOKENIZER, []).templated
