"""The table of processes, strategies and methods: what it holds of each row, and (slow) that every row holds its bounds."""

from __future__ import annotations

import json

import processes_worker as worker
import pytest
import torch
from perf import processes


def test_what_is_done_is_compared_with_one_process(tmp_path):
    for folder, weights in (("one", [1.0, 2.0]), ("two", [1.0, 2.5])):
        (tmp_path / folder).mkdir()
        torch.save(torch.tensor(weights), tmp_path / folder / "full_npo.pt")
        (tmp_path / folder / "full_npo.json").write_text(json.dumps({"same": folder == "one", "steps": 4}))
    found = processes.compared(["full/npo", "lora/npo"], tmp_path / "two", tmp_path / "one")
    assert found == {"full/npo": {"off": 0.5, "further": 0.5, "same": False, "steps": 4}}
    assert processes._cell(found["full/npo"]) == "5.0e-01 (50.00%) ≠" and processes._cell(None) == "–"
    assert processes._cell({"off": 1e-8, "further": 0.0, "same": True}) == "1.0e-08 ="


def test_zero_refuses_what_combines_gradients():
    rows = worker.rows()
    assert processes.under_zero(rows["full/npo"]) == "allowed"
    assert "use FSDP2, DDP or one process" in processes.under_zero(rows["lora/blur_npo"])
    assert "takes gradients apart" in processes.under_zero(rows["full/sophia/hutchinson"])
    assert "turns whole weights round" in processes.under_zero(rows["full/task_vector+scale=0.5"])


@pytest.mark.slow
def test_every_row_holds_its_bounds(tmp_path, capsys):
    assert processes.main(["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]) == 0
    said = json.loads((tmp_path / "out" / "processes.json").read_text())
    for kind, names in worker.kinds(worker.rows()).items():
        for run, rows in said["rows"].items():
            assert set(names) <= rows.keys(), run
            for name in names:
                assert rows[name]["same"], f"{name}, {run}: going on gave something else"
                most = {"first order": 0.0, "Sophia": 0.005, "dropout": 1.0}[kind]
                assert rows[name]["further"] <= most, f"{name}, {run}"
    for pair, rows in said["other_processes"].items():
        assert rows.keys() == set(processes.FEW), pair
        assert all(row["further"] <= 0.005 for row in rows.values()), pair
    with capsys.disabled():
        print((tmp_path / "out" / "README.md").read_text())
