"""Soft prompts, the instructions they make a model write, and the features of those."""

from __future__ import annotations

import pytest
import tiny
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from expunge.data.chat import opened, prompt_ids
from expunge.errors import InputError
from expunge.generation.sample import FORMS, Sampling, line_ends
from expunge.reveal import arms

META = arms.MetaPrompt("Questions:", ("Who is Ada?", "Where does Bo live?"))


@pytest.fixture
def model(tokenizer):
    return tiny.model(vocab_size=len(tokenizer))


def test_the_list_is_open_for_its_next_entry():
    assert META.text == "Questions:\n1. Who is Ada?\n2. Where does Bo live?\n3."


@pytest.mark.parametrize("seeds", [(), ("",), ("two\nlines",)])
def test_seeds_that_are_no_line_are_told(seeds):
    with pytest.raises(InputError, match="seed instruction"):
        arms.MetaPrompt("Questions:", seeds)


def test_soft_prompts_have_the_spread_of_the_embeddings(model):
    soft = arms.soft_prompts(model, 512, tokens=3, scale=2.0)
    assert soft.shape == (512, 3, 16)
    std = model.get_input_embeddings().weight.std()
    assert float(soft.std() / std) == pytest.approx(2.0, rel=0.1)
    assert float(soft.mean(0).abs().max() / std) < 0.2  # nothing that all arms share


def test_the_arms_do_not_depend_on_how_many_there_are(model):
    assert torch.equal(arms.soft_prompts(model, 4), arms.soft_prompts(model, 9)[:4])
    assert not torch.equal(arms.soft_prompts(model, 4), arms.soft_prompts(model, 4, seed=1))


def test_the_map_from_the_cube_is_linear(model):
    """Three points of a line stay on a line: p is linear in z."""
    soft = arms.soft_prompts(model, 64, dimension=1).flatten(1)
    z = torch.quasirandom.SobolEngine(1, scramble=True, seed=0).draw(64)[:, 0] - 0.5
    assert torch.allclose(soft, soft[0] * (z / z[0])[:, None], atol=1e-5)


@pytest.mark.parametrize("chat_template", [True, False])
def test_an_instruction_is_what_the_model_says_after_soft_tokens_and_list(model, tokenizer, chat_template):
    """Against a loop over whole sequences of embeddings, greedily."""
    soft = arms.soft_prompts(model, 5, scale=3.0)
    instructions = arms.instructions(
        model, tokenizer, META, soft, sampling=Sampling(0, 1.0, 8), chat_template=chat_template
    )
    embed, ends = model.get_input_embeddings(), line_ends(tokenizer)
    for soft_prompt, text in zip(soft, instructions, strict=True):
        turn_ids = opened("", tokenizer, chat_template=chat_template)
        parts = [
            embed(torch.tensor(turn_ids, dtype=torch.long)),
            soft_prompt,
            embed(torch.tensor(tokenizer(META.text).input_ids)),
        ]
        inputs, tokens = torch.cat(parts)[None], []
        for _ in range(8):
            token = int(model(inputs_embeds=inputs).logits[0, -1].argmax())
            if token in ends:
                break
            tokens.append(token)
            inputs = torch.cat([inputs, embed(torch.tensor([[token]]))], 1)
        assert text == arms.first_sentence(tokenizer.decode(tokens, skip_special_tokens=True))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_features_are_the_state_before_the_answer(model, tokenizer, form):
    questions = ["Who?", "Where does Ada live?"]
    features = arms.features(model, tokenizer, questions, form=form)
    for text, row in zip(questions, features, strict=True):
        ids = torch.tensor([prompt_ids(form.row(text), tokenizer)])
        expected = model(ids, output_hidden_states=True).hidden_states[-1][0, -1]
        assert torch.allclose(row, expected, atol=1e-5)


def test_more_arms_than_a_batch_keep_their_order(model, tokenizer, monkeypatch):
    soft, options = arms.soft_prompts(model, 7, scale=3.0), {"sampling": Sampling(0, 1.0, 8)}
    whole = arms.instructions(model, tokenizer, META, soft, **options)
    features = arms.features(model, tokenizer, ["a", "bbb", "cc", "dddd"])
    monkeypatch.setattr(arms, "ROWS", 2)
    assert arms.instructions(model, tokenizer, META, soft, **options) == whole
    assert torch.allclose(arms.features(model, tokenizer, ["a", "bbb", "cc", "dddd"]), features, atol=1e-6)


def test_padding_does_not_move_learned_positions(tokenizer):
    """GPT-2 learns a vector for each place, so a padded row must count its places from its own first token."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2)).eval()
    questions = ["Who?", "Where does Ada live, and with whom?"]
    batched = arms.features(model, tokenizer, questions)
    single = [arms.features(model, tokenizer, [text])[0] for text in questions]
    assert torch.allclose(batched, torch.stack(single), atol=1e-5)
