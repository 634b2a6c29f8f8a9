"""Sampling: equal prompts are run once, rows that end leave, draws are the generator's; against a loop without a cache."""

from __future__ import annotations

import math

import pytest
import tiny
import torch

from expunge.errors import InputError
from expunge.generation import sample as generate
from expunge.generation.sample import Sampling


def by_hand(model, prompt, sampling, ends, generator):
    """One row, token by token, the whole sequence run again each time."""
    ids, logps, tokens = list(prompt), [], []
    for _ in range(sampling.max_new_tokens):
        logits = model(torch.tensor([ids])).logits[0, -1].double()
        p = (logits / sampling.temperature).softmax(-1)
        order = p.argsort(descending=True)
        total, nucleus = 0.0, torch.zeros_like(p)
        for i in order.tolist():
            nucleus[i] = p[i]
            total += float(p[i])
            if total >= sampling.top_p:
                break
        ranked = nucleus[order]
        token = int(order[torch.multinomial(ranked.float(), 1, generator=generator)])
        logps.append(float(logits.log_softmax(-1)[token]))
        if token in ends:
            return tokens, logps, True
        tokens.append(token)
        ids.append(token)
    return tokens, logps, False


@pytest.mark.parametrize("sampling", [Sampling(1.0, 1.0, 12), Sampling(0.7, 0.8, 12)])
def test_one_row_is_what_a_loop_without_a_cache_draws(tokenizer, sampling):
    model = tiny.model()
    for seed in range(8):
        prompt = tuple(range(1, 4 + seed))
        (continuation,) = generate.sampled(
            model, tokenizer, [prompt], sampling, {0, 7}, torch.Generator().manual_seed(seed)
        )
        tokens, logps, ended = by_hand(model, prompt, sampling, {0, 7}, torch.Generator().manual_seed(seed))
        assert list(continuation.tokens) == tokens and continuation.ended == ended
        assert continuation.logp == pytest.approx(logps, abs=1e-5)


def test_greedy_rows_of_different_lengths_are_those_of_a_row_alone(tokenizer):
    model = tiny.model()
    prompts = [(1, 2, 3), (4,), (1, 2, 3), (9, 8, 7, 6, 5, 4), (30, 2)]
    sampling, ends = Sampling(0, 1.0, 20), set(range(0, 32, 3))
    batched = generate.sampled(model, tokenizer, prompts, sampling, ends, None)
    single = [generate.sampled(model, tokenizer, [p], sampling, ends, None)[0] for p in prompts]
    assert [s.tokens for s in batched] == [s.tokens for s in single]
    assert batched[0] == batched[2]
    for a, b in zip(batched, single, strict=True):
        assert a.logp == pytest.approx(b.logp, abs=1e-5) and a.ended == b.ended
    assert len({len(s.tokens) for s in batched}) > 1  # rows left at different times


def test_equal_prompts_get_different_draws(tokenizer):
    continuations = generate.sampled(
        tiny.model(), tokenizer, [(1, 2)] * 8, Sampling(1.0, 1.0, 6), {0}, torch.Generator().manual_seed(0)
    )
    assert len({s.tokens for s in continuations}) > 4


def test_a_model_without_a_plain_cache_is_run_for_each_row(tokenizer, monkeypatch):
    model, sampling = tiny.model(), Sampling(0, 1.0, 6)
    expected = generate.sampled(model, tokenizer, [(1, 2), (3,), (1, 2)], sampling, {0}, None)
    monkeypatch.setattr(generate.caches, "keeps_all_positions", lambda cache: False)
    assert [s.tokens for s in generate.sampled(model, tokenizer, [(1, 2), (3,), (1, 2)], sampling, {0}, None)] == [
        s.tokens for s in expected
    ]


def test_top_p_keeps_the_fewest_tokens_that_make_it_up():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    for top_p, nucleus in ((0.5, {0}), (0.51, {0, 1}), (0.8, {0, 1}), (0.81, {0, 1, 2}), (1.0, {0, 1, 2, 3})):
        g = torch.Generator().manual_seed(0)
        drawn = {int(generate.draw_tokens(logits, Sampling(1.0, top_p, 1), g)) for _ in range(200)}
        assert drawn == nucleus, top_p


def test_temperature_sharpens():
    logits = torch.tensor([[0.6, 0.4]]).log().expand(4000, 2)
    g = torch.Generator().manual_seed(0)
    share = float((generate.draw_tokens(logits, Sampling(0.5, 1.0, 1), g) == 0).float().mean())
    assert share == pytest.approx(0.36 / 0.52, abs=0.03)  # 0.6^2 against 0.4^2


def test_perplexity_counts_the_end():
    continuation = generate.Continuation((5,), (math.log(0.5), math.log(0.125)), True)
    assert continuation.perplexity == pytest.approx(4)
    assert generate.Continuation((), (), False).perplexity == math.inf


@pytest.mark.parametrize("bad", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"max_new_tokens": 0}])
def test_settings_that_make_no_sense_are_told(bad):
    with pytest.raises(InputError, match="sampling needs"):
        Sampling(**bad)


def test_answers_keep_the_order_of_their_instructions(tokenizer):
    model = tiny.model(vocab_size=len(tokenizer))
    instructions = ["a", "a much longer instruction", "a", "zz"]
    answers = generate.answers(model, tokenizer, instructions, sampling=Sampling(0, 1.0, 5))
    assert answers[0] == answers[2]
    for i, text in enumerate(instructions):
        assert answers[i] == generate.answers(model, tokenizer, [text], sampling=Sampling(0, 1.0, 5))[0]


def test_neutral_rows_are_questions_the_model_made_up(tokenizer):
    model = tiny.model(vocab_size=len(tokenizer))
    rows = generate.neutral_rows(model, tokenizer, 3, sampling=Sampling(1.0, 1.0, 60))
    assert len({r.prompt[0]["content"] for r in rows}) == 3
    assert rows == generate.neutral_rows(model, tokenizer, 3, sampling=Sampling(1.0, 1.0, 60))
    assert all("\n" not in r.prompt[0]["content"] for r in rows)


def test_a_model_that_never_ends_a_question_is_told(tokenizer):
    with pytest.raises(InputError, match=r"only 0 questions .* within 1 tokens, not 3; .* give a retain set"):
        generate.neutral_rows(tiny.model(vocab_size=len(tokenizer)), tokenizer, 3, sampling=Sampling(1.0, 1.0, 1))


def test_line_ends(tokenizer):
    ends = generate.line_ends(tokenizer)
    assert tokenizer("\n").input_ids[0] in ends and tokenizer.eos_token_id in ends
    assert tokenizer("a").input_ids[0] not in ends


def test_a_beginning_is_gone_on_with_as_plain_text(tokenizer):
    model, sampling = tiny.model(vocab_size=len(tokenizer)), Sampling(0, 1.0, 6)
    (answer,) = generate.answers(model, tokenizer, ["So what"], sampling=sampling, form=generate.FORMS["beginning"])
    ids = tuple(tokenizer("So what").input_ids)
    (continuation,) = generate.sampled(model, tokenizer, [ids], sampling, {tokenizer.eos_token_id}, None)
    assert answer.text == tokenizer.decode(continuation.tokens, skip_special_tokens=True).rstrip()
