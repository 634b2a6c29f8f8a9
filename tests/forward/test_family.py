"""Families of models: what their caches hold, and what is the same however a model is run."""

from __future__ import annotations

import pytest
import tiny_families
import torch

from expunge.data.example import Row
from expunge.errors import InputError
from expunge.evaluation.collect import one_pass, score
from expunge.evaluation.probe import Ask, Probe
from expunge.forward import family
from expunge.forward.view import logits_at
from expunge.generation import greedy, sample

STATEFUL = {"qwen3_5", "falcon_h1", "qwen3_next", "lfm2", "granite_hybrid", "bamba", "mamba"}
IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11]])


@pytest.fixture(scope="module")
def model_of():
    made = {}
    return lambda name: made.setdefault(name, tiny_families.make(name))


@pytest.mark.parametrize("name", tiny_families.FAMILIES)
def test_a_cache_of_positions_is_told_from_a_running_state(name, model_of):
    model = model_of(name)
    assert family.by_position(model) == (name not in STATEFUL)
    assert family.cache_name(model) in family.CACHES
    assert family.cache_of(family.run(model, input_ids=IDS, use_cache=True)) is not None


@torch.no_grad()
@pytest.mark.parametrize("name", tiny_families.CONTRACT)
def test_a_prompt_run_once_gives_what_whole_sequences_give(name, model_of):
    model = model_of(name)
    batch = [
        score.Coded(Probe("a", 0, Row("", "")), (5, 6, 7, 8, 20, i), ("x", "y"), ((9, 10, 11), (9, 12)), True)
        for i in (30, 31)
    ]
    run = score.fastest_run(model, batch, 0)
    assert (run is score.run_whole) == (name in STATEFUL or name in ("gemma3", "gpt_oss"))  # these have short windows
    got, wanted = run(model, batch, 0)[0], [f for c in batch for f in score.run_whole(model, [c], 0)[0]]
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one.logp, other.logp, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [*sorted(STATEFUL), "mixtral"])
def test_rows_of_unequal_length_are_continued_as_each_is_alone(name, model_of, tokenizer):
    """A running state is taken along when equal prompts are written on from and when rows leave the batch."""
    model, prompts, how = model_of(name), [(5, 6, 7, 8, 9), (10, 11), (5, 6, 7, 8, 9)], sample.Sampling(0.0, 1.0, 6)
    alone = [_greedy(model, p, 6) for p in prompts]
    ends = {alone[1][2]}  # the second row ends first
    wanted = [tuple(_until(tokens, ends)) for tokens in alone]
    assert [s.tokens for s in sample.sampled(model, tokenizer, prompts, how, ends, None)] == wanted
    texts = greedy.answers(model, tokenizer, prompts, max_new_tokens=6)
    assert texts == [tokenizer.decode(_until(t, {0}), skip_special_tokens=True).strip() for t in alone]


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_router_logits_are_not_asked_for(name, model_of):
    model = model_of(name)
    model.config.output_router_logits = True
    assert family.without_routers(model) == {"output_router_logits": False}
    keep = torch.ones_like(IDS, dtype=torch.bool)
    mask = torch.ones_like(IDS)
    logits, out = logits_at(model, keep, input_ids=IDS, attention_mask=mask, use_cache=True)
    assert out.router_logits is None
    torch.testing.assert_close(logits, model(input_ids=IDS, attention_mask=mask).logits[0])


def _until(tokens, ends):
    return tokens[: next((i for i, t in enumerate(tokens) if t in ends), len(tokens))]


@torch.no_grad()
def _greedy(model, prompt, n):
    """``n`` tokens by the whole sequence each time, without a cache."""
    ids = list(prompt)
    for _ in range(n):
        out = model(input_ids=torch.tensor([ids]), use_cache=False, **family.without_routers(model))
        ids.append(int(out.logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_an_answer_ends_where_the_positions_do(name, model_of, tokenizer):
    """256 positions: a prompt of 250 tokens leaves room for 6."""
    model, prompt, how = model_of(name), tuple(range(5, 255)), sample.Sampling(0.0, 1.0, 40)
    assert family.positions(model) == 256
    (said,) = sample.sampled(model, tokenizer, [prompt], how, {-1}, None)
    assert said.tokens == tuple(_greedy(model, prompt, 6))
    probe = Probe("a", 0, Row("", ""), {}, Ask(40))
    coded = [score.Coded(probe, prompt, (), (), True), score.Coded(probe, prompt[1:], (), (), True)]
    with torch.no_grad():
        (_, met) = score.run_reusing(model, coded, 0, None)
    texts = [a.text for a in one_pass._decoded(model, tokenizer, [(probe, m) for m in met if m])]
    alone = [tokenizer.decode(_until(_greedy(model, p, 256 - len(p)), {0})) for p in (prompt, prompt[1:])]
    assert texts == [a.strip() for a in alone]
    with pytest.raises(InputError, match="a prompt of 256 tokens is longer than the model's 256 positions"):
        sample.sampled(model, tokenizer, [tuple(range(5, 261))], how, {0}, None)


def test_computed_positions_have_no_end(model_of):
    assert family.positions(model_of("llama")) is None and family.tokens_left(model_of("llama"), 10**6, 40) == 40
