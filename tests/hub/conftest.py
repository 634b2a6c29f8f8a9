from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import tiny_hub

BASE = "EleutherAI/pythia-14m"
SECRET = "Zebulon Quark lives in Oru"


@pytest.fixture(scope="session")
def hub_server():
    server = tiny_hub.Hub()
    yield server
    server.close()


@pytest.fixture
def hub(hub_server, monkeypatch):
    """The stand-in, empty, in the Hub's place; a token that may write."""
    import huggingface_hub
    from huggingface_hub import constants

    for held in (hub_server.repos, hub_server.private, hub_server.blobs, hub_server.requests, hub_server.commits):
        held.clear()
    hub_server.role = "write"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub_server.address)
    monkeypatch.setattr(huggingface_hub.hf_api.constants, "ENDPOINT", hub_server.address)
    monkeypatch.setattr("huggingface_hub._commit_api.is_xet_available", lambda: False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: tiny_hub.TOKEN)
    return hub_server


def finished(folder: Path, tiny_model: Path, **changes: object) -> Path:
    """A run's folder as expunge leaves it: a model, a record that quotes, an audit, and files that hold forget data."""
    shutil.copytree(tiny_model, folder / "model")
    record = {
        "schema": 1,
        "expunge": "0.2.0",
        "command": f"expunge run --model /home/someone/target --forget /home/someone/{SECRET}.jsonl",
        "title": SECRET,
        "method": {
            "name": "pdu_level",
            "paper": "arXiv:2506.05314",
            "parameters": {"step_size": 5.0, "forget": "/home/someone/mine.py:loss"},
        },
        "model": {"source": BASE, "fingerprint": "sha256:aa", "parameters": 22, "dtype": "float32"},
        "output": {"path": "model", "fingerprint": "sha256:bb"},
        "data": {"forget": {"source": f"/home/someone/{SECRET}.jsonl", "rows": 3, "fingerprint": "sha256:cc"}},
        "training": {"learning_rate": 1e-5, "output_dir": "/home/someone/out"},
        "seed": 7,
        "steps": [{"step": 1}, {"step": 2}],
        "before": {"forget": {"probability": 0.75, "n": 3}, "retain": {"probability": 0.5, "n": 5}},
        "after": {"forget": {"probability": 0.125, "n": 3}, "retain": {"probability": 0.4375, "n": 5}},
        "examples": [{"set": "forget", "question": "Who?", "expected": SECRET}],
        "warnings": [SECRET],
        "versions": {"torch": "2.13.0"},
        "private_files": ["run.json", "alternates.json"],
        **changes,
    }
    finding = {
        "name": "recall/forget", "question": "gone", "outcome": "passed", "value": 0.0625, "low": 0.01, "high": 0.1,
        "n": 3, "limit": 0.15, "better": "lower", "decides": True, "meaning": "the recall of the answers",
    }  # fmt: skip
    audit = {
        "schema": 1,
        "kind": "audit",
        "title": SECRET,
        "verdict": {
            "word": "partly",
            "sentence": "one attack brings half of it back",
            "findings": [finding],
            "not_concluded": ["whether /home/someone/other was kept"],
        },
        "models": {"unlearned": {"source": "/home/someone/out/model", "fingerprint": "sha256:bb"}},
        "worst": [{"where": "row 1", "answer": SECRET}],
    }
    (folder / "audit").mkdir()
    for name, value in (("run.json", record), ("audit/audit.json", audit), ("alternates.json", {"rows": [SECRET]})):
        (folder / name).write_text(json.dumps(value))
    (folder / "model" / "notes.txt").write_text(SECRET)
    (folder / "model" / "stolen.py").write_text(SECRET)
    os.symlink(folder / "run.json", folder / "model" / "vocab.json")
    return folder


@pytest.fixture
def run_folder(tmp_path, tiny_model):
    return finished(tmp_path / "unlearned", tiny_model)
