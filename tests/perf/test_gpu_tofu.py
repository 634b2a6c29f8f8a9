"""``perf.gpu.tofu`` at tiny size: all of it, killed and gone on with; the choice hangs on one half of the rows alone."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import test_results
import tiny_bench
from intervals import few_resamples
from perf.gpu import tofu, tofu_halves, tofu_plan, tofu_results, tofu_tiny, tofu_work

from expunge import compare, record
from expunge.benchmarks import tofu as benchmark
from expunge.errors import InputError
from expunge.evaluation.benchmark import data_of
from expunge.evaluation.probe import Ask, fingerprint
from expunge.unlearning import fluency, train

TIMES = {"seconds", "created", "steps"}


@pytest.fixture(scope="module", autouse=True)
def _few_resamples():
    """No test here is of an interval, or of an answer's fluency."""
    with pytest.MonkeyPatch.context() as m:
        few_resamples(m.setattr)
        m.setattr(fluency, "ANSWER", Ask(max_new_tokens=6))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """``OUT`` of a run without interruption."""
    out = tmp_path_factory.mktemp("tofu") / "out"
    assert tofu.main(["--tiny", "--out", str(out)]) == 0
    return out


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it in which models are taught and asked, and nothing is tried yet."""
    shutil.copytree(finished, tmp_path / "out")
    for file in (tmp_path / "out/pieces").glob("*.json"):
        if not file.name.startswith(("teach", "ask")):
            file.unlink()
    return tmp_path / "out"


def plain(value):
    """A record without times."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in TIMES}
    return [plain(v) for v in value] if isinstance(value, list) else value


def pieces(out):
    return {f.name: plain(json.loads(f.read_text())) for f in sorted((out / "pieces").glob("*.json"))}


def change_half(folder, which):
    """Other words in every other row of the files that are asked; of tiny files each row is a block."""
    for name in (
        "forget10_perturbed",
        "holdout10",
        "retain_perturbed",
        "real_authors_perturbed",
        "world_facts_perturbed",
    ):
        rows = [json.loads(line) for line in (folder / f"{name}.json").read_text().splitlines()]
        for row in rows[which::2]:
            row["answer"] = f"{row['answer']} indeed"
        (folder / f"{name}.json").write_text("".join(f"{json.dumps(r)}\n" for r in rows))


def test_everything_is_taught_tried_chosen_and_measured(finished):
    kinds = [name.split("-")[0] for name in pieces(finished)]
    assert {k: kinds.count(k) for k in kinds} == {"teach": 2, "ask": 4, "trial": 4, "chosen": 2}
    trials = record.read(finished / "results/trials.json")
    whole = record.read(finished / "results/compare.json")
    assert trials["finished"] and [r["label"] for r in trials["trials"]] == ["grad_diff"] * 2 + ["pdu"] * 2
    for label, of in compare.best(trials["trials"], tofu_halves.CHOSEN_BY).items():
        assert trials["chosen"][label] == of["choice"]
        (run,) = (r for r in whole["runs"] if r["label"] == label)
        assert run["learning_rate"] == of["choice"]["learning_rate"] and run["steps"] == whole["budget"]["steps"] == 3
        assert run["fingerprint"] == of["fingerprint"] != whole["target"]["fingerprint"]  # the same seed
        names = {(f["part"], f["name"]) for f in run["figures"]}
        assert {("forget", "forget_quality"), ("forget", "mia_grad_norm_auc"), ("all", "model_utility")} <= names
    assert {f["value"] for f in whole["retrained"]["figures"] if f["name"] == "privacy"} == {1.0}  # it is the control
    table = (finished / "results/README.md").read_text()
    assert all(f"| `{label}` | learning_rate=" in table for label in ("grad_diff", "pdu"))


def test_what_is_published_is_a_record_that_needs_nothing_else(finished):
    test_results.check_folder(finished / "results")
    test_results.check_comparison(finished / "results")
    for file in (finished / "results").iterdir():
        if file.suffix in (".json", ".html", ".md", ".svg"):
            text = file.read_text()
            assert str(finished.parent) not in text, file
            assert not any(row["answer"] in text for row in tiny_bench.rows("forget", 8)), file
    assert (finished / "asked").stat().st_mode & 0o077 == 0


