"""Training goes on from a checkpoint on the same or on another number of processes, in shards or not."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import launch
import processes_worker as worker
import pytest
import tiny
import torch

from expunge.errors import InputError
from expunge.training import resume, sharded

needs_shards = pytest.mark.skipif(not sharded.runs_on_cpu(), reason="this torch shards on no CPU")
ROWS = [
    ("ddp", "full/adamw/pdu"),
    *(pytest.param("fsdp2", name, marks=needs_shards) for name in ("full/adamw/pdu", "lora/asked")),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What one process makes of a row without an interruption, and the folder of its checkpoint."""
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("whole")
            made[name] = (*worker.trained(worker.rows()[name], folder, "single", 1), folder)
        return made[name]

    return get


def left_in(factory, strategy, name):
    """(the folder of two processes, what they said of the row ``name``)."""
    folder = launch.launched(factory) / strategy
    file = folder / f"{worker.file_of(name)}.json"
    assert file.exists(), (folder.parent / "said").read_text()
    return folder, json.loads(file.read_text())


@pytest.mark.parametrize(("strategy", "name"), ROWS)
def test_two_processes_go_on_to_the_bit(strategy, name, tmp_path_factory, whole):
    folder, said = left_in(tmp_path_factory, strategy, name)
    assert said == {"same": True, "steps": worker.STEPS}
    moved = torch.load(folder / f"{worker.file_of(name)}.pt", weights_only=True)
    torch.testing.assert_close(moved, whole(name)[0], atol=1e-5, rtol=0)
    assert moved.abs().max() > 1e-3


@pytest.mark.parametrize(("strategy", "name"), ROWS)
def test_one_process_goes_on_from_two(strategy, name, tmp_path_factory, tmp_path, whole):
    folder, _ = left_in(tmp_path_factory, strategy, name)
    (place,) = (folder / worker.file_of(name)).rglob(f"checkpoint-{worker.SAVED}")
    moved, log, state = worker.trained(worker.rows()[name], tmp_path, "single", 1, place)
    torch.testing.assert_close(moved, whole(name)[0], atol=1e-5, rtol=0)
    assert len(log) == worker.STEPS and state == pytest.approx(whole(name)[2], abs=1e-4)


def test_dropout_of_another_number_of_processes_is_said(tmp_path, whole):
    _, log, _, folder = whole("full/dropout")
    shutil.copytree(folder / f"checkpoint-{worker.SAVED}", place := tmp_path / f"checkpoint-{worker.SAVED}")
    (place / "rng_state.pth").rename(place / "rng_state_0.pth")
    shutil.copy(place / "rng_state_0.pth", place / "rng_state_1.pth")
    t = worker.trainer(worker.rows()["full/dropout"], tmp_path, "single", 1)
    t.train(str(place))
    assert any("went on in 1 process and had begun in 2" in sentence for sentence in t.warnings)
    assert [row["loss"] for row in t.state.log_history[:2]] == [row["loss"] for row in log[:2]]
    again = worker.trainer(worker.rows()["full/dropout"], tmp_path, "single", 1)
    again.train(str(place))
    assert not tiny.delta(again.model, t.model).any()  # other numbers, and each time the same


def test_without_dropout_nothing_is_said_of_it():
    assert not resume._drops_out(tiny.model())
    assert resume._drops_out(tiny.model(attention_dropout=0.1))
    assert resume._drops_out(torch.nn.Sequential(torch.nn.Dropout(0.1)))


def test_a_run_in_shards_refuses_weights_that_it_cannot_read(tmp_path):
    t = SimpleNamespace(shards=object(), model=tiny.model())
    with pytest.raises(
        InputError, match=r"has no trained\.safetensors, which a run in shards goes on from; use --fresh"
    ):
        resume.ResumableTrainer._load_from_checkpoint(t, str(tmp_path))
