"""Whatever is drafted, and wherever an answer ends in it, what is said is what ``generate`` says."""

from __future__ import annotations

import random

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from expunge.data.example import Row
from expunge.evaluation.collect import score
from expunge.evaluation.probe import Ask, Probe
from expunge.generation import cache as caches
from expunge.generation import decode

LIMIT = 40  # more than one ``caches.SPARE``


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch):
    """Caches that grow by few columns, so that short answers outgrow them."""
    monkeypatch.setattr(caches, "SPARE", 24)
    monkeypatch.setattr(caches.stacked, "__defaults__", (24,))


def greedy(model, prompt, n=LIMIT):
    ids = torch.tensor([prompt])
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, do_sample=False, eos_token_id=None
    )
    return output[0, len(prompt) :].tolist()


def starts(model, prompts, limits, is_complete=lambda tokens: False):
    batch = [score.Coded(Probe("f", 0, Row("p", "a"), ask=Ask()), p, (), (), True) for p in prompts]
    _, met = score.run_reusing(model, batch, 0, None)
    return [decode.Start(m.said[:n], m.keys, n, is_complete) for m, n in zip(met, limits, strict=True)]


def drawn(seed):
    """A model that soon says the same again and again, and prompts of different lengths."""
    draw = random.Random(seed)
    model = tiny.model(seed, initializer_range=draw.choice((0.02, 0.1, 0.3)), num_hidden_layers=1 + seed % 2).eval()
    return draw, model, [tuple(draw.choices(range(2, 32), k=draw.randint(1, 9))) for _ in range(draw.randint(1, 9))]


@pytest.fixture
def steps(monkeypatch):
    """The tokens of each row in each step, and how many of them were said."""
    counts, accept = [], decode._accept

    def recorded(tokens, start, drafted, best):
        counts.append((len(drafted), accept(tokens, start, drafted, best)))
        return counts[-1][1]

    monkeypatch.setattr(decode, "_accept", recorded)
    return counts


@pytest.mark.parametrize("seed", range(12))
def test_drafts_never_change_an_answer(seed, monkeypatch, steps):
    draw, model, prompts = drawn(seed)
    monkeypatch.setattr(decode, "STEP_TOKENS", draw.choice((8, 40, 100)))
    monkeypatch.setattr(decode, "MAX_HOLES", draw.choice((2, 64)))
    limits = [draw.randint(1, LIMIT) for _ in prompts]
    end = draw.choice((0, 3))
    answers = decode.decode(model, starts(model, prompts, limits, lambda answers: answers[-1] == end))
    for p, n, tokens in zip(prompts, limits, answers, strict=True):
        whole = greedy(model, p, n)
        assert list(tokens) == whole[: whole.index(end) + 1 if end in whole else n]
    assert all(new <= drafted + 1 for drafted, new in steps)


def test_a_loop_takes_few_steps(steps):
    _, model, _ = drawn(1)
    prompt = (5, 6, 7)
    (answer,) = decode.decode(model, starts(model, [prompt], [90]))
    assert list(answer) == greedy(model, prompt, 90) and answer[-4:-2] == answer[-2:], "the model goes round"
    assert len(steps) < 90 / 3


@pytest.mark.parametrize("seed", range(2, 14))
def test_anything_may_be_drafted(seed, monkeypatch, steps):
    """Drafts that go on rightly for a random while: rows of a batch differ in how much of theirs is taken."""
    draw, model, prompts = drawn(seed)
    own = [greedy(model, p, LIMIT) for p in prompts]

    def draft(tokens, n):
        right = next((o[len(tokens) : len(tokens) + max(0, n)] for o in own if o[: len(tokens)] == list(tokens)), [])
        good = draw.randint(0, len(right))
        return right[:good] + [(y + 1) % 32 for y in right[good : draw.randint(good, len(right))]]

    monkeypatch.setattr(decode, "draft", draft)
    monkeypatch.setattr(decode, "STEP_TOKENS", 6 * len(prompts))
    monkeypatch.setattr(decode, "MAX_HOLES", draw.choice((1, 5, 64)))
    monkeypatch.setattr(decode, "SHRINK_SHARE", draw.choice((0.125, 0.6)))
    limits = [draw.randint(1, LIMIT) for _ in prompts]
    over = draw.sample(range(2, LIMIT), 5)  # ends that fall into drafts
    answers = decode.decode(model, starts(model, prompts, limits, lambda tokens: len(tokens) in over))
    for whole, n, tokens in zip(own, limits, answers, strict=True):
        assert list(tokens) == whole[: min(n, *over)]
    assert not steps or {new for _, new in steps} - {0, 1}, "some drafts were taken"


