"""Output folders: what is refused before anything is loaded, what is left alone, and what a killed run leaves behind."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from expunge import lock, outputs, record
from expunge.errors import InputError
from expunge.evaluation import evaluate

RUN, BENCH = record.LAYOUT, evaluate.LAYOUT
RECORD = json.dumps({"schema": 1, "output": {"path": "model"}})


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in, with a model, an adapter on it, and data."""
    monkeypatch.chdir(tmp_path)
    for name in ("model/config.json", "data/forget.jsonl", "forget.jsonl"):
        write(name)
    write("adapter/adapter_config.json", json.dumps({"base_model_name_or_path": "model"}))
    return tmp_path


def write(name: str, text: str = "{}") -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)


def tree() -> dict[str, str]:
    return {str(p): p.read_text() for p in sorted(Path().rglob("*")) if p.is_file()}


def run_folder(name: str = "out") -> None:
    """A finished run."""
    for file, text in (
        ("run.json", RECORD),
        ("report.html", ""),
        ("model/model.safetensors", ""),
        ("model/config.json", ""),
    ):
        write(f"{name}/{file}", text)


# -- inputs ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("out", "inputs", "said"),
    [
        (".", {"model": "model"}, "holds the model model"),
        ("..", {"model": "model"}, "holds the model"),
        ("model", {"model": "model"}, "is the model model"),
        ("./x/../model/", {"model": "model"}, "is the model"),
        ("model/unlearned", {"model": "model"}, "lies in the model"),
        ("data", {"forget set": "data"}, "is the forget set data"),
        ("data/out/deep", {"forget set": "data"}, "lies in the forget set"),
        ("data", {"forget set": "data/forget.jsonl"}, "holds the forget set"),
        (".", {"retain set": Path("forget.jsonl")}, "holds the retain set"),
        ("model", {"model": "adapter"}, "is the model model"),
        ("link", {"model": "model"}, "is the model"),
        ("link/out", {"model": "model"}, "lies in the model"),
        ("model", {"model": "link"}, "is the model"),
        ("links", {"model": "links/inner"}, "holds the model"),
        ("data", {"data": "data", "model": "hub/name", "retain set": None}, "is the data"),
    ],
)
def test_an_output_that_is_holds_or_lies_in_an_input_is_refused(place, out, inputs, said, overwrite):
    os.symlink("model", "link")
    os.mkdir("links")
    os.symlink(place / "model", "links/inner")
    before = tree()
    with pytest.raises(InputError, match=f"the output folder {said}"):
        outputs.check(out, RUN, inputs=inputs, overwrite=overwrite)
    assert tree() == before


def test_an_output_beside_its_inputs_is_fine(place):
    inputs = {
        "model": "adapter",
        "forget set": "forget.jsonl",
        "retain set": [{"a": 1}],
        "holdout set": "no/such",
        "x": "",
    }
    assert outputs.check("model2", RUN, inputs=inputs) == Path("model2")
    assert outputs.check("forget", RUN, inputs=inputs) == Path("forget")


def test_an_output_file_replaces_a_result_only(place):
    write("forget.json", '[{"question": "Who?", "answer": "Ada"}]')
    write("notes.json", "not JSON")
    write("result.json", '{"figures": {}}')
    for name in ("forget.json", "notes.json"):
        with pytest.raises(InputError, match=f"{name} holds what expunge did not write"):
            outputs.check_file(name)
    assert [outputs.check_file(n) for n in ("result.json", "new.json")] == [Path("result.json"), Path("new.json")]


