"""What is written to a GGUF file is read again by transformers, weight by weight."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from expunge.errors import InputError
from expunge.models import gguf_write

gguf = pytest.importorskip("gguf")


def small(kind: str, tied: bool):
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](
        vocab_size=48, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=64, tie_word_embeddings=tied, rope_theta=5e4,
        pad_token_id=0, bos_token_id=1, eos_token_id=0,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1:
                p.copy_(1 + torch.randn_like(p) / 10 if "bias" not in name else torch.randn_like(p) / 10)
    return model


@pytest.mark.parametrize(("kind", "tied"), [("llama", True), ("llama", False), ("qwen2", True), ("qwen3", False)])
def test_a_file_in_full_precision_is_the_same_model(kind: str, tied: bool, tmp_path: Path, capfd) -> None:
    model, file = small(kind, tied), tmp_path / "m.gguf"
    gguf_write.write(model, file, "F32")
    again = gguf_write.read_again(file, model)
    assert type(again) is type(model) and capfd.readouterr() == ("", "")
    own = dict(model.named_parameters())
    assert set(own) == {n for n, _ in again.named_parameters()}
    for name, p in again.named_parameters():
        torch.testing.assert_close(p.detach(), own[name].detach(), atol=0, rtol=0, msg=name)
    ids = torch.arange(8)[None]
    torch.testing.assert_close(again(ids).logits, model(ids).logits)


def test_matrices_are_rounded_and_vectors_are_not(tmp_path: Path) -> None:
    model = small("llama", True)
    for kind, embeddings in (("Q8_0", "Q8_0"), ("Q4_0", "Q8_0")):
        gguf_write.write(model, tmp_path / "m.gguf", kind)
        again = dict(gguf_write.read_again(tmp_path / "m.gguf", model).named_parameters())
        for name, p in model.named_parameters():
            if p.ndim == 2:
                held = gguf.GGMLQuantizationType[embeddings if "embed" in name else kind]
                values = p.detach().numpy()
                rotated = gguf_write.rotated(values, name, model.config)
                stored = gguf.dequantize(gguf.quantize(rotated, held), held)
                want = gguf.dequantize(gguf.quantize(values, held), held) if rotated is values else None
                assert again[name].shape == p.shape and not torch.equal(again[name], p)
                if want is not None:
                    torch.testing.assert_close(again[name].detach(), torch.from_numpy(want.copy()))
                got = again[name].flatten().sort().values
                torch.testing.assert_close(got, torch.from_numpy(stored.copy()).flatten().sort().values)
            else:
                assert torch.equal(again[name], p)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=16))
    with pytest.raises(InputError, match="a gpt2 model cannot be written as GGUF"):
        gguf_write.write(model, tmp_path / "m.gguf", "Q8_0")
    with pytest.raises(InputError, match="Q8_0, Q4_0, F32"):
        gguf_write.write(small("llama", True), tmp_path / "m.gguf", "Q3_K")
    assert list(tmp_path.iterdir()) == []
