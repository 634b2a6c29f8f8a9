"""The check of a GPU, rehearsed on a CPU: its rows pass, and fail where something is wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from perf.gpu import check, commands, contract, kernels, resume, rows, syncs

import expunge.forward.kernels as own
from expunge.training import waits

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def loud(monkeypatch):
    """What silences libraries for good is left out."""
    monkeypatch.setattr(rows, "silence", lambda: None)


def go(tmp_path, only, *more):
    out = tmp_path / "check.json"
    code = check.main(["--device", "cpu", "--size", "small", "--only", only, "--out", str(out), *more])
    return code, json.loads(out.read_text())["rows"]


def test_what_is_right_passes(tmp_path, capsys):
    code, found = go(
        tmp_path, r"kernel/|contract/npo\+retain=kl/(full|lora_on_bf16)/bf16|contract/pdu\+budget=3.*/full/fp32"
    )
    assert code == 0 and {row["status"] for row in found.values()} == {"passed"}
    names = set(found)
    assert {"kernel/margin_of_linear/bfloat16", "contract/npo+retain=kl/lora_on_bf16/bf16/adapter_off"} <= names
    assert 1e-4 < found["contract/npo+retain=kl/full/bf16"]["figures"]["relative"] < 0.05  # it did compute in bf16
    assert found[next(n for n in names if "pdu" in n)]["figures"]["multiplier"] != 2.0  # and λ moved
    said = capsys.readouterr().out
    assert said.count("passed") == len(found) + 2 and "contract" in said  # a line each, and a line a kind


@pytest.mark.parametrize(
    ("kernel", "only"),
    [
        ("kl_divergence", r"kernel/kl/float32|kl/full/fp32"),
        ("margin_of_linear", r"kernel/margin_of_linear|t/pdu\+budget=3.*/full/fp32"),
    ],
)
def test_what_is_wrong_fails_and_stops_nothing(tmp_path, monkeypatch, capsys, kernel, only):
    right = getattr(own, kernel)
    monkeypatch.setattr(own, kernel, lambda *given: 1.05 * right(*given))
    monkeypatch.setitem(kernels.KERNELS, "kl", (own.kl_divergence, *kernels.KERNELS["kl"][1:]))
    monkeypatch.setitem(
        kernels.KERNELS, "margin_of_linear", (own.margin_of_linear, *kernels.KERNELS["margin_of_linear"][1:])
    )
    code, found = go(tmp_path, only)
    failed = {name: row["reason"] for name, row in found.items() if row["status"] == "failed"}
    assert code == 1 and len(failed) >= 2, found
    assert any("from float64" in why for why in failed.values()), failed
    assert any("than on the CPU" in why or "the multiplier is" in why for why in failed.values()), failed
    assert capsys.readouterr().out.count("FAILED") == len(failed)


def test_a_reference_in_another_form_than_the_rows_name_says_fails():
    trainer = contract.three_steps(contract.IDS.index("npo+retain=kl"), "full", False, CPU)
    contract.check_form(trainer, "full", False)
    with pytest.raises(AssertionError, match="should be the copy"):
        contract.check_form(trainer, "full", True)


def test_every_method_weight_and_form_has_a_row():
    names = [row.name for row in contract.rows(CPU)]
    plain = [n for n in names if not n.endswith(("/copy", "/adapter_off"))]
    assert len(plain) == 5 * len(contract.ROWS) and len(set(names)) == len(names)
    for name in ("rmu+layer=0+steering_coefficient=20.0+trainable=.+retain_weight=3.0", "undial"):
        assert {f"contract/{name}/full/fp32/copy", f"contract/{name}/lora/fp32/adapter_off"} <= set(names)


def test_a_row_that_raises_is_recorded_with_its_place_and_the_rest_goes_on(tmp_path):
    def broken():
        raise ZeroDivisionError("here")

    def too_large():
        raise torch.OutOfMemoryError("CUDA out of memory")

    some = [rows.Row("a", broken), rows.Row("b", too_large), rows.Row("c", lambda: {"x": 1.0})]
    out = tmp_path / "log.json"
    found = rows.run(some, CPU, out)["rows"]
    assert [found[n]["status"] for n in "abc"] == ["failed", "out of memory", "passed"]
    assert found["a"]["reason"] == "ZeroDivisionError: here" and "broken" in found["a"]["where"][-1]
    assert json.loads(out.read_text())["rows"] == found

    again = rows.run([rows.Row(n, lambda: {"x": 2.0}) for n in "abcd"], CPU, out)["rows"]
    assert [again[n].get("figures") for n in "abcd"] == [{"x": 2.0}, None, {"x": 1.0}, {"x": 2.0}]  # b and c are done
    late = rows.run([rows.Row("e", dict)], CPU, out, seconds=-1)["rows"]
    assert late["e"]["status"] == "not reached" and late["c"] == found["c"]

    log = json.loads(out.read_text())
    out.write_text(json.dumps(log | {"about": log["about"] | {"card": "another"}}))
    with pytest.raises(SystemExit, match="figures of another"):
        rows.run(some, CPU, out)


def test_steps_are_taken_under_the_watch(monkeypatch):
    modes = []
    monkeypatch.setattr(waits, "forbid", lambda device, on: modes.append(on))
    for measure, expected in ((syncs.one_by_one, [True, False] * 3), (syncs.whole_loop, [True, True, True, False])):
        modes.clear()
        with pytest.raises(rows.Skipped, match="only CUDA can tell"):
            measure("npo_kl", "lora", CPU)
        assert modes == expected


def test_a_step_that_raises_leaves_no_watch(monkeypatch):
    modes = []
    monkeypatch.setattr(waits, "forbid", lambda device, on: modes.append(on))
    monkeypatch.setattr(syncs, "FIRST", 1)

    def broken(trainer, model, batch, *more):
        if modes:
            raise RuntimeError("called a synchronizing CUDA operation")
        return torch.tensor(0.0)

    monkeypatch.setattr(syncs.tiny.UnlearningTrainer, "training_step", broken)
    for measure in (syncs.one_by_one, syncs.whole_loop):
        modes.clear()
        with pytest.raises(RuntimeError, match="synchronizing"):
            measure("npo_kl", "lora", CPU)
        assert modes == [True, False]


@pytest.mark.parametrize("name", ["run", "guard"])
def test_a_command_is_compared_with_itself_on_the_cpu(name, tmp_path, monkeypatch):
    said, right = [], commands.COMMANDS[name]
    monkeypatch.setattr(commands, "COMMANDS", {name: lambda *given: said.append(right(*given)) or said[-1]})
    assert commands.compared(name, CPU, tmp_path / "a")["off"] == 0 and len(said) == 2
    wrong = lambda device, here, out: {k: v + ("-there" in out.name) for k, v in said[0].items()}  # noqa: E731
    monkeypatch.setattr(commands, "COMMANDS", {name: wrong})
    with pytest.raises(rows.Differs, match="on the CPU"):
        commands.compared(name, CPU, tmp_path / "b")


class Stop(Exception):
    """In place of a process's end."""