# -- what is in the folder ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["notes.txt", ".git/config", "sub/a", "model2/config.json"])
def test_a_folder_with_something_else_is_refused_unless_overwrite_allows_it(place, name):
    write(f"out/{name}")
    first = Path(name).parts[0]
    with pytest.raises(InputError, match=f"out holds {first}, which expunge did not write"):
        outputs.check("out", RUN)
    assert outputs.check("out", RUN, overwrite=True) == Path("out")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "name", ["model/config.json", "model", "report.html", "checkpoints/mine", "run.previous.json", "steps/a"]
)
def test_what_would_be_replaced_and_is_not_ours_is_refused_whatever_overwrite_says(place, name, overwrite):
    write(f"out/{name}", "mine")
    with pytest.raises(
        InputError, match=rf"out holds {Path(name).parts[0]}/?, which expunge did not write and will not"
    ):
        outputs.check("out", RUN, overwrite=overwrite)


def test_a_record_of_somebody_else_is_refused(place):
    for text in ("{}", "[1]", "", '{"run": 1}'):
        write("out/run.json", text)
        with pytest.raises(InputError, match=r"holds run\.json, which expunge did not write"):
            outputs.check("out", RUN, overwrite=True)


def test_our_own_result_is_written_over_on_demand_and_what_lies_beside_it_is_left(place):
    run_folder()
    write("out/notes.txt")
    with pytest.raises(InputError, match=r"out: an earlier run's run\.json is here"):
        outputs.check("out", RUN)
    with outputs.claimed("out", RUN, overwrite=True) as folder:
        outputs.retire(folder, RUN)
    assert not Path("out/run.json").exists() and Path("out/run.previous.json").read_text() == RECORD
    assert Path("out/notes.txt").exists()
    outputs.reinstate(Path("out"), RUN)
    assert Path("out/run.json").exists() and not Path("out/run.previous.json").exists()


@pytest.mark.parametrize(
    "name", ["model/notes.txt", "model/model.gguf", "model/sub/a", "report.html/a", "checkpoints", "model.link"]
)
def test_even_in_a_result_of_ours_nothing_of_others_is_replaced(place, name):
    run_folder()
    if name.startswith("report"):
        Path("out/report.html").unlink()
    if name == "model.link":
        shutil.rmtree("out/model")
        os.symlink(place / "model", "out/model")
    else:
        write(f"out/{name}")
    with pytest.raises(InputError, match="which expunge did not write and will not replace"):
        outputs.check("out", RUN, overwrite=True)


def test_an_unfinished_result_is_known_by_its_files_or_by_the_lock_file(place):
    write("out/checkpoints/checkpoint-2/trainer_state.json", '{"best_model_checkpoint": null}')
    assert outputs.check("out", RUN)
    write("bench/target/made.json", RECORD)
    assert outputs.check("bench", BENCH)
    with outputs.claimed("killed", RUN):
        write("killed/model/config.json")
    assert [p.name for p in sorted(Path("killed").iterdir())] == [lock.FILE, "model"]
    assert outputs.check("killed", RUN)


def test_what_systems_leave_in_every_folder_is_no_matter(place):
    for name in (".DS_Store", ".gitignore", ".gitkeep", "error.log", ".nfs0001"):
        write(f"out/{name}")
    assert outputs.check("out", RUN)


# -- the path -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("", "empty text"),
        ("  ", "empty text"),
        ("forget.jsonl", "a file of that name is in the way"),
        ("forget.jsonl/out", "a file of that name is in the way"),
        ("broken", "a file of that name is in the way"),
        ("loop/out", "in the way|cannot be written to"),
        ("x" * 300, "cannot be written to: file name too long"),
        ("a\0b", "null character"),
        ("/dev/null", "in the way"),
    ],
)
def test_a_path_that_cannot_be_a_folder_is_one_sentence(place, out, said):
    os.symlink("nowhere", "broken")
    os.symlink("loop", "loop")
    with pytest.raises(InputError, match=said):
        outputs.check(out, RUN)


def test_the_home_folder_may_be_a_tilde(place, monkeypatch):
    monkeypatch.setenv("HOME", str(place / "home"))
    with outputs.claimed("~/runs/a", RUN) as folder:
        write(str(folder / "run.json"), RECORD)
    assert Path("home/runs/a/run.json").exists() and not Path("~").exists()


