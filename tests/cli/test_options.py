"""The options that every command shares, and that they are those of the settings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import tiny_tofu
import torch
from intervals import few_resamples
from peft import PeftModel
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

import expunge
from expunge.bench.settings import Bench
from expunge.cli import app, quiet
from expunge.cli.options import described, from_settings
from expunge.compare.settings import Compare
from expunge.data.sources import load_rows
from expunge.demo.settings import Demo
from expunge.evaluation import figures
from expunge.evaluation.collect.one_pass import collect
from expunge.evaluation.probe import Ask, EvaluationOptions
from expunge.guard.settings import GuardOptions, MeasureOptions, Settings
from expunge.models.tokenizer import load_tokenizer
from expunge.plan.settings import Plan
from expunge.release.settings import Release
from expunge.reveal.settings import Reveal
from expunge.tune.settings import Tune
from expunge.unlearning.settings import Recipe

FAST = ["max_steps=1", "use_cpu=true"]
DATA = ["--model", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl"]
GUARD = ["--model", "model", "--targets", "targets.txt"]
TRAINS = {"out", "seed", "device", "chat-template", "overwrite", "quiet", "json", "dry-run", "limit"}
SHARED = {
    "run": TRAINS | {"dtype"},
    "plan": TRAINS - {"dry-run"} | {"dtype"},
    "release": TRAINS | {"dtype"},
    "reveal": TRAINS - {"limit"} | {"dtype"},
    "bench": TRAINS | {"dtype"},
    "compare": TRAINS | {"dtype"},
    "tune": TRAINS | {"dtype"},
    "rescore": {"quiet", "json"},
    "cache": {"quiet", "json", "dry-run"},
    "demo": TRAINS | {"dtype"},
    "guard ask": {"seed", "device", "dtype", "chat-template", "quiet", "json", "dry-run"},
    "guard serve": {"seed", "device", "dtype", "chat-template", "quiet", "dry-run"},
    "guard measure": TRAINS | {"dtype"},
    "methods": {"json"},
    "show": {"json"},
}
KINDS = {
    "run": (Recipe,),
    "plan": (Plan, Recipe),
    "release": (Release, Recipe),
    "reveal": (Reveal,),
    "bench": (Bench, EvaluationOptions),
    "compare": (Compare,),
    "tune": (Tune,),
    "demo": (Demo,),
    "guard ask": (Settings, GuardOptions),
    "guard serve": (Settings, GuardOptions),
    "guard measure": (MeasureOptions, Settings, GuardOptions),
}


def call(*args):
    return CliRunner().invoke(app, list(args))


def options(command):
    """Option -> its help, in one line."""
    done = call(*command.split(), "--help")
    assert done.exit_code == 0, done.output
    parts = re.split(r"\n  (?:-\w, )?--", done.output.split("\nOptions:\n")[1].join(["\n", ""]))[1:]
    return {re.split(r"[ \n]", part)[0]: " ".join(part.split()) for part in parts}


def contents(folder):
    """Every file and folder with its content."""
    return {p.relative_to(folder): p.read_bytes() if p.is_file() else None for p in Path(folder).rglob("*")}


def never(*_, **__):
    raise AssertionError("a model was loaded")


@pytest.fixture
def place(workplace, tokenizer, monkeypatch):
    """A folder with a model, data, targets and TOFU's files; the cache lies elsewhere."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(workplace.parent / "cache"))
    monkeypatch.setattr("expunge.benchmarks.tofu.ANSWER", Ask(8))
    few_resamples(monkeypatch.setattr)
    tiny.model(vocab_size=len(tokenizer), max_position_embeddings=8192).save_pretrained("model")
    (workplace / "targets.txt").write_text("Ada\n")
    tiny_tofu.write(workplace / "tofu")
    for name, n in (("forget01", 4), ("retain99", 5)):
        rows = "\n".join(map(json.dumps, tiny_tofu.rows(name, n)))
        (workplace / "tofu" / f"{name}.json").write_text(rows)
    (workplace / "r.yaml").write_text(
        "benchmark: tofu/forget01\nmodel: model\ndata: tofu\nmethods: {pdu: {}, npo: {}}\n"
        "training: {max_steps: 2, batch_size: 2, use_cpu: true}\n"
    )
    return workplace


@pytest.mark.parametrize("command", SHARED)
def test_every_command_has_the_shared_options(command):
    assert SHARED[command] <= set(options(command))


