"""One pass over the model gives, token for token, what a plain loop over single sequences gives."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import tiny
import torch

from expunge.data.chat import encode
from expunge.data.example import Row
from expunge.errors import InputError
from expunge.evaluation import collect as collecting
from expunge.evaluation.collect import collect
from expunge.evaluation.probe import Ask, Probe, fingerprint
from expunge.evaluation.table import Collected, join, read, write

CHAT = [
    Row(({"role": "user", "content": q},), a)
    for q, a in [("Hi?", "yes it is"), ("Who is there, and why?", "no"), ("What?", "a long answer of many words")]
]
ROWS = [*CHAT, Row("Once upon a", " time"), Row(None, "plain text is scored from its second token")]


def probes(rows=ROWS):
    return [
        Probe("forget", i, row, {"answer": row.answer, "wrong0": "never", "wrong1": row.answer + " indeed"}, Ask(4))
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
        before = logp[t - 1]
        p = before.exp()
        mean = sum(float(p[v] * before[v]) for v in range(len(before)))
        spread = math.sqrt(sum(float(p[v]) * (float(before[v]) - mean) ** 2 for v in range(len(before))))
        out.append((float(before[example.input_ids[t]]), mean, spread, int(before.argmax()) == example.input_ids[t]))
    return [np.array(c) for c in zip(*out, strict=True)]


@pytest.mark.parametrize("budget", [1, 60, 4096])
def test_every_token_equals_a_loop(model, tokenizer, budget):
    found = collect(model, tokenizer, probes(), batch_tokens=budget)
    for variant in ("answer", "wrong0", "wrong1"):
        for probe, s in zip(probes(), found.scored("forget", variant), strict=True):
            logp, mean, spread, hit = by_hand(model, tokenizer, probe.row, probe.texts[variant])
            np.testing.assert_allclose(s.logp, logp, atol=1e-5)
            np.testing.assert_allclose(s.vocab_mean, mean, atol=1e-4)
            np.testing.assert_allclose(s.vocab_std, spread, atol=1e-4)
            assert (s.hit == hit).all() and s.text == probe.texts[variant]
            assert s.ends == (probe.row.prompt is not None)  # plain text has no end token
    assert found.mean_logps("forget", "wrong").shape == (len(ROWS), 2)


def test_a_prompt_is_run_once(model, tokenizer):
    def tokens(run):
        seen = []
        handle = model.get_input_embeddings().register_forward_hook(lambda _, args, __: seen.append(args[0].numel()))
        facts = run(model, coded, 0)
        handle.remove()
        return sum(seen), facts

    coded = collecting._code(probes()[0], tokenizer, {"max_length": 512, "chat_template": True})
    (c,) = coded
    longest = max(map(len, c.texts))
    reused, ours = tokens(collecting.run_reusing)
    whole, theirs = tokens(collecting.run_whole)
    assert reused == len(c.prompt) + 3 * (longest - 1) and whole == 3 * (len(c.prompt) + longest)
    for a, b in zip(ours, theirs, strict=True):
        for name in ("logp", "mean", "std", "hit"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name))


def test_a_model_whose_cache_cannot_be_reused_is_run_whole(model, tokenizer, monkeypatch):
    expected = collect(model, tokenizer, probes())
    monkeypatch.setattr(collecting, "run_reusing", lambda *_: (_ for _ in ()).throw(ValueError("no cache")))
    found = collect(model, tokenizer, probes())
    np.testing.assert_allclose(found.mean_logp("forget"), expected.mean_logp("forget"), atol=1e-5)


def test_answers_are_those_of_generate(model, tokenizer):
    found = collect(model, tokenizer, probes(CHAT))
    assert [g.expected for g in found.generated("forget")] == [r.answer for r in CHAT]
    ids = model.generate(
        torch.tensor([encode(CHAT[0], tokenizer).input_ids[: -len(tokenizer("yes it is").input_ids) - 1]]),
        max_new_tokens=4,
        do_sample=False,
    )
    said = tokenizer.decode(ids[0, -4:], skip_special_tokens=True).strip()
    assert found.generated("forget")[0].text == said


def test_progress_counts_texts_and_answers(model, tokenizer):
    done = []
    collect(model, tokenizer, probes(), progress=done.append)
    assert sum(done) == (3 + 1) * len(ROWS)


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
    found = collect(model, tokenizer, probes())
    again = read(write(found, tmp_path / "scores"))
    assert again.answers == found.answers and len(again.scores) == len(found.scores)
    for a, b in zip(again.scores, found.scores, strict=True):
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