def test_a_folder_without_permission_is_refused(place, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).absolute() != place)
    with pytest.raises(InputError, match="cannot be written to: permission denied"):
        outputs.check("new/out", RUN)


def test_a_folder_that_cannot_be_made_is_one_sentence_and_leaves_nothing(place, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    with pytest.raises(InputError, match="file name too long"), outputs.claimed("a/b" + "x" * 300, RUN):
        pass
    assert not Path("a").exists()
    monkeypatch.setattr(lock, "acquire", refuse)
    with pytest.raises(InputError, match="cannot be written to: permission denied"), outputs.claimed("a/b", RUN):
        pass
    assert not Path("a").exists()


def test_too_little_space_is_told_before_with_both_numbers(place, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000))
    outputs.check_space(Path("no/such/out"), 5_000_000)
    outputs.check_space(Path("out"), None)
    with pytest.raises(InputError, match="about 16 GB will be written and 5 MB are free"):
        outputs.check_space(Path("out"), 16_000_000_000)


# -- claimed --------------------------------------------------------------------------------------------------------------
def test_a_failed_run_leaves_no_empty_folder(place):
    def fail(out: str, then: str | None = None) -> None:
        with outputs.claimed(out, RUN) as folder:
            if then:
                write(str(folder / then))
            raise ZeroDivisionError

    os.mkdir("there")
    for out in ("a/b/c", "there"):
        with pytest.raises(ZeroDivisionError):
            fail(out)
    assert not Path("a").exists() and not list(Path("there").iterdir())
    with outputs.claimed("a", RUN) as folder:
        (folder / "checkpoints/01-forget").mkdir(parents=True)
    assert not Path("a").exists()
    with pytest.raises(ZeroDivisionError):
        fail("a/b", "alternates.json")
    assert Path("a/b/alternates.json").exists() and outputs.check("a/b", RUN)


def test_half_written_files_of_a_killed_run_are_swept_and_nothing_else(place):
    ours = [
        ".model.0123456789ab/model.safetensors",
        ".model.0123456789ab.old/config.json",
        ".run.json.0123456789ab.tmp",
    ]
    others = [".cache.0123456789ab/a", ".model.0123/a", "model.0123456789ab/a", ".model.0123456789ab.bak"]
    write("out/run.previous.json", RECORD)
    for name in (*ours, *others):
        write(f"out/{name}")
    with outputs.claimed("out", RUN):
        pass
    assert [Path("out", name).exists() for name in (*ours, *others)] == [False] * 3 + [True] * 4


def test_two_runs_in_one_folder_exclude_each_other(place):
    with outputs.claimed("out", RUN):
        with (
            pytest.raises(
                InputError, match=f"out: another run is writing into this folder \\(process {os.getpid()} on"
            ),
            outputs.claimed("out", RUN),
        ):
            pass
        with outputs.claimed("other", RUN):
            pass
    with outputs.claimed("out", RUN) as folder:
        write(str(folder / "run.json"), RECORD)
    assert [p.name for p in Path("out").iterdir()] == ["run.json"]


def test_a_result_that_was_finished_in_between_is_not_written_over(place, monkeypatch):
    acquire = lock.acquire

    def late(folder):
        write("out/run.json", RECORD)
        return acquire(folder)

    monkeypatch.setattr(lock, "acquire", late)
    with pytest.raises(InputError, match="an earlier run's"), outputs.claimed("out", RUN):
        pass
    assert [p.name for p in Path("out").iterdir()] == ["run.json"]


def test_of_several_processes_the_first_has_the_folder(place, monkeypatch):
    with outputs.claimed("out", RUN):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", "1")
        with outputs.claimed("out", RUN) as folder:
            assert folder == Path("out")
        monkeypatch.delenv("RANK")
        monkeypatch.delenv("WORLD_SIZE")