@pytest.mark.parametrize("command", KINDS)
def test_defaults_shown_are_those_of_the_settings(command):
    shown, compared = options(command), set()
    for kind in KINDS[command]:
        for name, field in described(kind).items():
            flag = name.replace("_", "-")
            if flag not in shown or flag in compared:
                continue
            compared.add(flag)
            found = re.search(r"\[default: (.*)\]$", shown[flag])
            if field.default is True:
                assert found and found[1] == flag
            elif isinstance(field.default, int | float | str) and field.default is not False:
                assert found and found[1] == str(field.default), (flag, shown[flag])
            elif flag != "rank":  # its text says what none is
                assert not found, shown[flag]
    assert len(compared) >= 4


def test_the_folder_that_is_written_is_shown():
    assert "[default: guarded]" in options("guard measure")["out"]
    assert "[default: expunge-demo]" in options("demo")["out"]


def test_version_and_a_start_without_torch():
    assert call("--version").output == f"expunge {expunge.__version__}\n"
    code = (
        "import sys; from expunge.cli import app; app(['--help'], standalone_mode=False); "
        "print(sorted({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.endswith("[]\n")


PLANS = [
    (["run", *DATA, "--method", "npo", "max_steps=7"], {"method": "npo", "steps": 7, "out": "unlearned"}),
    (["run", *DATA, "--limit", "2", "epochs=3", "batch_size=1", "gradient_accumulation_steps=1"], {"steps": 6}),
    (["release", *DATA, "--steps", "3"], {"method": "release", "steps": 3, "out": "unlearned"}),
    (["reveal", "--model", "model", "--topic", "Ada", "rounds=2", "queries=4"], {"steps": 8, "out": "revealed"}),
    (["bench", "tofu/forget01", "--model", "model", "--data", "tofu"], {"benchmark": "tofu/forget01", "steps": 0}),
    (["bench", "tofu/forget01", "--model", "model", "--data", "tofu", "--method", "pdu", *FAST], {"steps": 1}),
    (["compare", "r.yaml", "forget_figure=forget/probability", "utility_figure=retain/probability"], {"steps": 2}),
    (["tune", *DATA, "--method", "npo", "max_steps=7"], {"trials": 20, "steps": 7, "out": "tuned"}),
    (["guard", "ask", "Who?", *GUARD, "--log", "log"], {"targets": 1}),
    (["guard", "measure", *GUARD, *DATA[2:]], {"data": {"forget": 3, "retain": 5}, "out": "guarded/figures.json"}),
]


@pytest.mark.parametrize(("command", "said"), PLANS, ids=[f"{i}-{c[0]}" for i, (c, _) in enumerate(PLANS)])
def test_a_dry_run_checks_and_writes_nothing(place, monkeypatch, command, said):
    monkeypatch.setattr("expunge.models.load", never)
    if command is not PLANS[0][0]:  # the memory of one run is worked out
        monkeypatch.setattr("expunge.cli.run.memory_plan", lambda *_, **__: {})
    before = contents(place)
    done = call(*command, "--dry-run", "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    plan = json.loads(done.stdout)
    assert plan["dry_run"] and plan["model"] == "model" and plan.items() >= said.items(), plan
    text = call(*command, "--dry-run")
    assert text.exit_code == 0 and "model" in text.stdout and "Nothing was written." in text.stdout
    assert contents(place) == before


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["run", *DATA, "--forget", "none.jsonl"], "none.jsonl"),
        (["run", *DATA, "lerning_rate=1"], "did you mean 'learning_rate'"),
        (["run", *DATA, "--dtype", "bfloat16", "--adapter", "lora", "--merge"], "no merge"),
        (["run", *DATA, "--out", "forget.jsonl"], "in the way"),
        (["release", *DATA, "--dtype", "bfloat16", "--merge"], "no merge"),
        (["reveal", "--model", "model"], "say what the model should forget"),
        (["guard", "measure", *GUARD, *DATA[2:], "--out", "forget.jsonl"], "in the way"),
        (["guard", "measure", *GUARD, *DATA[2:], "--limit", "0"], "limit must be at least 1, not 0"),
        (["demo", "--limit", "0"], "the demo: limit = 0 does not fit"),
        (["demo", "--dtype", "float16"], "the demo: dtype = 'float16' does not fit"),
        (["run", *DATA, "lr=1", "learning_rate=2"], "the same setting"),
    ],
)
def test_a_dry_run_says_what_is_wrong(place, command, said):
    before = contents(place)
    done = call(*command, "--dry-run", "--json")
    assert done.exit_code == 2 and said in done.stderr and not done.stdout, done.output
    assert done.stderr.strip().count("\n") == 0 and contents(place) == before


def test_a_run_as_json(place):
    done = call("run", *DATA, *FAST, "--method", "pdu", "--json", "--limit", "2")
    assert done.exit_code == 0, done.output
    value = json.loads(done.stdout)
    log = json.loads((place / "unlearned" / "run.json").read_text())
    assert value == log | {"out": "unlearned"} and value["data"]["retain"]["rows"] == 2


