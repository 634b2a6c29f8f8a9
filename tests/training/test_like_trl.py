"""The trainer as one of TRL: from rows, a tokenizer and a PEFT configuration; and what is said where something lacks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tiny
import torch
from conftest import QUESTIONS as ROWS
from peft import LoraConfig, PeftModel

from expunge import methods
from expunge.data.streams import PairedDataset
from expunge.errors import InputError
from expunge.trainer import UnlearningTrainer

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "trl.md"
SETS = {"forget": ROWS[:3], "retain": ROWS[3:]}


def test_it_trains_what_the_trainer_of_a_paired_dataset_does(tokenizer):
    """The same rows as the run makes them, by hand: the same weights come out."""
    from expunge.data import chat, sources

    got = tiny.model(vocab_size=len(tokenizer))
    args = tiny.arguments(max_steps=2)
    trainer = UnlearningTrainer(got, args, train_dataset=SETS, processing_class=tokenizer, method="npo")
    trainer.train()
    rows = {s: [chat.encode(r, tokenizer) for r in sources.load_rows(of)] for s, of in SETS.items()}
    wanted = tiny.model(vocab_size=len(tokenizer))
    other = tiny.trainer(methods.npo(), m=wanted, data=PairedDataset(rows, seed=args.seed, window=3), max_steps=2)
    other.train()
    for a, b in zip(got.parameters(), wanted.parameters(), strict=True):
        assert torch.equal(a, b)
    assert tiny.delta(got, tiny.model(vocab_size=len(tokenizer))).abs().max() > 0


def test_the_guides_script_runs(workplace, monkeypatch):
    """The second script of the page, with the tiny model and rows beside it."""
    scripts = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    script = next(s for s in scripts if "UnlearningTrainer" in s)
    space: dict[str, object] = {}
    exec(compile(script, str(GUIDE), "exec"), space)
    trainer = space["trainer"]
    assert isinstance(trainer.model, PeftModel) and trainer.state.global_step > 0
    moved = [p for n, p in trainer.model.named_parameters() if "lora_B" in n and p.abs().max() > 0]
    assert moved and (workplace / "forgetful" / "adapter_model.safetensors").is_file()


def test_a_method_with_a_level_takes_a_model_or_its_name(tokenizer, tmp_path):
    """Both train alike; the level is the model's as it is."""
    other = tiny.model(seed=1, vocab_size=len(tokenizer), attention_dropout=0.5).train()  # which is off
    with torch.no_grad():
        other.lm_head.weight.mul_(4)  # so that the forget rows are less likely to it
    other.save_pretrained(tmp_path / "earlier")
    tokenizer.save_pretrained(tmp_path / "earlier")
    trained = []
    for level in (other, str(tmp_path / "earlier"), lambda: other):
        model = tiny.model(vocab_size=len(tokenizer))
        trainer = UnlearningTrainer(
            model,
            tiny.arguments(max_steps=1),
            train_dataset=SETS,
            processing_class=tokenizer,
            method="pdu_level",
            level=level,
        )
        trainer.train()
        trained.append(tiny.delta(model, tiny.model(vocab_size=len(tokenizer))))
    assert trained[0].abs().max() > 0
    torch.testing.assert_close(trained[1], trained[0])
    torch.testing.assert_close(trained[2], trained[0])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train_dataset": {"forget": ROWS}}, "npo reads retain rows, and there are none"),
        ({"method": "pdu_level"}, r"needs a level \(level=, .* use expunge.unlearn"),
        ({"method": "altpo"}, "needs other answers .* use expunge.unlearn"),
        ({"processing_class": None}, "processing_class is missing"),
        ({"method": "nop"}, "did you mean"),
    ],
)
def test_what_lacks_is_one_sentence(tokenizer, changes, sentence):
    given = {"train_dataset": SETS, "processing_class": tokenizer, "method": "npo", "args": tiny.arguments()} | changes
    with pytest.raises(InputError, match=sentence):
        UnlearningTrainer(tiny.model(), **given)


def test_a_model_with_an_adapter_gets_no_second_one(tokenizer):
    config = LoraConfig(target_modules=["q_proj"], r=2)
    made = UnlearningTrainer(
        tiny.model(vocab_size=len(tokenizer)),
        tiny.arguments(),
        train_dataset=SETS,
        processing_class=tokenizer,
        peft_config=config,
    )
    assert made.method.name == "npo" and {n.split(".")[-3] for n, p in made.model.named_parameters() if p.requires_grad} <= {
        "lora_A", "lora_B",
    }  # fmt: skip
    with pytest.raises(InputError, match="has an adapter already"):
        UnlearningTrainer(
            made.model, tiny.arguments(), train_dataset=SETS, processing_class=tokenizer, peft_config=config
        )
