"""How much a run will write, from the headers alone."""

from __future__ import annotations

import tiny
import torch

from expunge.models.size import written_bytes


def test_whole_weights_are_about_the_size_of_the_files_in_float32(tmp_path):
    tiny.model(vocab_size=4000, hidden_size=64, intermediate_size=128).save_pretrained(tmp_path / "model")
    tiny.model(vocab_size=4000, hidden_size=64, intermediate_size=128).to(torch.bfloat16).save_pretrained(
        tmp_path / "half"
    )
    size = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert size < written_bytes(tmp_path / "model") < 1.03 * size + 1_000_001
    assert written_bytes(tmp_path / "half") == written_bytes(tmp_path / "model")  # training is in float32
    assert written_bytes(tmp_path / "model", lora_rank=4, merge=True) == written_bytes(tmp_path / "model")
    assert written_bytes(tmp_path / "model", checkpoints=1) > 5 * size


def test_factors_are_small_and_what_is_not_here_is_not_known(tmp_path):
    tiny.model().save_pretrained(tmp_path / "model")
    matrices = [p.shape for p in tiny.model().parameters() if p.dim() == 2]
    by_hand = round(1.02 * 4 * 4 * sum(map(sum, matrices))) + 1_000_000
    assert written_bytes(tmp_path / "model", lora_rank=4) == by_hand
    assert written_bytes("no-such-model/anywhere/at-all") is None
    (tmp_path / "model" / "model.safetensors").write_bytes(b"\xff" * 16)
    assert written_bytes(tmp_path / "model") is None