def test_a_quiet_run_says_nothing_but_warnings(place):
    done = call("run", *DATA, *FAST, "--method", "pdu", "--quiet", "--out", "quiet")
    assert done.exit_code == 0 and not done.stdout and (place / "quiet" / "report.html").exists()
    assert all("warning" in line for line in done.stderr.splitlines()), done.stderr
    assert "unlearning" in call("run", *DATA, *FAST, "--method", "pdu", "--out", "loud").stderr  # the bar


def test_bars_come_back(capsys):
    from tqdm.auto import tqdm

    with quiet.without_bars():
        list(tqdm(range(2), disable=False))
        tqdm.write("x", file=sys.stderr)
    assert capsys.readouterr().err == ""
    list(tqdm(range(2), disable=False))
    assert "2/2" in capsys.readouterr().err


def test_a_release_over_weights_in_bfloat16_is_what_its_adapter_does_to_them(place):
    more = ["--dtype", "bfloat16", "--steps", "2", "--utility-budget", "none", "lora.r=2", "lora.alpha=2", "lr=0.02"]
    done = call("release", *DATA, *FAST, "max_steps=5", *more, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    log = json.loads(done.stdout)
    assert log["model"]["dtype"] == "bfloat16" and log["after"]["forget"]["nll"] != log["before"]["forget"]["nll"]
    base = AutoModelForCausalLM.from_pretrained("model", dtype=torch.bfloat16)
    net = PeftModel.from_pretrained(base, "unlearned/model", autocast_adapter_dtype=True).eval()
    rows = load_rows("forget.jsonl")
    found = collect(net, load_tokenizer("model"), figures.probes("forget", rows))
    assert figures.figures(found, "forget")["nll"] == pytest.approx(log["after"]["forget"]["nll"], rel=2e-3)


def test_frozen_weights_in_bfloat16(place):
    done = call(
        "run", *DATA, *FAST, "--method", "pdu", "max_steps=3", "--dtype", "bfloat16", "--adapter", "lora", "--json"
    )
    assert done.exit_code == 0, (done.output, done.exception)
    value = json.loads(done.stdout)
    assert value["model"]["dtype"] == "bfloat16" and value["after"]["forget"]["nll"] > 0
    from safetensors.torch import load_file

    factors = load_file(place / "unlearned" / "model" / "adapter_model.safetensors")
    assert {str(t.dtype) for t in factors.values()} == {"torch.float32"}
    assert any(t.abs().max() > 0 for name, t in factors.items() if "lora_B" in name)


def test_json_of_the_other_commands(place):
    pytest.importorskip("rouge_score", reason="needs expunge[bench]")
    words = ["--max-tokens", "4", "--agent-tokens", "8", "--retries", "0"]
    said = json.loads(call("guard", "ask", "Where is Ada?", *GUARD, *words, "--json").stdout)
    assert said["outcome"] == "refused" and "trail" not in said
    done = call("guard", "measure", *GUARD, *DATA[2:], *words, "--limit", "1", "--json")
    assert json.loads(done.stdout)["out"] == "guarded/figures.json", done.output
    assert json.loads((place / "guarded" / "figures.json").read_text())["figures"]["forget"]["n"] == 1
    again = call("guard", "measure", *GUARD, *DATA[2:], "--model", "nowhere/at-all")
    assert again.exit_code == 2 and "--overwrite" in again.stderr
    bench = ["bench", "tofu/forget01", "--model", "model", "--data", "tofu", "--limit", "1", "--json"]
    done = call(*bench)
    value = json.loads(done.stdout)
    assert value["out"] == "figures" and value["figures"]
    assert json.loads(call("rescore", "figures", "--json").stdout)["figures"] == value["figures"]
    assert not call("rescore", "figures", "--quiet").stdout
    assert {m["name"] for m in json.loads(call("methods", "--json").stdout)["methods"]} >= {"pdu", "npo"}
    assert json.loads(call("show", "npo", "--json").stdout)["page"] + "\n" == call("show", "npo").stdout


def test_a_yaml_recipe_runs(place):
    (place / "run.yaml").write_text(
        "model: model\nforget: forget.jsonl\nretain: retain.jsonl\nmethod: {name: npo, beta: 0.5}\nlr: 1e-4\n"
    )
    done = call("run", "run.yaml", *FAST, "--json")
    log = json.loads(done.stdout)
    assert log["method"]["parameters"]["beta"] == 0.5 and log["training"]["learning_rate"] == 1e-4


def test_a_signal_while_the_settings_are_imported_stays_that_signal(tmp_path, monkeypatch):
    (tmp_path / "settings_of_a_slow_import.py").write_text("raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        from_settings("settings_of_a_slow_import.Settings")(lambda given: None).build()