def test_a_run_that_was_killed_goes_on_to_the_same_records(finished, copied, monkeypatch):
    own, calls = train.train, []

    def killed(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return own(*args, **kwargs)

    with monkeypatch.context() as m:
        m.setattr(train, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            tofu.main(["--tiny", "--out", str(copied)])
    assert [n for n in pieces(copied) if n.startswith("trial")] == [
        n for n in pieces(finished) if n.startswith("trial")
    ][:1]
    assert tofu.main(["--tiny", "--out", str(copied)]) == 0
    assert pieces(copied) == pieces(finished)
    for name in ("trials.json", "compare.json"):
        ours, theirs = (plain(record.read(out / "results" / name)) for out in (copied, finished))
        assert {k: v for k, v in ours.items() if k not in ("command", "sessions")} == {
            k: v for k, v in theirs.items() if k not in ("command", "sessions")
        }

    def never(*_):
        raise AssertionError("what is done was done again")

    monkeypatch.setattr(tofu_work, "carry_out", never)
    assert tofu.main(["--tiny", "--out", str(copied)]) == 0


@pytest.mark.slow  # test_no_row_is_asked_in_both_halves decides it: other rows of one half leave the other's questions alone
def test_the_choice_hangs_on_the_first_half_alone(finished, copied):
    shutil.rmtree(copied / "rows")
    change_half(copied / "tiny/data", 1)
    assert tofu.main(["--tiny", "--out", str(copied)]) == 0
    before, after = (record.read(out / "results/trials.json") for out in (finished, copied))
    assert before["chosen"] == after["chosen"] and plain(before["trials"]) == plain(after["trials"])
    before, after = (record.read(out / "results/compare.json") for out in (finished, copied))
    for a, b in zip(before["runs"], after["runs"], strict=True):
        assert a["fingerprint"] == b["fingerprint"] and a["figures"] != b["figures"]


@pytest.mark.parametrize(("which", "same"), [(1, "choice"), (0, "report")])
def test_no_row_is_asked_in_both_halves(tmp_path, which, same):
    tofu_tiny.write(tmp_path)
    folder = tmp_path / "data"
    asked = {"choice": tofu_halves.CHOICE, "report": tofu_halves.BENCHMARK}

    def probes():
        return {name: b.probes(data_of(b, folder)) for name, b in asked.items()}

    before = probes()
    rows = [{(p.part, p.index) for p in some} for some in before.values()]
    assert not rows[0] & rows[1] and len(rows[0] | rows[1]) == 30
    assert not any(p.ask or p.grad_norm for p in before["choice"]) and any(p.grad_norm for p in before["report"])
    change_half(folder, which)
    after = probes()
    for name in asked:
        assert (fingerprint(before[name]) == fingerprint(after[name])) == (name == same)


def test_other_rows_or_no_rows_are_refused_before_anything_is_loaded(copied, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("expunge.models.load", lambda *_, **__: pytest.fail("a model was loaded"))
    change_half(copied / "tiny/data", 0)
    for given, words in (
        (["--tiny", "--out", copied], "made of other rows"),
        (["--data", tmp_path, "--out", tmp_path / "o"], "lacks forget10.json"),
        (["--out", tmp_path / "o"], "--data"),
        (["--data", tmp_path, "--methods", "npo,nop"], "no method nop"),
    ):
        assert tofu.main(list(map(str, given))) == 2 and words in capsys.readouterr().err


def test_out_of_time_is_said_and_what_is_expected_to_last_too_long_is_not_begun(copied, monkeypatch, capsys):
    monkeypatch.setattr(tofu_work, "carry_out", lambda *_: pytest.fail("a piece was begun"))
    assert tofu.main(["--tiny", "--out", str(copied), "--time-limit", "1e-3"]) == tofu.MORE == 75
    assert "4 pieces or more are left" in capsys.readouterr().err
    assert not record.read(copied / "results/trials.json")["finished"]
    plan = tofu_plan.unpack(tofu.plan_of(tofu._parser().parse_args(["--tiny", "--out", str(copied)])))
    (trial, *_) = (p for p in tofu_plan.pieces(plan) if p.kind == "trial")
    tofu_plan.write(plan, trial, {"run": {"label": "x", "figures": []}, "seconds": 100.0})
    assert tofu_work.expected(plan, trial) == pytest.approx(120)


def test_a_method_that_fails_is_recorded_and_the_others_are_measured(copied, monkeypatch, capsys):
    own = train.train

    def failing(net, tokenizer, data, method, *args, **kwargs):
        if method.name == "pdu":
            raise ValueError("/home/me/x.bin broke")
        return own(net, tokenizer, data, method, *args, **kwargs)

    monkeypatch.setattr(train, "train", failing)
    assert tofu.main(["--tiny", "--out", str(copied)]) == tofu.FAILED
    assert "no trial of pdu came to figures" in capsys.readouterr().err
    trials = record.read(copied / "results/trials.json")
    assert list(trials["chosen"]) == ["grad_diff"] and sum(not r["done"] for r in trials["trials"]) == 2
    assert "/home/me" not in (copied / "results/README.md").read_text()


def test_packed_rows_are_those_of_the_folder(tmp_path, capsys):
    tofu_tiny.write(tmp_path)
    (tmp_path / "data/LICENSE.x").write_text("MIT")
    (tmp_path / "data/other.json").write_text("{}")
    rows = (tmp_path / "data/holdout10.json").read_text().splitlines()
    (tmp_path / "data/holdout10.json").write_text(f"[{','.join(rows)}]")  # as one array
    assert tofu.main(["--pack", str(tmp_path / "data"), str(tmp_path / "t.tar.xz")]) == 0
    capsys.readouterr()
    plan = tofu_plan.unpack(tofu_plan.Plan(out=tmp_path / "out", data=tmp_path / "t.tar.xz", rows=3))
    made = {f.name for f in plan.rows_folder.iterdir()}
    assert made == {*(f"{n}.json" for n in tofu_plan.FILES), "LICENSE.x"}
    assert [json.loads(r) for r in rows[:3]] == list(
        map(json.loads, (plan.rows_folder / "holdout10.json").read_text().splitlines())
    )
    assert (plan.out.stat().st_mode & 0o077) == 0
    with pytest.raises(InputError, match="other rows"):
        tofu_plan.unpack(tofu_plan.Plan(out=tmp_path / "out", data=tmp_path / "data", rows=4))


def test_who_finds_no_time_for_a_piece_waits_while_others_are_at_work(copied, monkeypatch):
    """What they finish may leave shorter ones: a process that left while two models were taught would be missed later."""
    plan = tofu_plan.unpack(tofu.plan_of(tofu._parser().parse_args(["--tiny", "--out", str(copied)])))
    (trial, *_) = (p for p in tofu_plan.pieces(plan) if p.kind == "trial")
    seconds, begun, others = [1e6], [], contextlib.ExitStack()
    monkeypatch.setattr(tofu_work, "expected", lambda *_: seconds[0])
    assert tofu_work.work(plan, time.time() + 100) is False  # nobody is at work
    others.enter_context(tofu_plan.claimed(plan, trial))

    def others_end(_):
        others.close()
        seconds[0] = 0.0

    def carry_out(_, piece):
        begun.append(piece)
        seconds[0] = 1e6

    monkeypatch.setattr(tofu_work, "time", SimpleNamespace(time=time.time, monotonic=time.monotonic, sleep=others_end))
    monkeypatch.setattr(tofu_work, "carry_out", carry_out)
    assert tofu_work.work(plan, time.time() + 100) is False
    assert begun == [trial]


def test_two_processes_do_not_do_the_same_piece(copied):
    plan = tofu_plan.unpack(tofu.plan_of(tofu._parser().parse_args(["--tiny", "--out", str(copied)])))
    every = tofu_plan.pieces(plan)
    (trial, *_) = (p for p in every if p.kind == "trial")
    with tofu_plan.claimed(plan, trial) as mine, tofu_plan.claimed(plan, trial) as again:
        assert mine and not again
    with tofu_plan.claimed(plan, every[0]) as mine:
        assert not mine  # it is done


def test_scores_by_hand_and_the_utility_is_tofus(finished):
    found = tofu_work.read_table(finished / "asked/retrained-report.json")
    theirs = {(f.part, f.name): f.value for f in benchmark.score(found)}
    assert tofu_halves.utility(found, answers=True) == pytest.approx(theirs["all", "model_utility"])
    probability = np.exp(found.mean_logp("forget", "paraphrase")).mean()
    known = [theirs["forget", n] for n in ("extraction_strength", "exact_memorisation", "knowledge")]
    by_hand = 4 / sum(1 / (1 - v) for v in (*known, probability))
    assert tofu_halves.memorisation(found) == pytest.approx(by_hand)
    assert tofu_halves.closeness(found, found) == 1
    asked = {f.name: f.value for f in tofu_halves.scores(lambda c: 0.5, found, found)}
    assert asked["score"] == pytest.approx(3 / (1 / by_hand + 2)) and asked["utility"] == 1


def test_the_recipe_gives_every_method_six_trials_and_all_seeds_run_on_the_chosen(tmp_path):
    plan = tofu_plan.Plan(out=tmp_path, data=tmp_path, values=compare.read_file(tofu_plan.RECIPE))
    trials = plan.trials
    assert len(trials) == 54 and {sum(t.label == one.label for t in trials) for one in trials} == {6}
    best = {label: {"choice": t.choice} for label, t in {t.label: t for t in trials}.items()}
    runs = compare.trials(plan.chosen(best))
    assert [r.seed for r in runs if r.label == "undial"] == [0, 1, 2] and len(runs) == 27
    (undial, *_) = (r for r in runs if r.label == "undial")
    assert undial.settings.run["parameters"] == {"retain": "nll", "beta": 10.0}
    assert undial.settings.run["training"]["learning_rate"] == 3e-4


@pytest.mark.slow
def test_several_processes_share_the_work(finished, copied):
    assert tofu.main(["--tiny", "--out", str(copied), "--workers", "2"]) == 0
    assert pieces(copied) == pieces(finished)
    assert tofu_results.sessions(Path(copied))[-1]["workers"] == 2
