"""A tokenizer that was written to a GGUF file is read again by transformers, and gives the same tokens."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from expunge.models import gguf_tokenizer, gguf_write

gguf = pytest.importorskip("gguf")
TEXTS = ["Ada lives in Oru since 1985.", "Where does\n Ada live?", "<|user|>Grüße, 東京 12<|end|>"]
DIGITS = pre_tokenizers.Digits(individual_digits=True)


def small(rows: int) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=rows, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, tie_word_embeddings=True, pad_token_id=0, bos_token_id=0, eos_token_id=0,
        )
    ).eval()  # fmt: skip


def trained(*before, model=None, trainer=trainers.BpeTrainer) -> PreTrainedTokenizerFast:
    """A small byte-level tokenizer; ``before``: what splits texts before bytes do."""
    inner = Tokenizer(model or models.BPE())
    last = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([*before, last]) if before else last
    inner.decoder = decoders.ByteLevel()
    special = ["<|end|>", "<|user|>"]
    how = trainer(vocab_size=300, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    inner.train_from_iterator(TEXTS * 3, how)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>", pad_token="<|end|>", bos_token="<|end|>",
                                   chat_template="{{ messages }}")  # fmt: skip


def test_the_same_tokens_from_the_file(tmp_path):
    own = trained()
    model = small(len(own) + 8)
    assert gguf_write.write(model, tmp_path / "m.gguf", "F32", own) is None
    again = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    for text in TEXTS:
        assert again(text, add_special_tokens=False).input_ids == own(text, add_special_tokens=False).input_ids
    assert (again.eos_token, again.chat_template) == (own.eos_token, own.chat_template)
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    types = fields["tokenizer.ggml.token_type"].contents()
    assert types[0] == types[1] == 3 and types[5] == 1 and len(types) == len(own) + 8


def test_how_texts_are_split_has_the_name_of_llama_cpp():
    split = {"type": "Split", "pattern": {"Regex": gguf_tokenizer.QWEN2}, "behavior": "Isolated"}
    last = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    assert gguf_tokenizer.split_name({"type": "Sequence", "pretokenizers": [split, last]}) == "qwen2"
    assert gguf_tokenizer.split_name(gguf_tokenizer.described(trained(DIGITS))["pre_tokenizer"]) == "smollm"


def test_one_that_cannot_be_written_is_left_out_and_why_is_said(tmp_path):
    unknown = trained(pre_tokenizers.Punctuation())
    assert "no known name" in str(gguf_tokenizer.problem(unknown))
    unigram = trained(model=models.Unigram(), trainer=trainers.UnigramTrainer)
    assert "only byte-level BPE" in str(gguf_tokenizer.problem(unigram))
    changing = trained()
    changing.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert "normalizer" in str(gguf_tokenizer.problem(changing))
    model = small(48)
    assert gguf_write.write(model, tmp_path / "m.gguf", "F32", unknown) == gguf_tokenizer.problem(unknown)
    assert "tokenizer.ggml.tokens" not in gguf.GGUFReader(tmp_path / "m.gguf").fields
    gguf_write.read_again(tmp_path / "m.gguf", model)
