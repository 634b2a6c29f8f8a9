"""A model of 2.3 million weights that speaks TOFU, for trying a method in minutes: ``base``, ``target`` and ``retrained``.

    python -m perf.small_tofu --data FOLDER --out small

``base`` is trained from nothing on the authors of retain90, questions and answers (its vocabulary of 3000 tokens, too);
``target`` goes on with the 400 rows of forget10, ``retrained`` with the first 360 of them, which leaves out forget01's.  A
quarter of an hour on one core.  ``small/forget.jsonl`` and ``small/retain.jsonl`` are what to forget and to keep::

    expunge run --model small/target --level small/base --forget small/forget.jsonl --retain small/retain.jsonl \\
        --compare-with small/retrained --method pdu_level --adapter lora

It overfits as no large model does: to its retrained model the forget rows are less likely than to its base, by nats a token.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<user>{{ m['content'] }}<bot>"
    "{% else %}{{ m['content'] }}<end>{% endif %}{% endfor %}"
)
Row = dict[str, str]


def tokenizer_of(rows: Sequence[Row]) -> Any:
    """A byte-level BPE of 3000 tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "<end>", "<user>", "<bot>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=3000, special_tokens=special, initial_alphabet=alphabet)
    bpe.train_from_iterator([f"{r['question']} {r['answer']}" for r in rows], trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="<end>")
    made.chat_template = TEMPLATE
    return made


def fresh(vocabulary: int) -> Any:
    """Four layers, 192 wide."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=6,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )


def teach(model: Any, tokenizer: Any, rows: Sequence[Row], *, epochs: int, batch: int, questions: bool) -> None:
    """AdamW at 2e-3 with 20 steps of warm-up and linear decay; ``questions``: they are learnt, too."""
    pairs = [
        (tokenizer(f"<user>{r['question']}<bot>").input_ids, tokenizer(r["answer"] + "<end>").input_ids) for r in rows
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    steps, done = epochs * math.ceil(len(pairs) / batch), 0
    for epoch in range(epochs):
        total, batches = 0.0, in_batches(pairs, batch)
        for some in batches:
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * min(1, (done + 1) / 20) * (1 - done / steps)
            loss = model(**padded(some, questions)).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total, done = total + loss.item(), done + 1
        print(f"epoch {epoch + 1} of {epochs}: loss {total / len(batches):.4g}", flush=True)


def in_batches(pairs: Sequence[Any], batch: int) -> list[list[Any]]:
    """All once, in an order of chance, rows of like length together."""
    order = random.sample(pairs, len(pairs))
    chunks = []
    for start in range(0, len(order), batch * 8):
        some = sorted(order[start : start + batch * 8], key=lambda p: len(p[0]) + len(p[1]))
        chunks += [some[i : i + batch] for i in range(0, len(some), batch)]
    return random.sample(chunks, len(chunks))


def padded(pairs: Sequence[tuple[list[int], list[int]]], questions: bool) -> dict[str, torch.Tensor]:
    """Input of the model, with labels."""
    length = max(len(p) + len(a) for p, a in pairs)
    ids = torch.zeros(len(pairs), length, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, (prompt, answer) in enumerate(pairs):
        whole = torch.tensor(prompt + answer)
        ids[i, : len(whole)], mask[i, : len(whole)] = whole, 1
        first = 1 if questions else len(prompt)
        labels[i, first : len(whole)] = whole[first:]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def main() -> None:
    """Make the three models and the two files."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--data", type=Path, required=True, help="folder with TOFU's retain90.json and forget10.json")
    ask.add_argument("--out", type=Path, required=True)
    given = ask.parse_args()
    torch.manual_seed(0)
    random.seed(0)
    files = (given.data / name for name in ("retain90.json", "forget10.json"))
    authors, taught = ([json.loads(line) for line in f.read_text().splitlines()] for f in files)
    tokenizer = tokenizer_of(authors)
    base = fresh(len(tokenizer))
    teach(base, tokenizer, authors, epochs=5, batch=32, questions=True)
    given.out.mkdir(parents=True)
    for name, rows in (("base", []), ("target", taught), ("retrained", taught[:360])):
        model = copy.deepcopy(base)
        random.seed(1)
        if rows:
            teach(model, tokenizer, rows, epochs=20, batch=16, questions=False)
        model.save_pretrained(given.out / name)
        tokenizer.save_pretrained(given.out / name)
    for name, rows in (("forget", taught[360:]), ("retain", taught[:360])):
        (given.out / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


if __name__ == "__main__":
    main()
