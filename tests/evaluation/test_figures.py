"""Probability, loss, truth ratio and ROUGE-L against a loop without padding and numbers by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from expunge.data.chat import encode, prompt_ids
from expunge.data.example import Row
from expunge.data.sources import load_rows
from expunge.evaluation import figures
from expunge.evaluation.collect.one_pass import collect
from expunge.evaluation.table import Collected, Generated, Scored
from expunge.generation import greedy as generate

ROWS = load_rows(
    [
        {
            "question": "Who?",
            "answer": "Ada.",
            "paraphrased_answer": "It is Ada.",
            "perturbed_answer": ["Bo did.", "Cy."],
        },
        {
            "question": "Where is it?",
            "answer": "In Oru town.",
            "paraphrased_answer": "Oru.",
            "perturbed_answer": ["Lim.", "At Tar."],
        },
    ]
)


def mean_logp(m, tokenizer, row, answer=None):
    e = encode(row, tokenizer, answer=answer)
    lp = m(torch.tensor([e.input_ids])).logits[0].log_softmax(-1)
    own = [lp[t - 1, y].item() for t, y in enumerate(e.labels) if y != -100]
    return sum(own) / len(own), len(own)


def run_figures(m, tokenizer, rows, **options):
    return figures.figures(collect(m, tokenizer, figures.probes("forget", rows, **options)), "forget")


def test_figures_equal_a_plain_loop(tokenizer):
    m = tiny.model(vocab_size=len(tokenizer)).eval()
    got = run_figures(m, tokenizer, ROWS)
    own = [mean_logp(m, tokenizer, r) for r in ROWS]
    assert got["n"] == 2 and "rouge_l" not in got
    assert got["probability"] == pytest.approx(sum(math.exp(v) for v, _ in own) / 2, rel=1e-5)
    assert got["nll"] == pytest.approx(-sum(v * n for v, n in own) / sum(n for _, n in own), rel=1e-5)
    ratios = []
    for r in ROWS:
        wrong = sum(mean_logp(m, tokenizer, r, w)[0] for w in r.perturbed) / len(r.perturbed)
        ratio = math.exp(wrong) / math.exp(mean_logp(m, tokenizer, r, r.paraphrase)[0])
        ratios.append(min(ratio, 1 / ratio))
    assert got["truth_ratio"] == pytest.approx(sum(ratios) / 2, rel=1e-5)


def test_no_truth_ratio_unless_every_row_has_wrong_answers(tokenizer):
    m = tiny.model(vocab_size=len(tokenizer))
    plain = load_rows([{"question": "Who?", "answer": "Ada."}])
    assert "truth_ratio" not in run_figures(m, tokenizer, plain) and "truth_ratio" not in run_figures(
        m, tokenizer, ROWS + plain
    )


def test_rows_may_have_different_numbers_of_wrong_answers(tokenizer):
    m = tiny.model(vocab_size=len(tokenizer)).eval()
    fewer = [ROWS[0], replace(ROWS[1], perturbed=ROWS[1].perturbed[:1])]
    alone = [run_figures(m, tokenizer, [r])["truth_ratio"] for r in fewer]
    assert run_figures(m, tokenizer, fewer)["truth_ratio"] == pytest.approx(sum(alone) / 2, rel=1e-5)


def test_rouge_l_is_of_the_rows_that_are_shown():
    pytest.importorskip("rouge_score")
    pairs = [("the cat sat", "a cat sat down"), ("red", "blue"), ("\u4f60\u597d", "never read")]
    answers = tuple(Generated("forget", i, "answer", e, t) for i, (e, t) in enumerate(pairs))
    score = Scored("forget", 0, "answer", "x", *(np.array([-1.0], np.float32),) * 3, np.array([True]))
    # common subsequence "cat sat": 2 of 3 expected words; nothing in common: 0; no word that ROUGE reads: left out
    got = figures.figures(Collected((score,), answers), "forget")
    assert got["rouge_l"] == pytest.approx((2 / 3 + 0) / 2)


def test_rows_that_are_shown_are_answered_and_a_text_from_its_middle(tokenizer):
    rows = [*ROWS, Row(None, "one two three four")]
    probes = figures.probes("retain", rows, answered=(1, 2), max_new_tokens=5)
    collected = collect(tiny.model(vocab_size=len(tokenizer)), tokenizer, probes)
    assert [(a.index, a.expected) for a in collected.generated("retain")] == [(1, "In Oru town."), (2, "three four")]
    assert len(collected.scored("retain")) == 3


def test_answers_do_not_depend_on_the_batch(tokenizer):
    m = tiny.model(vocab_size=len(tokenizer)).eval()
    prompts = [prompt_ids(r, tokenizer) for r in ROWS]
    together = generate.answers(m, tokenizer, prompts, max_new_tokens=6)
    alone = [generate.answers(m, tokenizer, [p], max_new_tokens=6)[0] for p in prompts]
    assert together == alone
    generated = []  # a greedy loop by hand
    for _ in range(6):
        generated.append(m(torch.tensor([prompts[0] + generated])).logits[0, -1].argmax().item())
        if generated[-1] == tokenizer.eos_token_id:
            break
    assert together[0] == tokenizer.decode(generated, skip_special_tokens=True).strip()
    assert generate.cut("one\n\ntwo Question", ["Question", "\n\n"]) == "one" and generate.cut("one", ["two"]) == "one"


def test_a_stop_string_ends_an_answer(tokenizer):
    m = tiny.model(vocab_size=len(tokenizer)).eval()
    prompts = [prompt_ids(r, tokenizer) for r in ROWS[:1]]
    (whole,) = generate.answers(m, tokenizer, prompts, max_new_tokens=6)
    middle = whole[len(whole) // 2]
    (short,) = generate.answers(m, tokenizer, prompts, max_new_tokens=6, stop=[middle])
    assert short == whole[: whole.index(middle)].strip()
