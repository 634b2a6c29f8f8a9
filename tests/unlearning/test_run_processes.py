"""``expunge run`` in two processes: one folder, one page of text, the weights of one process, one sentence when it fails."""

from __future__ import annotations

import os

import pytest
import torch
from bench_worker import ANSWER_TOKENS
from launch import launched
from safetensors.torch import load_file

from expunge import record, unlearn
from expunge.errors import InputError
from expunge.evaluation.probe import Ask
from expunge.unlearning import fluency


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = launched(tmp_path_factory)
    assert (folder / "bench" / "code-broken-1").exists(), (folder / "said").read_text()
    return folder / "bench"


def printed(place, out):
    """(stdout, stderr) of each process."""
    return [tuple((place / f"{name}-{out}-{rank}").read_text() for name in ("stdout", "stderr")) for rank in "01"]


def test_the_weights_and_figures_are_those_of_one_process(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(fluency, "ANSWER", Ask(ANSWER_TOKENS))
    one = unlearn(
        "model", forget="data/rows.json", retain="retain.json", method="npo", max_steps=3, out=str(tmp_path / "one"),
        disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    said = record.read(place / "run")
    whole, shared = (load_file(p / "model" / "model.safetensors") for p in (tmp_path / "one", place / "run"))
    start = load_file(place / "model" / "model.safetensors")
    assert whole.keys() == shared.keys()
    for name, weight in whole.items():
        torch.testing.assert_close(shared[name], weight, atol=1e-5, rtol=0)
    assert max((whole[n] - start[n]).abs().max() for n in whole) > 1e-5
    for when in ("before", "after"):
        assert said[when]["forget"] == pytest.approx(one.record[when]["forget"], rel=1e-4)
    assert [s["loss/forget"] for s in said["steps"]] == pytest.approx(
        [s["loss/forget"] for s in one.record["steps"]], rel=1e-4
    )
    assert said["output"]["check"]["rows"] == 2 and said["training"]["processes"] == 2
    assert said["training"]["per_device_train_batch_size"] == 3  # of five rows
    assert said["tokens"] == pytest.approx(one.record["tokens"], rel=0.2)  # padded to the longest of fewer rows
    assert not {"use_cpu", "ddp_backend"} & said["training"].keys()  # the launcher's, not the user's


def test_one_process_writes_and_prints(place):
    assert sorted(os.listdir(place / "run")) == ["README.md", "model", "report.html", "run.json"]
    (out, err), (other_out, other_err) = printed(place, "run")
    assert "run/run.json" in out and "unlearning" in err and "not been destroyed" not in err
    assert other_out == other_err == ""
    assert [(place / f"code-run-{rank}").read_text() for rank in "01"] == ["None", "None"]


def test_a_failure_is_said_once_and_ends_all(place):
    (_, err), (other_out, other_err) = printed(place, "broken")
    assert err.count("broken/model cannot be written (no space left on device), nor can any other folder") == 1
    assert other_out == other_err == ""
    assert [(place / f"code-broken-{rank}").read_text() for rank in "01"] == ["1", "1"]
    assert not (place / "broken" / "run.json").exists() and not (place / "broken" / "model").exists()


def test_from_python_a_launcher_starts_the_processes(place, monkeypatch):
    monkeypatch.chdir(place)
    with pytest.raises(InputError, match=r"processes = 2, and 1 was started: .*torchrun --nproc-per-node 2"):
        unlearn("model", forget="data/rows.json", retain="retain.json", processes=2, out="never")
