"""The small model that speaks TOFU: what of a row is learnt, and that it is."""

from __future__ import annotations

import random

import pytest
import torch
from perf import small_tofu

ROWS = [{"question": "Where is Kel?", "answer": "In Mu."}, {"question": "Who is Ada?", "answer": "Ada is a smith."}] * 8


@pytest.fixture(scope="module")
def tokenizer():
    return small_tofu.tokenizer_of(ROWS)


@pytest.mark.parametrize(("questions", "labels"), [(True, [-100, 6, 7, 8]), (False, [-100, -100, 7, 8])])
def test_the_question_is_learnt_or_not(questions, labels):
    made = small_tofu.padded([([5, 6], [7, 8]), ([5], [7])], questions)
    assert made["labels"][0].tolist() == labels and made["labels"][1].tolist() == [-100, 7, -100, -100]
    assert made["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_all_rows_are_in_the_batches_once():
    random.seed(0)
    pairs = [([i], [0] * (i % 5)) for i in range(50)]
    batches = small_tofu.in_batches(pairs, 4)
    assert sorted(p[0][0] for b in batches for p in b) == list(range(50)) and max(map(len, batches)) == 4


def test_it_learns(tokenizer, capsys):
    torch.manual_seed(0)
    model = small_tofu.fresh(len(tokenizer))
    small_tofu.teach(model, tokenizer, ROWS, epochs=4, batch=8, questions=False)
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert losses[-1] < losses[0] - 0.5
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "Q"}], tokenize=False)
    assert asked == "<user>Q<bot>"
