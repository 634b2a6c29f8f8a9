"""Answers that start where greedy decoding and a right answer part ways are those of ``generate``, token for token."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, MambaConfig, Qwen2Config

from expunge.data.chat import prompt_ids
from expunge.data.example import Row
from expunge.evaluation.collect import one_pass as collecting
from expunge.evaluation.collect import score
from expunge.evaluation.collect.facts import fields
from expunge.evaluation.collect.one_pass import collect
from expunge.evaluation.probe import Ask, Probe
from expunge.generation import decode
from expunge.generation import greedy as generate

WIDE = {"initializer_range": 0.5}  # weights so large that a token's place decides what comes next
SMALL = {"vocab_size": 261, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, **WIDE}
CONFIGS = {
    "llama": None,
    "gpt2": GPT2Config(vocab_size=261, n_embd=32, n_layer=2, n_head=4, n_positions=128, **WIDE),
    "qwen2": Qwen2Config(**SMALL, intermediate_size=64, num_key_value_heads=2),
    "gemma2, whose layers slide": Gemma2Config(
        **SMALL, intermediate_size=64, num_key_value_heads=2, head_dim=8, sliding_window=8
    ),
    "gemma2, whose window is wide": Gemma2Config(
        **SMALL, intermediate_size=64, num_key_value_heads=2, head_dim=8, sliding_window=200
    ),
    "mamba, which has no keys": MambaConfig(vocab_size=261, hidden_size=32, num_hidden_layers=2, state_size=4, **WIDE),
}
QUESTIONS = ["Hi?", "Who is there, and why is it so late in the day?", "What?", "Where to?", "And then?"]


@pytest.fixture(params=CONFIGS, ids=str)
def model(request, tokenizer):
    config = CONFIGS[request.param]
    if config is None:
        return tiny.model(vocab_size=len(tokenizer), **WIDE).eval()
    torch.manual_seed(0)
    config.eos_token_id = config.pad_token_id = config.bos_token_id = None
    return AutoModelForCausalLM.from_config(config).eval()


def greedy(model, prompt, n):
    """By hand: the whole sequence again for every token."""
    ids = list(prompt)
    for _ in range(n):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return tuple(ids[len(prompt) :])


@contextmanager
def counted(model):
    """The number of tokens of each call of the model."""
    token_counts = []
    handle = model.get_input_embeddings().register_forward_hook(
        lambda _, args, __: token_counts.append(args[0].numel())
    )
    yield token_counts
    handle.remove()


@torch.no_grad()
def test_answers_are_those_of_a_loop_on_any_architecture(model, tokenizer):
    rows = [Row(({"role": "user", "content": q},), "yes it is", where=q) for q in QUESTIONS]
    limits = [3, 9, 9, 9, 6]
    probes = [
        Probe("forget", i, r, {"answer": r.answer, "wrong0": "no"} if i % 2 else {}, Ask(n), note=str(n))
        for i, (r, n) in enumerate(zip(rows, limits, strict=True))
    ]
    answers = collect(model, tokenizer, probes, batch_tokens=150).generated("forget")
    for row, n, answer in zip(rows, limits, answers, strict=True):
        tokens = greedy(model, prompt_ids(row, tokenizer), n)
        ends = next((t for t, y in enumerate(tokens) if y == tokenizer.eos_token_id), n)
        assert answer.text == tokenizer.decode(tokens[:ends], skip_special_tokens=True).strip()
        assert answer.note == str(n)


@torch.no_grad()
def test_what_a_right_answer_and_the_model_agree_on_is_not_decoded_again(tokenizer, monkeypatch):
    model = tiny.model(vocab_size=len(tokenizer)).eval()
    prompts = [tuple(range(10, 19)), tuple(range(30, 34))]
    own = [greedy(model, p, 12) for p in prompts]
    wrong = (own[0][0] + 1) % 200
    texts = [
        [(*own[0][:5], wrong, wrong)],  # agrees for five tokens
        [(*own[1][:2], wrong), own[1][:7], (wrong,)],  # the second is the longest, and all of it agrees
    ]
    probe = Probe("forget", 0, Row("p", "a"), ask=Ask())
    batch = [
        score.Coded(probe, p, tuple(map(str, range(len(t)))), tuple(t), True)
        for p, t in zip(prompts, texts, strict=True)
    ]
    for run in (score._reusing(model, batch), lambda *a: score.run_reusing(*a, None)):
        monkeypatch.undo()
        _, met = run(model, batch, 0)
        assert [m.said for m in met] == [own[0][:6], own[1][:7]]
        assert [m.keys[0][0].shape[2] for m in met] == [len(prompts[0]) + 5, len(prompts[1]) + 6]
        starts = [decode.Start(m.said, m.keys, 12, lambda tokens: False) for m in met]
        assert decode.decode(model, starts) == own
        monkeypatch.setattr(decode, "STEP_TOKENS", 1)  # no drafts
        with counted(model) as token_counts:
            assert decode.decode(model, starts) == own
        assert token_counts == [2] * 5 + [1], (
            "each token after the first is run once, and the row that is done has left"
        )


@torch.no_grad()
def test_shared_beginnings_give_the_same_facts(tokenizer):
    model = tiny.model(vocab_size=len(tokenizer)).eval()
    probe = Probe("forget", 0, Row("p", "a"))
    stem = tuple(range(40, 50))
    batch = [score.Coded(probe, stem + p, ("a", "b"), ((5, 6, 7), (8,)), False) for p in ((1, 2), (3,), (4, 5, 6))]
    with counted(model) as token_counts:
        run = score._reusing(model, batch)
        assert token_counts == [len(stem)]
        reused, _ = run(model, batch, 0)
    assert token_counts[1:] == [3 * 3, 3 * 2], "only what comes after the shared tokens"
    for ours, theirs in zip(reused, score.run_whole(model, batch, 0)[0], strict=True):
        for a, b in zip(fields(ours), fields(theirs), strict=True):
            torch.testing.assert_close(a, b)


def test_no_more_tokens_are_said_than_asked_for(tokenizer):
    model = tiny.model(vocab_size=len(tokenizer), **WIDE).eval()
    row = Row(({"role": "user", "content": "Hi?"},), "yes")
    tokens = greedy(model, prompt_ids(row, tokenizer), 5)
    coded = score.Coded(Probe("f", 0, row, ask=Ask(2)), tuple(prompt_ids(row, tokenizer)), ("answer",), (tokens,), True)
    _, (met,) = score.run_reusing(model, [coded], 0, None)
    assert met.said == tokens
    (answer,) = collecting._decoded(model, tokenizer, [(coded.probe, met)])
    assert answer.text == tokenizer.decode(tokens[:2], skip_special_tokens=True).strip()


def test_stop_strings_and_end_tokens_end_an_answer(tokenizer):
    model = tiny.model(vocab_size=len(tokenizer)).eval()
    row = Row(({"role": "user", "content": "Hi?"},), "yes")
    whole = collect(model, tokenizer, [Probe("f", 0, row, ask=Ask(20))]).generated("f")[0].text
    assert len(whole) > 6
    stop = whole[4:6]
    stopped = collect(model, tokenizer, [Probe("f", 0, row, {"answer": "yes"}, ask=Ask(20, (stop,)))]).generated("f")[0]
    assert stopped.text == whole[: whole.index(stop)].strip()
    end = greedy(model, prompt_ids(row, tokenizer), 3)[2]
    model.generation_config.eos_token_id = [end]
    assert generate.end_tokens(model, tokenizer) == {end, tokenizer.eos_token_id}
    short = collect(model, tokenizer, [Probe("f", 0, row, ask=Ask(20))]).generated("f")[0].text
    expected = generate.answers(model, tokenizer, [prompt_ids(row, tokenizer)], max_new_tokens=20)
    assert short == expected[0] and len(short) < len(whole)


def test_settings_that_change_the_logits_are_left_to_generate(tokenizer):
    model = tiny.model(vocab_size=len(tokenizer)).eval()
    assert decode.plainly_greedy(model)
    row = Row(({"role": "user", "content": "Hi?"},), "yes")
    plain = collect(model, tokenizer, [Probe("f", 0, row, ask=Ask(20))]).generated("f")[0].text
    model.generation_config.repetition_penalty = 5.0
    assert not decode.plainly_greedy(model)
    varied = collect(model, tokenizer, [Probe("f", 0, row, ask=Ask(20))]).generated("f")[0].text
    assert varied != plain
    assert varied == generate.answers(model, tokenizer, [prompt_ids(row, tokenizer)], max_new_tokens=20)[0]


@torch.no_grad()
def test_beginnings_are_reused_wherever_they_can_be(model, tokenizer, request):
    probe = Probe("forget", 0, Row("p", "a"), ask=Ask(4))
    batch = [score.Coded(probe, tuple(range(5, 17)), ("a",), ((5, 6, 7),), True)]
    reused = request.node.callspec.params["model"] not in ("gemma2, whose layers slide", "mamba, which has no keys")
    assert (score.fastest_run(model, batch, 0) is not score.run_whole) == reused


@torch.no_grad()
def test_the_window_has_to_reach_over_the_answer_too(tokenizer):
    config = CONFIGS["gemma2, whose window is wide"]
    probe = Probe("forget", 0, Row("p", "a"), ask=Ask(200))
    batch = [score.Coded(probe, tuple(range(5, 17)), ("a",), ((5, 6, 7),), True)]
    assert score.fastest_run(AutoModelForCausalLM.from_config(config).eval(), batch, 0) is score.run_whole


@torch.no_grad()
def test_the_window_has_to_reach_over_dropped_drafts_too(tokenizer, monkeypatch):
    monkeypatch.setattr(decode, "MAX_HOLES", 4)
    monkeypatch.setattr(decode, "draft", lambda tokens, n: [7] * max(0, n))  # seldom what the model says
    probe = Probe("forget", 0, Row("p", "a"), ask=Ask(24))
    batch = [score.Coded(probe, tuple(range(5, 17)), ("a",), ((5, 6, 7),), True)]
    least = 12 + 3 + 24 + decode.MAX_HOLES + decode.STEP_TOKENS
    for window in (least - 1, least):
        config = Gemma2Config(**SMALL, intermediate_size=64, num_key_value_heads=2, head_dim=8, sliding_window=window)
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        assert (score.fastest_run(model, batch, 0) is score.run_whole) == (window < least)
    ((_, (met,)), own) = score.run_reusing(model, batch, 0, None), greedy(model, batch[0].prompt, 24)
    assert decode.decode(model, [decode.Start(met.said, met.keys, 24, lambda tokens: False)]) == [own]


@torch.no_grad()
def test_a_model_is_proven_on_a_text_that_reads_what_is_kept(tokenizer, monkeypatch):
    def refuses(*_):
        raise NotImplementedError

    model = tiny.model(vocab_size=len(tokenizer)).eval()
    probe = Probe("forget", 0, Row("p", "a"))
    letters = score.Coded(probe, (3, 4), ("a", "b"), ((5,), (6,)), False)  # read off the prompt alone
    words = score.Coded(probe, (3, 4, 5, 6), ("a",), ((5, 6, 7),), False)
    monkeypatch.setattr(score.caches, "stacked", refuses)
    assert score.fastest_run(model, [letters], 0) is not score.run_whole
    assert score.fastest_run(model, [letters, words], 0) is score.run_whole