def test_a_killed_run_goes_on(tmp_path, monkeypatch):
    """In this process, an exception in place of the signal; the real one is below."""

    def killed(out, method, device, folder):
        def end(*_):
            raise Stop

        monkeypatch.setattr(os, "kill", end)
        with pytest.raises(Stop):
            resume.unlearned(folder / "place", out, method, device, resume.Killed())

    monkeypatch.setattr(resume, "killed", killed)
    assert resume.compared("pdu", CPU, tmp_path)["relative"] == 0


@pytest.mark.slow
def test_everything_on_the_cpu(tmp_path):
    code, found = go(tmp_path, ".")
    assert code == 0 and {row["status"] for row in found.values()} == {"passed", "skipped"}


def test_a_signal_ends_the_check_and_is_no_row(tmp_path, monkeypatch):
    def ended(device, here, out):
        return commands.called("run")

    monkeypatch.setattr(commands.CliRunner, "invoke", lambda *_: SimpleNamespace(exit_code=143, output="interrupted"))
    monkeypatch.setattr(commands, "COMMANDS", {"run": ended})
    out = tmp_path / "check.json"
    some = [rows.Row("a", dict), rows.Row("run", lambda: commands.compared("run", CPU, tmp_path / "there"))]
    with pytest.raises(KeyboardInterrupt):
        rows.run(some, CPU, out)
    assert list(json.loads(out.read_text())["rows"]) == ["a"]


def test_the_exit_status_tells_a_failure_from_rows_that_are_left(capsys):
    by_status = {
        s: {"rows": {"a": {"status": "passed"}, "b": {"status": s}}} for s in ("failed", "not reached", "skipped")
    }
    assert [rows.exit_status(log, None) for log in by_status.values()] == [1, 75, 0]
    both = {"rows": by_status["failed"]["rows"] | {"c": {"status": "not reached"}}}
    assert rows.exit_status(both, Path("x.json")) == 1
    said = capsys.readouterr().out
    assert said.count("1 rows were not reached") == 2 and "goes on from x.json" in said


def test_the_time_that_imports_took_counts():
    assert rows.left(1e6) < 1e6 - 0.1 and rows.left(float("inf")) == float("inf")
