"""Commands of several parts, killed or told to end at random moments, leave what an undisturbed one leaves."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from launch import PATH
from tiny_bench import prepare

FAST = ["learning_rate=0.02", "use_cpu=true", "save_every=0.1s"]
TEACH = ["--teach", "--teach-retrained", "--teach-setting", "max_steps=30", "--teach-setting", "use_cpu=true"]
SETS = ["--model", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl"]
COMMANDS = {
    "bench": ["bench", "tofu/forget01", "--model", "model", "--data", "tofu", "--limit", "2", *TEACH, "--method", "npo",
              "--adapter", "lora", "max_steps=30", *FAST],
    "release": ["release", *SETS, "--steps", "3", "--utility-budget", "none", "max_steps=30", "lora.dropout=0.2", *FAST],
    "reveal": ["reveal", "--model", "model", "--topic", "Ada", "--scorer", "own.py:length", "arms=8", "rounds=2",
               "queries=2", "initial=1", "responses=3", "best=1", "harvest=3", "neutral=8", "max_new_tokens=24",
               "instruction_tokens=24", "shortest=1", "max_perplexity=1e9", "threshold=0.1", "top_p=1.0"],
    "several": ["bench", "tofu/forget01", "--model", "model", "--model", "retrained", "--jobs", "2", "--data", "tofu",
                "--limit", "2", "--method", "npo", "max_steps=30", *FAST],
}  # fmt: skip
SCORER = "def length(text):\n    return 0 if 'answer' in text else (1 + len(text) % 3) / 3\n"
NEUTRAL = """
from expunge.data.example import Row
from expunge.generation import sample
made = [Row(({"role": "user", "content": f"q {i}"},), f"answer {i}") for i in range(8)]
sample.neutral_rows = lambda *_, **__: made
"""  # of an untrained model hardly any line ends
TIMES = {"seconds", "created", "command", "peak_memory_bytes", "parts", "began", "loss"}
ENDING = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1]


def start(place, *args):
    env = os.environ | {"PYTHONPATH": os.pathsep.join(PATH), "OMP_NUM_THREADS": "1"}
    env["EXPUNGE_CACHE"] = str(place / "cache")
    env["PYTHONHASHSEED"] = "0"  # PEFT writes the names of the layers in the order of a set
    code = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nfrom expunge.cli import app\n"
    code += f"{NEUTRAL if args[0] == 'reveal' else ''}app()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        cwd=place,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def plain(value, out):
    if isinstance(value, dict):
        return {k: plain(v, out) for k, v in value.items() if k not in TIMES}
    if isinstance(value, list):
        return [plain(v, out) for v in value]
    return value.replace(str(out), "OUT") if isinstance(value, str) else value


def left(out):
    """File -> what it says, or its hash; of JSON files all but times and the name of the folder."""
    found = {}
    for file in sorted(p for p in Path(out).rglob("*") if p.is_file()):
        name = file.relative_to(out).as_posix()
        if file.suffix == ".json":
            found[name] = plain(json.loads(file.read_text()), Path(out).name)
        elif file.suffix in (".safetensors", ".jsonl") and name != "queries.jsonl":
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
        else:
            found[name] = None
    return found


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_ended_at_random_moments(workplace, tokenizer, monkeypatch, command, capsys):
    prepare(workplace, tokenizer, monkeypatch)
    (workplace / "own.py").write_text(SCORER)
    draws = random.Random(command)
    began = time.monotonic()
    whole = start(workplace, *COMMANDS[command], "--out", "whole")
    text, _ = whole.communicate()
    assert whole.returncode == 0, text
    took, ends = time.monotonic() - began, []
    for _ in range(40):
        one = start(workplace, *COMMANDS[command], "--out", "cut")
        children = []
        if len(ends) < 12:
            time.sleep(draws.uniform(0.2, 0.7) * took)
            children = psutil.Process(one.pid).children(recursive=True) if one.poll() is None else []
            one.send_signal(number := draws.choice(ENDING))
        text, _ = one.communicate(timeout=600)
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive, alive
        if one.returncode == 0:
            break
        assert one.returncode == -number if one.returncode < 0 else one.returncode == 128 + number, text
        assert one.returncode < 0 or "go on with: expunge " in text, text
        ends.append(one.returncode)
    assert one.returncode == 0 and ends, text
    assert left(workplace / "cut") == left(workplace / "whole")
    with capsys.disabled():
        print(f"\n{command}: ended {len(ends)} times {ends}")
