"""What people type that cannot be: each line of ``bad_inputs.txt`` is refused with its sentence before a model is read."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import tiny
import tiny_tofu
import tiny_tokenizer
import torch
from typer.testing import CliRunner

from expunge import models
from expunge.cli import app

SHORT = {
    "RUN": "run --model model --forget forget.jsonl --retain retain.jsonl",
    "RELEASE": "release --model model --forget forget.jsonl",
    "REVEAL": "reveal --model model",
    "BENCH": "bench tofu/forget01 --model model --data tofu",
    "UNLEARN": "bench tofu/forget01 --model model --data tofu --method npo",
    "ASK": "guard ask Who? --model model --targets targets.txt",
    "MEASURE": "guard measure --model model --targets targets.txt --forget forget.jsonl --retain retain.jsonl",
}
LONG = "x" * 5000
FILES = {
    "empty.toml": "",
    "empty.jsonl": "",
    "broken.jsonl": '{"question": "a", "answer": "b"}\n{"question": "a",\n',
    "binary.toml": b"\x89PNG\r\n\x1a\n\xff\xfe",
    "deep.toml": "a = " + "[" * 3000 + "]" * 3000,
    "deep.yaml": "a: " + "[" * 500 + "]" * 500,
    "huge.toml": "# " + "x" * (2 << 20),
    "digits.toml": "seed = " + "9" * 5000,
    "table.toml": 'model = "model"\nforget = "forget.jsonl"\nretain = "retain.jsonl"\n',
    "list.yaml": "- model\n- forget\n",
    "alias.yaml": "model: &m model\nforget: *m\n",
    "surrogate.yaml": 'model: "\\ud800"\nforget: forget.jsonl\n',
    "nul.toml": 'model = "model\\u0000"\nforget = "forget.jsonl"\n',
    "unknown.toml": 'model = "model"\nforgett = "forget.jsonl"\n',
    "nomethod.toml": 'model = "model"\nforget = "forget.jsonl"\n[method]\nbeta = 1\n',
    "types.toml": 'model = 3\nforget = "forget.jsonl"\n',
    "zero.toml": 'model = "model"\nforget = "forget.jsonl"\ntraining = 3\n',
    "r.yaml": "benchmark: tofu/forget01\nmodel: model\ndata: tofu\nmethods: {pdu: {}, npo: {}}\nmax_steps: 2\n",
    "targets.txt": "Ada\n",
    "exits.py": "import sys\n\nsys.exit(3)\n",
}
ROWS = [
    tuple(part.strip() for part in line.split(" | ", 2))
    for line in Path(__file__).with_name("bad_inputs.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, data, targets, a benchmark's files and recipes, good and bad."""
    folder = tmp_path_factory.mktemp("bad")
    tokenizer = tiny_tokenizer.make()
    tokenizer.save_pretrained(folder / "model")
    tiny.model(vocab_size=len(tokenizer)).save_pretrained(folder / "model")
    for name, people in (("forget", ("Ada", "Bo", "Cy")), ("retain", ("Di", "Ed", "Flo", "Gil"))):
        rows = [{"question": f"Where does {n} live?", "answer": f"{n} lives in {n}ville."} for n in people]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    for name, content in FILES.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (folder / "folder").mkdir()
    tiny_tofu.write(folder / "tofu")
    for name, n in (("forget01", 4), ("retain99", 5)):
        (folder / "tofu" / f"{name}.json").write_text("\n".join(map(json.dumps, tiny_tofu.rows(name, n))))
    return folder


def told(command):
    """(exit code, what is said on standard error) of a command line; without the usage that Typer prints before its own."""
    name, _, rest = command.partition(" ")
    words = shlex.split(f"{SHORT.get(name, name)} {rest}".replace("LONG", LONG))
    done = CliRunner().invoke(app, words, env={"COLUMNS": "1000"})
    said = done.stderr.replace(str(Path.cwd()), "PLACE").strip().splitlines()
    assert "Traceback" not in done.output and not done.stdout.strip(), done.output
    return done.exit_code, said[-1] if said and said[0].startswith("Usage") else "\n".join(said)


def files(place):
    """All but what Python keeps of a file that it has imported."""
    return sorted(p for p in place.rglob("*") if "__pycache__" not in p.parts)


@pytest.mark.parametrize(("code", "command", "sentence"), ROWS, ids=[row[1][:60] for row in ROWS])
def test_bad_inputs(place, monkeypatch, code, command, sentence):
    def never(*_, **__):
        raise AssertionError("a model was loaded")

    if torch.cuda.is_available() and command in ("RUN bf16=true", "RUN fp16=true"):
        pytest.skip("these can be on a GPU")
    monkeypatch.chdir(place)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("EXPUNGE_CACHE", str(place / "cache"))
    monkeypatch.setattr(models, "load", never)
    before = files(place)
    found, said = told(command)
    assert said.removeprefix("expunge: ").startswith(sentence.removesuffix("…")), said
    assert sentence.endswith("…") or said.removeprefix("expunge: ") == sentence
    assert found == int(code) and files(place) == before


def test_there_are_many():
    assert len(ROWS) >= 120 and len({row[1] for row in ROWS}) == len(ROWS)
