"""TOFU end to end on a tiny model: the figures by hand, the cache, rescoring without torch, and bad input."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_bench
import tiny_tofu
import torch
from intervals import few_resamples
from launch import TESTS
from typer.testing import CliRunner

from expunge import cache
from expunge.benchmarks import BENCHMARKS, named, tofu
from expunge.cli import app
from expunge.errors import InputError
from expunge.evaluation import table
from expunge.evaluation.benchmark import data_of, find
from expunge.evaluation.collect import cached as asking
from expunge.evaluation.evaluate import evaluate, read, rescore
from expunge.evaluation.probe import Ask, EvaluationOptions

TOFU = BENCHMARKS["tofu/forget01"]
SETS = ("forget", "holdout")


@pytest.fixture
def folder(workplace, tokenizer, monkeypatch):
    """The benchmark's files, a target and a retrained model; the cache is the test's own."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(workplace / "cache"))
    monkeypatch.setattr(tofu, "ANSWER", Ask(16))
    tiny.model(1, vocab_size=len(tokenizer), num_hidden_layers=1).save_pretrained("retrained")
    tokenizer.save_pretrained("retrained")
    return tiny_tofu.write(workplace / "tofu")


@pytest.fixture
def cached_data(folder, tmp_path_factory):
    """``folder`` where both models' answers are in the cache."""

    def ask():
        evaluate(TOFU, "model", "out", data=folder, retrained="retrained")

    tiny_bench.copied(tmp_path_factory, "tofu", folder.parent, ask, "cache")
    return folder


def by_name(figures):
    return {(f.part, f.name): f for f in figures}


def test_figures_are_what_the_table_says(cached_data):
    figures = by_name(evaluate(TOFU, "model", "out", data=cached_data, retrained="retrained"))
    collected = table.read("out/scores")
    right, wrong = collected.mean_logp("forget", "paraphrase"), collected.mean_logps("forget", "wrong")
    assert wrong.shape == (4, 2)
    ratio = np.exp(wrong.mean(1) - right)
    assert figures["forget", "truth_ratio"].value == pytest.approx(np.minimum(ratio, 1 / ratio).mean())
    assert figures["forget", "probability"].value == pytest.approx(np.exp(collected.mean_logp("forget")).mean())
    p = np.exp(collected.mean_logp("world_facts"))
    others = np.exp(collected.mean_logps("world_facts", "wrong")).sum(1)
    assert figures["world_facts", "probability"].value == pytest.approx((p / (p + others)).mean())
    ratio = np.exp(collected.mean_logps("real_authors", "wrong").mean(1) - collected.mean_logp("real_authors"))
    assert figures["real_authors", "truth_ratio"].value == pytest.approx(np.maximum(0, 1 - ratio).mean())
    nine = [f.value for (part, _), f in figures.items() if part in ("retain", "real_authors", "world_facts")]
    assert len(nine) == 9
    expected = 0.0 if 0 in nine else 9 / sum(1 / v for v in nine)
    assert figures["all", "model_utility"].value == pytest.approx(expected)
    for f in figures.values():
        assert f.low is None or f.low <= f.value <= f.high
    loss = [-s.mean_logp for s in collected.scored("forget")], [-s.mean_logp for s in collected.scored("holdout")]
    pairs = [(u > s) + 0.5 * (u == s) for s in loss[0] for u in loss[1]]
    assert figures["forget", "mia_loss_auc"].value == pytest.approx(np.mean(pairs))
    assert all(s.ends for s in collected.scored("forget"))
    exact = np.mean([s.hit[:-1].mean() for s in collected.scored("forget")])  # the end of turn is no word of the answer
    assert figures["forget", "exact_memorisation"].value == pytest.approx(exact)
    lowest = [
        [np.sort(s.logp[:-1])[: max(1, int(0.4 * (len(s.logp) - 1)))].mean() for s in collected.scored(p)] for p in SETS
    ]
    pairs = [(u < s) + 0.5 * (u == s) for s in lowest[0] for u in lowest[1]]
    assert figures["forget", "mia_min_k_auc"].value == pytest.approx(np.mean(pairs))
    assert {"forget_quality", "privleak", "truth_ratio_difference"} <= {name for _, name in figures}


def test_what_an_earlier_evaluation_left_is_not_scored_again(cached_data):
    evaluate(TOFU, "model", "out", data=cached_data, retrained="retrained")
    fresh = evaluate(TOFU, "model", "out", data=cached_data, overwrite=True)
    assert "privleak" not in {f.name for f in fresh}
    assert not (cached_data.parent / "out" / "scores" / "retrained").exists() and rescore(named, "out") == fresh


def test_one_row_gives_all_but_the_equivalence_test(cached_data):
    options = EvaluationOptions(limit=1)
    names = {f.name for f in evaluate(TOFU, "model", "out", data=cached_data, retrained="retrained", how=options)}
    assert "forget_quality" in names and "truth_ratio_difference" not in names


def test_an_empty_answer_counts_as_nothing_said(folder, tokenizer):
    model = tiny.model(vocab_size=len(tokenizer))
    with torch.no_grad():  # its likeliest token is always the end of turn
        model.lm_head.weight.zero_()
        model.model.norm.weight.zero_()
    model.generation_config.eos_token_id = int(model(torch.tensor([[5]])).logits[0, -1].argmax())
    model.save_pretrained("silent")
    tokenizer.save_pretrained("silent")
    figures = by_name(evaluate(TOFU, "silent", "out", data=folder))
    assert {a.text for a in table.read("out/scores").answers} == {""}
    assert figures["forget", "rouge_l_recall"].value == 0 and figures["all", "model_utility"].value == 0
    assert figures["forget", "rouge_l_recall"].n == 4, "none is left out"


