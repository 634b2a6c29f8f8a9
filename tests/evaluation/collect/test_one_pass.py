"""One pass over the model gives, token for token, what a plain loop over single sequences gives."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch

from expunge.data.chat import encode
from expunge.data.example import Row
from expunge.errors import InputError
from expunge.evaluation.collect import one_pass as collecting
from expunge.evaluation.collect import score
from expunge.evaluation.collect.one_pass import collect
from expunge.evaluation.probe import Ask, Probe, fingerprint
from expunge.evaluation.table import Collected, join, read, write

CHAT = [
    Row(({"role": "user", "content": q},), a)
    for q, a in [("Hi?", "yes it is"), ("Who is there, and why?", "no"), ("What?", "a long answer of many words")]
]
ROWS = [*CHAT, Row("Once upon a", " time"), Row(None, "plain text is scored from its second token")]


def probes(rows=ROWS):
    return [
        Probe(
            "forget",
            i,
            row,
            {"answer": row.answer, "wrong0": "never", "wrong1": row.answer + " indeed"},
            row.prompt and Ask(4),
        )
        for i, row in enumerate(rows)
    ]


@pytest.fixture
def model(tokenizer):
    return tiny.model(vocab_size=len(tokenizer)).eval()


def by_hand(model, tokenizer, row, text):
    """log-probability, vocabulary mean and deviation, and hit of each labelled token, one sequence, no batching."""
    example = encode(row, tokenizer, answer=text)
    logp = model(torch.tensor([example.input_ids])).logits[0].log_softmax(-1)
    out = []
    for t in range(1, len(example.input_ids)):
        if example.labels[t] == -100:
            continue
        before, label = logp[t - 1].tolist(), example.input_ids[t]
        mean = sum(math.exp(x) * x for x in before)
        spread = math.sqrt(sum(math.exp(x) * (x - mean) ** 2 for x in before))
        out.append((before[label], mean, spread, max(before) == before[label]))
    return [np.array(c) for c in zip(*out, strict=True)]


def test_on_a_cpu_batches_are_small_unless_their_size_is_given(model, tokenizer, monkeypatch):
    sizes = []
    whole = collecting._batches
    monkeypatch.setattr(collecting, "_batches", lambda coded, size, n: sizes.append(n) or whole(coded, size, n))
    monkeypatch.setattr(score, "fastest_run", lambda *_: score.run_whole)
    collect(model, tokenizer, probes())
    collect(model, tokenizer, probes(), batch_tokens=60)
    assert sizes == [collecting.BATCH_TOKENS_CPU, 60] and collecting.BATCH_TOKENS_CPU < collecting.BATCH_TOKENS


@pytest.mark.parametrize("budget", [1, 60, 4096])
def test_every_token_equals_a_loop(model, tokenizer, budget):
    collected = collect(model, tokenizer, probes(), batch_tokens=budget)
    for variant in ("answer", "wrong0", "wrong1"):
        for probe, s in zip(probes(), collected.scored("forget", variant), strict=True):
            logp, mean, spread, hit = by_hand(model, tokenizer, probe.row, probe.texts[variant])
            np.testing.assert_allclose(s.logp, logp, atol=1e-5)
            np.testing.assert_allclose(s.vocab_mean, mean, atol=1e-4)
            np.testing.assert_allclose(s.vocab_std, spread, atol=1e-4)
            assert (s.hit == hit).all() and s.text == probe.texts[variant]
            assert s.ends == (probe.row.prompt is not None)  # plain text has no end token
    assert collected.mean_logps("forget", "wrong").shape == (len(ROWS), 2)


def test_a_prompt_is_run_once(model, tokenizer):
    def tokens(run):
        seen = []
        handle = model.get_input_embeddings().register_forward_hook(lambda _, args, __: seen.append(args[0].numel()))
        facts, _ = run(model, coded, 0)
        handle.remove()
        return sum(seen), facts

    (c,) = coded = collecting.code(probes()[0], tokenizer, {"max_length": 512, "chat_template": True})
    right, never, longest = map(len, c.texts)
    reused, ours = tokens(partial(score.run_reusing, stem=None))
    whole, theirs = tokens(score.run_whole)
    assert whole == 3 * (len(c.prompt) + longest)
    assert reused == len(c.prompt) + 2 * (longest - 1) + 1, (
        "of the right answer, which the longest begins with, a token"
    )
    assert never < right < longest
    for a, b in zip(ours, theirs, strict=True):
        for name in ("logp", "mean", "std", "best"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name))


def test_a_model_whose_cache_cannot_be_reused_is_run_whole(model, tokenizer, monkeypatch):
    expected = collect(model, tokenizer, probes())
    monkeypatch.setattr(score, "run_reusing", lambda *_: (_ for _ in ()).throw(ValueError("no cache")))
    collected = collect(model, tokenizer, probes())
    np.testing.assert_allclose(collected.mean_logp("forget"), expected.mean_logp("forget"), atol=1e-5)


def test_answers_are_those_of_generate(model, tokenizer):
    collected = collect(model, tokenizer, probes(CHAT))
    assert [g.expected for g in collected.generated("forget")] == [r.answer for r in CHAT]
    ids = model.generate(
        torch.tensor([encode(CHAT[0], tokenizer).input_ids[: -len(tokenizer("yes it is").input_ids) - 1]]),
        max_new_tokens=4,
        do_sample=False,
    )
    expected = tokenizer.decode(ids[0, -4:], skip_special_tokens=True).strip()
    assert collected.generated("forget")[0].text == expected


@pytest.mark.parametrize("tied", [False, True])
def test_gradient_norms_are_those_of_a_plain_backward(tokenizer, tied):
    model = tiny.model(vocab_size=len(tokenizer), tie_word_embeddings=tied).eval().requires_grad_(False)
    with_norms = [dataclasses.replace(p, grad_norm=("answer",)) for p in probes()]
    collected = collect(model, tokenizer, with_norms)
    assert all(s.grad_norm is None for s in collected.scored("forget", "wrong0"))
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    model.requires_grad_(True)
    for probe, s in zip(with_norms, collected.scored("forget"), strict=True):
        example = encode(probe.row, tokenizer)
        labels = torch.tensor([example.labels])
        labels[0, len(example.labels) - s.ends :] = -100  # the end token is no word of the answer
        model.zero_grad()
        model(torch.tensor([example.input_ids]), labels=labels).loss.backward()
        norms = [float(p.grad.norm()) for p in model.parameters()]
        assert s.grad_norm == pytest.approx(sum(norms) / len(norms), rel=1e-4)


def test_a_continuation_is_tokenised_with_its_prompt_and_has_no_end(model, tokenizer):
    probe = Probe("choice", 0, Row("Which?\nAnswer:", " A"), {"option0": " A", "option1": " B b"}, continues=True)
    collected = collect(model, tokenizer, [probe])
    ids = tokenizer("Which?\nAnswer: B b", add_special_tokens=False).input_ids
    start = len(tokenizer("Which?\nAnswer:").input_ids)
    logp = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = [float(logp[t - 1, ids[t]]) for t in range(start, len(ids))]
    (s,) = collected.scored("choice", "option1")
    np.testing.assert_allclose(s.logp, expected, atol=1e-5)
    assert not s.ends and len(s.logp) == len(" B b")
    (cut,) = collect(model, tokenizer, [probe], max_length=8).scored("choice", "option1")
    logp = model(torch.tensor([ids[-8:]])).logits[0].log_softmax(-1)  # the beginning of the prompt goes, not the option
    np.testing.assert_allclose(cut.logp, [float(logp[t - 1, ids[-8:][t]]) for t in range(4, 8)], atol=1e-5)


def test_the_expected_text_is_cut_to_as_many_tokens(model, tokenizer):
    row = Row("Once upon", " a time there was")
    (g,) = collect(model, tokenizer, [Probe("f", 0, row, ask=Ask(5, cut=True))]).generated("f")
    assert g.expected == " a ti"


def test_a_model_is_not_asked_without_a_prompt(model, tokenizer):
    with pytest.raises(InputError, match="f, row 0: there is no prompt for the model to answer"):
        collect(model, tokenizer, [Probe("f", 0, ROWS[-1], ask=Ask(5))])


def test_progress_counts_texts_and_answers(model, tokenizer):
    done = []
    collect(model, tokenizer, probes(), progress=done.append)
    assert sum(done) == (3 + 1) * len(ROWS) - 1  # plain text is not answered


def test_no_share_of_a_text_is_left(model, tokenizer):
    with pytest.raises(InputError, match=r"forget, row 0: max_length=3 leaves nothing of the text 'answer'"):
        collect(model, tokenizer, probes(), max_length=3)


def test_numbers_that_are_none_are_told(model, tokenizer):
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(InputError, match=r"are no numbers \(NaN or infinite\)"):
        collect(model, tokenizer, probes())


# -- the table ------------------------------------------------------------------------------------------------------------
def test_a_table_is_read_as_it_was_written(model, tokenizer, tmp_path):
    collected = collect(model, tokenizer, probes())
    again = read(write(collected, tmp_path / "scores"))
    assert again.answers == collected.answers and len(again.scores) == len(collected.scores)
    for a, b in zip(again.scores, collected.scores, strict=True):
        for f in dataclasses.fields(a):
            np.testing.assert_array_equal(getattr(a, f.name), getattr(b, f.name))
            assert type(getattr(a, f.name)) is type(getattr(b, f.name))
    assert not list((tmp_path / "scores").glob(".*"))


def test_what_is_missing_is_named(tmp_path):
    nothing = Collected((), ())
    with pytest.raises(InputError, match="nothing was collected for 'answer' of 'forget'; found nothing"):
        nothing.scored("forget")
    with pytest.raises(InputError, match="there are no collected scores"):
        read(tmp_path)
    (tmp_path / "scores.parquet").write_text("no table")
    with pytest.raises(InputError, match="not a table that expunge wrote"):
        read(tmp_path)


def test_shares_join_to_the_whole(model, tokenizer):
    whole = collect(model, tokenizer, probes())
    shares = [collect(model, tokenizer, probes()[k::2]) for k in (0, 1)]
    np.testing.assert_allclose(join(shares).mean_logp("forget"), whole.mean_logp("forget"), atol=1e-5)


def test_the_fingerprint_sees_what_is_asked():
    plain = fingerprint(probes())
    assert plain == fingerprint(probes())
    for change in ({"texts": {"answer": "else"}}, {"ask": None}, {"part": "retain"}, {"row": CHAT[1]}):
        changed = [dataclasses.replace(probes()[0], **change), *probes()[1:]]
        assert fingerprint(changed) != plain


@pytest.mark.parametrize(("kind", "expected"), [("cpu", 8192), ("cuda", 64 * 10**9 // 32 // 96)])
def test_more_answers_are_decoded_together_where_memory_is_free(monkeypatch, kind, expected):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (64 * 10**9, 80 * 10**9))
    keys = SimpleNamespace(device=torch.device(kind), shape=(1, 3, 10, 4), nbytes=480)  # 48 bytes a token, twice
    assert collecting._together([(keys, keys)]) == expected


def test_answers_do_not_hang_on_how_many_are_decoded_together(model, tokenizer, monkeypatch):
    together = collect(model, tokenizer, probes())
    monkeypatch.setattr(collecting, "WAITING", 1)
    decoded = []
    own = collecting._decoded
    monkeypatch.setattr(collecting, "_decoded", lambda m, t, some: (decoded.append(len(some)), own(m, t, some))[1])
    assert collect(model, tokenizer, probes(), batch_tokens=1).generated("forget") == together.generated("forget")
    assert decoded == [1, 1, 1, 1, 0]
