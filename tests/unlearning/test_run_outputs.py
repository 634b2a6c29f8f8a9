"""What a run writes: nothing of others destroyed, nothing lost, checked by loading it again, known by the next run."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from expunge import methods, models, outputs, record, unlearn
from expunge.cli import app
from expunge.errors import InputError, RunFailed
from expunge.unlearning import store

FAST = {"max_steps": 2, "learning_rate": 0.02, "disable_tqdm": True, "use_cpu": True, "fluency_rows": 0}
PDU = {"method": methods.pdu(multiplier=2.0, warmup=0.0, step_size=0.1), "save_strategy": "steps", "save_steps": 2}
SMALL = {"adapter": "lora", "lora": {"r": 2, "alpha": 4}}


def go(model="model", **kw):
    return unlearn(model, **({"forget": "forget.jsonl", "retain": "retain.jsonl", "method": "npo"} | FAST | kw))


def never(*_, **__):
    raise AssertionError("a model was loaded")


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# -- refused before anything is loaded ------------------------------------------------------------------------------------
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("out", "said"),
    [
        (".", "the output folder holds the model model"),
        ("model", "the output folder is the model model"),
        ("model/out", "the output folder lies in the model model"),
        ("../{here}", "the output folder holds the model"),
        ("", "out is an empty text"),
        (" ", "out is an empty text"),
        ("keep", "keep holds model/, which expunge did not write and will not replace"),
        ("occupied", "occupied holds model, which expunge did not write and will not replace"),
        ("forget.jsonl", "a file of that name is in the way"),
    ],
)
def test_nothing_of_others_is_written_over(workplace, monkeypatch, out, said, overwrite):
    (workplace / "keep/model").mkdir(parents=True)
    (workplace / "keep/model/thesis.txt").write_text("mine")
    (workplace / "occupied").mkdir()
    (workplace / "occupied/model").write_text("mine")
    before = content(workplace)
    monkeypatch.setattr(models, "load", never)
    with pytest.raises(InputError, match=said):
        go(out=out.format(here=workplace.name), overwrite=overwrite)
    flags = ["--method", "npo", "--out", out.format(here=workplace.name), *(["--overwrite"] if overwrite else [])]
    data = ["--model", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl"]
    done = CliRunner().invoke(app, ["run", *data, *flags])
    assert done.exit_code == 2 and re.search(said, done.stderr) and done.stderr.count("\n") == 1
    assert content(workplace) == before


def test_a_full_disk_is_told_before_a_model_is_loaded(workplace, monkeypatch):
    from types import SimpleNamespace

    monkeypatch.setattr(models, "load", never)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=r"about \d+ MB will be written and 1 kB are free"):
        go()
    assert not (workplace / "unlearned").exists()


def test_a_second_run_in_the_folder_is_refused(workplace, monkeypatch):
    monkeypatch.setattr(models, "load", never)
    with outputs.claimed("unlearned", record.LAYOUT), pytest.raises(InputError, match="another run is writing into"):
        go()


# -- nothing is lost ------------------------------------------------------------------------------------------------------
def failing(monkeypatch, until, error):
    """Saving fails in folders that ``until`` is true of."""
    save = models.save

    def write(model, tokenizer, folder, **kw):
        if until(Path(folder)):
            raise error
        return save(model, tokenizer, folder, **kw)

    monkeypatch.setattr(models, "save", write)


def test_weights_that_cannot_be_saved_are_kept_somewhere_else(workplace, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("TMPDIR", str(elsewhere := tmp_path_factory.mktemp("tmp")))
    monkeypatch.setattr("tempfile.tempdir", None)
    go(out="unlearned")
    before = content(workplace / "unlearned")
    failing(monkeypatch, lambda p: workplace in p.resolve().parents, OSError(28, "No space left on device"))
    with pytest.raises(
        RunFailed, match=r"unlearned/model cannot be written \(no space left on device\); the weights are"
    ) as e:
        go(overwrite=True)
    (kept,) = elsewhere.glob("expunge-rescued-*")
    assert str(kept / "model") in str(e.value) and models.load(kept / "model").model
    log = record.read(kept)
    assert log["after"]["forget"]["n"] == 3 and "cannot be written" in log["warnings"][-1]
    assert content(workplace / "unlearned") == before and not list(workplace.glob("expunge-rescued*"))


def test_weights_are_kept_where_there_is_neither_a_home_nor_a_folder_for_temporary_files(tmp_path, monkeypatch):
    def absent():
        raise RuntimeError("Could not determine home directory.")

    def full():
        raise FileNotFoundError("No usable temporary directory found")

    def write(place):
        if place.parent == tmp_path / "out":
            raise OSError(28, "No space left on device")
        place.mkdir()
        return place

    monkeypatch.setattr(Path, "home", absent)
    monkeypatch.setattr("tempfile.gettempdir", full)
    kept = store.store(write, tmp_path / "out", None)
    assert kept.path.is_dir() and kept.folder.parent == tmp_path and "the weights are in" in kept.problem
    with pytest.raises(RunFailed, match="nor can any other folder"):
        store.store(lambda place: (_ for _ in ()).throw(OSError(28, "No space left on device")), tmp_path / "out", None)


def test_weights_that_no_folder_takes_are_told(workplace, monkeypatch):
    failing(monkeypatch, lambda p: True, ValueError("the settings of generation are invalid"))
    monkeypatch.setattr(Path, "home", lambda: workplace / "home")
    with pytest.raises(
        RunFailed, match=r"cannot be written \(the settings of generation are invalid\), nor can any other"
    ):
        go()
    assert not (workplace / "unlearned").exists()


def test_a_run_that_was_killed_while_saving_is_swept_by_the_next(workplace):
    child = os.fork()
    if child == 0:
        from transformers import PreTrainedModel

        def killed(self, folder, **kw):
            (Path(folder) / "model.safetensors").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)

        PreTrainedModel.save_pretrained = killed
        try:
            go()
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    left = [p.name for p in (workplace / "unlearned").iterdir()]
    assert any(name.startswith(".model.") for name in left) and ".expunge.lock" in left
    go()
    assert sorted(p.name for p in (workplace / "unlearned").iterdir()) == [
        "README.md",
        "model",
        "report.html",
        "run.json",
    ]


# -- what is saved is what was trained ------------------------------------------------------------------------------------
def test_files_that_give_other_numbers_fail_the_run_and_are_kept(workplace, monkeypatch):
    save = models.save

    def spoilt(model, tokenizer, folder, **kw):
        place = save(model, tokenizer, folder, **kw)
        file = place / "model.safetensors"
        save_file({k: v * 1.3 for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
        return place

    monkeypatch.setattr(models, "save", spoilt)
    with pytest.raises(
        RunFailed, match=r"are not the trained ones: the forget set's loss is .* in memory and .* from the"
    ):
        go()
    pairs = record.read("unlearned")["output"]["check"]["nll"]
    assert all(abs(p["in_memory"] - p["reloaded"]) > 0.01 for p in pairs.values()) and set(pairs) == {
        "forget",
        "retain",
    }
    assert (workplace / "unlearned/model/model.safetensors").exists()


def test_files_that_cannot_be_loaded_fail_the_run_and_are_kept(workplace, monkeypatch):
    save = models.save

    def torn(model, tokenizer, folder, **kw):
        place = save(model, tokenizer, folder, **kw)
        (place / "model.safetensors").write_bytes(b"torn")
        return place

    monkeypatch.setattr(models, "save", torn)
    done = CliRunner().invoke(
        app,
        ["run", "--model", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl", "--method", "npo"]
        + [f"{k}={v}" for k, v in FAST.items()],
    )
    assert done.exit_code == 1
    log = record.read("unlearned")
    assert "cannot be loaded again" in log["warnings"][-1] and log["output"]["fingerprint"] is None


@pytest.mark.parametrize(
    "how",
    [{}, SMALL, SMALL | {"merge": True}, SMALL | {"dtype": "bfloat16"}],
    ids=["whole", "lora", "merged", "bfloat16"],
)
def test_the_check_compares_a_few_rows_in_memory_and_from_the_files(workplace, how):
    said = go(**how).record["output"]
    assert said["check"]["rows"] == 2 and set(said["check"]["nll"]) == {"forget", "retain"}
    for pair in said["check"]["nll"].values():
        assert pair["reloaded"] == pytest.approx(pair["in_memory"], rel=1e-2 if "dtype" in how else 1e-5)


def test_a_model_without_room_for_a_copy_is_not_checked_and_that_is_said(workplace, monkeypatch):
    import psutil

    memory = psutil.virtual_memory()._replace(available=1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    log = go().record
    assert log["output"]["check"] is None and "were not loaded again for a check" in log["warnings"][-1]


# -- chains ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", [{}, SMALL, SMALL | {"dtype": "bfloat16"}], ids=["whole", "lora", "bfloat16"])
def test_the_fingerprint_of_an_output_is_that_of_the_next_input(workplace, how):
    first = go(out="first", **how).record
    second = go("first/model", out="second", **how).record
    assert first["parent"] is None
    assert second["model"]["fingerprint"] == first["output"]["fingerprint"] != first["model"]["fingerprint"]
    assert second["parent"] == {
        "run": "first",
        "created": first["created"],
        "method": "npo",
        "fingerprint": first["output"]["fingerprint"],
        "model": first["model"]["fingerprint"],
    }
    for place in ("second", "second/model"):
        done = CliRunner().invoke(app, ["fingerprint", place, "--dtype", how.get("dtype", "float32")])
        assert (done.exit_code, done.stdout.strip()) == (0, second["output"]["fingerprint"])


def test_weights_that_are_not_those_of_the_record_are_warned_of(workplace):
    said = go(out="first").record["output"]["fingerprint"]
    shutil.copy("model/model.safetensors", "first/model/model.safetensors")
    log = go("first/model", out="second").record
    assert "the weights in first/model are not those that the record of the run in first names" in log["warnings"]
    done = CliRunner().invoke(app, ["fingerprint", "first", "--json"])
    assert done.exit_code == 1 and json.loads(done.stdout)["recorded"] == said


def test_deletion_on_deletion_keeps_the_rank_bounded_and_says_what_that_cost(workplace):
    place, ranks = "model", []
    for n in range(3):
        result = go(place, out=f"run{n}", max_rank=5, learning_rate=0.002, **SMALL)
        place = f"run{n}/model"
        ranks.append(json.loads(Path(place, "adapter_config.json").read_text())["r"])
        said = result.record["output"].get("rank")
    assert ranks == [2, 4, 5] and said["saved"] == 5 and said["sum"] == 6 and 0 < said["error"] < 1
    warning = next(w for w in result.record["warnings"] if "rank" in w)
    assert f"cut from 6 to 5, with a relative error of {said['error']:.3g}" in warning
    again = models.load(place)
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(again.model(ids).logits, result.model(ids).logits)  # what is measured is what is saved
    assert again.fingerprint == result.record["output"]["fingerprint"]


# -- checkpoints ----------------------------------------------------------------------------------------------------------
def test_a_checkpoint_of_another_folder_brings_its_multiplier(workplace):
    whole = go(**PDU, out="whole", max_steps=4, lr_scheduler_type="constant").record
    shutil.copytree("whole/checkpoints/checkpoint-2", "moved/checkpoint-2")
    again = go(
        **PDU, out="again", max_steps=4, lr_scheduler_type="constant", resume_from_checkpoint="moved/checkpoint-2"
    )
    paths = [[s["multiplier"] for s in log["steps"]] for log in (whole, again.record)]
    assert paths[0] == paths[1] and len(set(paths[0])) == 4
    assert whole["after"] == again.record["after"]


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("combiner.json", r"moved holds no combiner\.json, the state of PrimalDual \(such as the multiplier λ\)"),
        ("optimizer.pt", r"moved holds no optimizer\.pt"),
        ("trainer_state.json", r"no checkpoint"),
    ],
)
def test_a_checkpoint_that_lacks_a_part_is_refused_before_a_model_is_loaded(workplace, monkeypatch, missing, said):
    Path("moved").mkdir()
    for name in {"combiner.json", "optimizer.pt", "trainer_state.json"} - {missing}:
        Path("moved", name).write_text("{}")
    monkeypatch.setattr(models, "load", never)
    with pytest.raises(InputError, match=said):
        go(**PDU, resume_from_checkpoint="moved")
    with pytest.raises(InputError, match="there is no checkpoint"):
        go(**PDU, resume_from_checkpoint=True)