def test_a_model_without_a_chat_template_is_told_before_its_weights_are_read(folder, tokenizer, monkeypatch):
    tokenizer.chat_template = None
    tokenizer.save_pretrained("base")
    (folder.parent / "base" / "chat_template.jinja").unlink(missing_ok=True)
    tiny.model(vocab_size=len(tokenizer)).save_pretrained("base")
    with monkeypatch.context() as m:
        m.setattr(asking, "load", lambda *_: pytest.fail("the weights were read"))
        with pytest.raises(InputError, match=r"forget01_perturbed.json, line 1: .* the tokenizer has no chat template"):
            evaluate(TOFU, "base", "out", data=folder)
    command = ["bench", "tofu/forget01", "--model", "base", "--data", str(folder), "--no-chat-template"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0 and read("figures")["chat_template"] is False, result.output


def test_a_model_is_asked_once(folder, monkeypatch):
    first = evaluate(TOFU, "model", "out", data=folder)
    monkeypatch.setattr(asking, "collect", lambda *_, **__: pytest.fail("the model was run again"))
    assert evaluate(TOFU, "model", "again", data=folder) == first
    with pytest.raises(InputError, match="figures of an earlier evaluation are here"):
        evaluate(TOFU, "model", "out", data=folder)


def test_rescoring_needs_no_torch(cached_data, monkeypatch):
    few_resamples(monkeypatch.setattr)
    figures = evaluate(TOFU, "model", "out", data=cached_data, retrained="retrained")
    before = (cached_data.parent / "out" / "figures.json").read_text()
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] in ('torch', 'transformers'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        f"sys.path.append({str(TESTS)!r})\n"
        "import intervals; intervals.few_resamples(setattr)\n"
        "from expunge.cli import app; app(['rescore', 'out'])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0 and "model_utility" in process.stdout, process.stderr
    assert (cached_data.parent / "out" / "figures.json").read_text() == before
    assert rescore(named, "out") == figures


def test_the_command_and_what_it_writes(folder):
    result = CliRunner().invoke(
        app, ["bench", "tofu/forget01", "--model", "model", "--data", str(folder), "--limit", "2"]
    )
    assert result.exit_code == 0 and "extraction_strength" in result.output, result.output
    record = read("figures")
    assert record["benchmark"] == "tofu/forget01" and record["limit"] == 2 and record["retrained"] is None
    n = {f["part"]: f["n"] for f in record["figures"] if f["name"] == "probability"}
    assert n == {"forget": 2, "retain": 2, "real_authors": 2, "world_facts": 2}


def test_what_quotes_the_data_is_for_its_owner_alone(folder):
    evaluate(TOFU, "model", "out", data=folder)
    entry = next((Path("cache") / "scores").glob("[0-9a-f]*"))
    for place in (Path("out/scores"), entry):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        files = [file for file in place.iterdir() if file.is_file()]
        assert len(files) >= 2 and {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert read("out")["private_files"] == ["scores/"]
    n = len(TOFU.probes(data_of(TOFU, folder)))
    assert [(e.description, e.busy) for e in cache.entries()] == [(f"answers of model to {n} questions", True)]


def test_odd_rows_are_left_out_and_counted(folder):
    rows = tiny_tofu.rows("forget", 4)
    rows += [{**rows[0], "answer": ""}, {**rows[1], "perturbed_answer": ["one"]}, {"question": "No answer?"}]
    (folder / "forget01_perturbed.json").write_text("\n".join(map(json.dumps, rows)))
    holdout = [*tiny_tofu.rows("holdout", 4), rows[0]]
    (folder / "holdout01.json").write_text("\n".join(map(json.dumps, holdout)))
    probes = TOFU.probes(data := data_of(TOFU, folder))
    assert [sum(p.part == part for p in probes) for part in ("forget", "holdout")] == [4, 4]
    warnings = "\n".join(data.warnings)
    assert (
        "2 row(s) of forget01_perturbed cannot be asked and are left out; the first: forget01_perturbed.json, "
        in warnings
    )
    assert (
        "1 row(s) of forget01_perturbed cannot be asked and are left out; the first: forget01_perturbed.json, "
        in warnings
    )
    assert "line 6: most rows have 2 wrong answers and a paraphrase" in warnings
    assert "1 row(s) of holdout01 cannot be asked" in warnings and "also stands in forget01_perturbed" in warnings


def test_bad_input_is_told_before_a_model_is_loaded(folder, monkeypatch):
    monkeypatch.setattr(asking, "collected", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(InputError, match="did you mean 'tofu/forget01'"):
        find("tofu/forgot01", BENCHMARKS)
    with pytest.raises(InputError, match="there is no folder nowhere"):
        evaluate(TOFU, "model", "out", data="nowhere")
    holdout = (folder / "holdout01.json").read_text()
    (folder / "holdout01.json").write_text(json.dumps(tiny_tofu.rows("forget", 4)[2]))
    with pytest.raises(InputError, match=r"of holdout01 also stands in forget01_perturbed"):
        evaluate(TOFU, "model", "out", data=folder)
    (folder / "holdout01.json").unlink()
    with pytest.raises(InputError, match=r"lacks holdout01\.json \(or \.jsonl, \.csv, \.parquet\)"):
        evaluate(TOFU, "model", "out", data=folder)
    (folder / "holdout01.jsonl").write_text(holdout)
    with pytest.raises(InputError, match="there are no figures"):
        rescore(named, "nowhere")