def test_dropped_drafts_leave_few_holes(monkeypatch):
    """What a sliding window is asked to reach over."""
    _, model, _ = drawn(1)
    own = greedy(model, (5, 6, 7))
    monkeypatch.setattr(decode, "MAX_HOLES", 9)
    monkeypatch.setattr(decode, "draft", lambda tokens, n: [(own[len(tokens)] + 1) % 32] * max(0, n))
    wide = []

    def note(_, __, inputs):
        wide.append(inputs["attention_mask"].shape[1] - int(inputs["attention_mask"].sum(1).max()))

    start_values = starts(model, [(5, 6, 7)], [LIMIT])
    model.register_forward_pre_hook(note, with_kwargs=True)
    assert list(*decode.decode(model, start_values)) == own
    assert decode.STEP_TOKENS - 1 <= max(wide) <= decode.MAX_HOLES, (
        "as many as are dropped in a step, and not more than allowed"
    )


def test_no_place_after_the_last_is_asked_for(monkeypatch):
    """A model with a table of places has none after its last: not for a draft, what pads a row, nor a row that is done."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=40, eos_token_id=None)
    model = AutoModelForCausalLM.from_config(config).eval()
    prompts = [tuple(range(3, 13)), (4, 5, 6)]
    limits = [31, 38]  # all places are read: the last token said is not
    whole = [greedy(model, p, n) for p, n in zip(prompts, limits, strict=True)]
    monkeypatch.setattr(decode, "SHRINK_SHARE", 1.0)
    for drafted in (decode.draft, lambda tokens, n: [(whole[1][len(tokens)] + 1) % 32] * max(0, n)):
        monkeypatch.setattr(decode, "draft", drafted)
        for room in (1, 8, 20):
            monkeypatch.setattr(decode, "STEP_TOKENS", room)
            assert [list(tokens) for tokens in decode.decode(model, starts(model, prompts, limits))] == whole


def test_a_draft_is_what_followed_before():
    assert decode.draft([1, 2, 3, 1, 2], 2) == [3, 1]
    assert decode.draft([1, 2, 3, 1, 2, 4, 1, 2], 1) == [4], "the last time"
    assert decode.draft([1, 1, 1], 4) == [1, 1, 1, 1]
    assert decode.draft([1, 2, 3], 4) == decode.draft([1], 4) == decode.draft([1, 1, 1], -1) == []


# -- keys and values ------------------------------------------------------------------------------------------------------
def rows_of(lengths):
    torch.manual_seed(0)
    return [[(torch.randn(1, 2, n, 3), torch.randn(1, 2, n, 3)) for _ in range(2)] for n in lengths]


def test_stacked_rows_grow_in_place():
    rows = rows_of([3, 1, 5])
    cache, mask = caches.stacked(rows, 4)
    assert mask.tolist() == [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
    expected = [torch.stack([torch.nn.functional.pad(r[1][0], (0, 0, 5 - r[1][0].shape[2], 0))[0] for r in rows])]
    places = []
    for n in (1, 3, 2, 1):  # the third is one more than there is room for
        new = torch.randn(3, 2, n, 3)
        keys, values = cache.update(new, -new, 1)
        places.append(keys.data_ptr())
        expected.append(new)
        torch.testing.assert_close(keys, torch.cat(expected, 2))
        torch.testing.assert_close(values[:, :, 5:], -torch.cat(expected[1:], 2))
    assert places[0] == places[1] != places[2] == places[3]
    assert cache.get_seq_length(1) == 12 and cache.get_seq_length(0) == 5
    assert caches.length(caches.prefix(rows[2], 2)) == 2


def test_packed_rows_lose_their_holes():
    cache, _ = caches.stacked(rows_of([4, 4, 4]))
    mask = torch.tensor([[0, 1, 0, 1], [1, 1, 1, 1], [1, 0, 0, 0]])
    packed, packed_mask = caches.packed(cache, mask, torch.tensor([2, 0]))
    assert packed_mask.tolist() == [[0, 1], [1, 1]]
    for old, new in zip(cache.layers, packed.layers, strict=True):
        for a, b in ((old.keys, new.keys), (old.values, new.values)):
            torch.testing.assert_close(b[0, :, 1], a[2, :, 0])
            torch.testing.assert_close(b[1], a[0, :, [1, 3]])
    for (keys, values), layer in zip(caches.row(cache, 1, 1, 3), cache.layers, strict=True):
        torch.testing.assert_close(keys, layer.keys[1:2, :, 1:3])
        torch.testing.assert_close(values, layer.values[1:2, :, 1:3])
