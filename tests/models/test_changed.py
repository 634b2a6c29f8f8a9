"""A model's files by size and time: what is changed is seen, what is copied or somewhere else is not taken for changed."""

from __future__ import annotations

import os
import shutil

from expunge.models.changed import changed, stamps


def test_a_file_that_was_written_again_is_another(workplace):
    before = stamps("model")
    assert len(before) == 1 and changed(before, "model") is None
    shutil.copytree("model", "copy")
    assert changed(before, "copy") is None and changed(None, "model") is None and changed(before, "nowhere") is None
    file = workplace / "model" / "model.safetensors"
    os.utime(file, ns=(0, 1))
    assert changed(before, "model") == str(file)
    (workplace / "model" / "model-2.safetensors").write_bytes(b"")
    assert changed(stamps("copy") | stamps("model"), "copy") is not None


def test_the_base_of_an_adapter_is_part_of_it(workplace):
    adapter = workplace / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "../model"}')
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    before = stamps("adapter")
    assert sorted(p.rsplit("/", 2)[1] for p in before) == ["adapter", "model"]
    os.utime(workplace / "model" / "model.safetensors", ns=(0, 1))
    assert changed(before, "adapter") == str(workplace / "model" / "model.safetensors")
