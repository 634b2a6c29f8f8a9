"""Tensors in safetensors files of a bounded size, read shard by shard."""

from __future__ import annotations

import one_mesh
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import Shard, distribute_tensor

from expunge.training import pieces


def some():
    return {f"w{i}": torch.arange(i, i + 6, dtype=torch.float32).reshape(3, 2) for i in range(5)}


def test_files_are_plain_and_bounded(tmp_path):
    pieces.write(tmp_path, "some", some().items(), limit=2 * 6 * 4)
    names = ["some.safetensors", "some-2.safetensors", "some-3.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)
    assert [sorted(load_file(tmp_path / name)) for name in names] == [["w0", "w1"], ["w2", "w3"], ["w4"]]
    with pieces.reading(tmp_path, "some") as held:
        assert held.names == set(some())
        assert all(torch.equal(held.read(name), value) for name, value in some().items())


def test_nothing_is_a_file_too(tmp_path):
    pieces.write(tmp_path, "some", [])
    assert pieces.exists(tmp_path, "some") and not pieces.exists(tmp_path, "other")


def test_a_full_disk_is_raised_after_the_last_tensor(tmp_path, monkeypatch):
    """Another process takes part in the making of each."""
    made = []

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pieces, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        pieces.write(tmp_path, "some", ((n, made.append(n) or w) for n, w in some().items()), limit=1)
    assert made == list(some())


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("dim", [0, 1])
def test_each_process_reads_its_shard(tmp_path, processes, dim):
    whole = torch.arange(15.0).reshape(5, 3)
    pieces.write(tmp_path, "some", [("w", whole)])
    for rank in range(processes):
        part = one_mesh.shard(whole, rank, processes, dim)
        wanted, part._local_tensor = part._local_tensor, torch.zeros_like(part._local_tensor)
        with pieces.reading(tmp_path, "some") as held:
            pieces.read_into(part, held, "w")
        assert torch.equal(part._local_tensor, wanted)


def test_a_shard_that_is_cut_otherwise_is_no_silent_mistake():
    part = one_mesh.shard(torch.zeros(5, 3), 0, 2)
    part._local_tensor = torch.zeros(2, 3)
    with pytest.raises(RuntimeError, match=r"a shard of \(5, 3\) is \(2, 3\), not \(3, 3\)"):
        pieces.index_of(part)


def test_dtensors_are_gathered_and_made_again(tmp_path):
    with one_mesh.mesh(tmp_path) as mesh:
        cut = distribute_tensor(some()["w3"], mesh, [Shard(0)])
        pieces.write(tmp_path, "some", [("w", cut)])
        assert torch.equal(load_file(tmp_path / "some.safetensors")["w"], some()["w3"])
        again = pieces.like(cut, some()["w1"])
        assert again.placements == cut.placements and torch.equal(again.full_tensor(), some()["w1"])
    assert torch.equal(pieces.like(some()["w0"], some()["w1"]), some()["w1"])
