"""The utility budget of a release: which step is the result, and what ends the loop."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from tiny_release import go, logits, plain, watched

from expunge import models
from expunge.errors import RunFailed
from expunge.release import make, measure, modules, steps

TABLE = [  # the watched figure before and after each of three steps, which is better, the step that is kept
    ([10.0, 10.4, 10.6, 9.0], "lower", 1),
    ([10.0, 10.5, 10.5, 10.5], "lower", 3),
    ([10.0, 10.6, 9.0, 9.0], "lower", 0),
    ([10.0, 9.6, 9.4, 11.0], "higher", 1),
    ([10.0, 12.0, 14.0, 9.5], "higher", 3),
    ([10.0, 10.1, float("nan"), 9.0], "lower", 1),
    ([-10.0, -10.4, -10.6, -10.6], "higher", 1),  # a log-probability: 5 % worse is -10.5
    ([-10.0, -9.6, -9.4, -9.6], "lower", 1),
]


@pytest.mark.parametrize(("values", "better", "kept"), TABLE)
def test_the_last_step_inside_the_budget_is_kept(values, better, kept):
    look = watched(values, better)
    settings = make({"model": "m", "forget": [], "utility_budget": 0.05, "steps": 3})
    past = [steps.Step(0, look.measure(None))]
    limit = measure.budget(past[0], settings, look)
    assert limit == pytest.approx(values[0] + (0.5 if better == "lower" else -0.5))
    while (ended := measure.stopped(past, settings, look, limit)) is None:
        past.append(steps.Step(len(past), look.measure(None)))
    assert ended[0] == kept and ended[2] == len(past) - 1 == min(kept + 1, 3)
    assert ended[1].startswith("u y is" if kept < 3 else "all steps")


@pytest.mark.parametrize(("values", "better", "kept"), [TABLE[0], TABLE[2], TABLE[4]])
def test_the_kept_step_is_the_result(workplace, values, better, kept):
    result = go(look=watched(values, better), utility_budget=0.05, steps=3, max_steps=2)
    log = result.record["release"]
    assert log["kept"] == kept and log["budget"]["limit"] == pytest.approx(
        values[0] + (0.5 if better == "lower" else -0.5)
    )
    assert len(log["trajectory"]) == min(kept + 2, 4) and log["better"] == better
    assert log["stopped"].startswith("u y is" if kept < 3 else "all steps")
    expected = models.load("model").model
    for at in range(1, kept + 1):  # bit for bit, though a later step was taken and given up
        step = json.loads((workplace / "unlearned" / "steps" / f"{at:02d}.json").read_text())
        models.add(expected, steps._update(workplace / "unlearned" / "steps" / f"{at:02d}.safetensors", step))
    assert torch.equal(logits(result.model), logits(expected))
    on_base = PeftModel.from_pretrained(plain(), "unlearned/model")
    torch.testing.assert_close(logits(on_base), logits(result.model), atol=1e-5, rtol=0)
    assert any("target unchanged" in w for w in result.record["warnings"]) == (kept == 0)


def test_the_retain_loss_is_watched_or_the_perplexity_of_rows(workplace):
    log = go(utility_budget=0.0, forget_coefficient=3.0, steps=1).record
    assert log["release"]["budget"] == {"relative": 0.0, "limit": log["before"]["retain"]["nll"]}
    rows = [{"text": "The sky is blue."}, {"text": "Water is wet."}]
    (workplace / "text.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    log = go(utility="text.jsonl", utility_budget=0.5, steps=1, out="two").record
    start = log["before"]["utility"]
    assert log["release"]["utility_figure"] == "utility/perplexity" and log["data"]["utility"]["rows"] == 2
    assert log["release"]["budget"]["limit"] == pytest.approx(1.5 * start["perplexity"])
    net, total, n = models.load("model"), 0.0, 0
    for r in rows:
        ids = torch.tensor([net.tokenizer(r["text"]).input_ids])
        z = net.model(ids).logits[0, :-1].log_softmax(-1)
        total -= z.gather(1, ids[0, 1:, None]).sum().item()
        n += ids.shape[1] - 1
    assert start["nll"] == pytest.approx(total / n, rel=1e-4)
    assert start["perplexity"] == pytest.approx(torch.tensor(total / n).exp().item(), rel=1e-4)


def test_a_model_that_is_destroyed_ends_the_loop(workplace):
    with pytest.raises(
        RunFailed, match=r"broke down in step 1: no step was good, and .*unlearned/model is the target"
    ) as caught:
        go(forget_coefficient=1e30, steps=3)
    log = caught.value.record
    assert (
        log["release"]["kept"] == 0
        and log["failed"] in str(caught.value)
        and "cannot be measured after step 1" in log["release"]["stopped"]
    )
    assert any("cannot be measured after step 1" in w for w in log["warnings"]) and log["after"] == log["before"]


def test_a_module_whose_training_breaks_down_ends_the_loop(workplace, monkeypatch):
    whole = modules.train

    def train(net, tokenizer, rows, settings, args, frozen=None, **key):
        broken = "/02-forget" in str(args.output_dir)
        return whole(
            net, tokenizer, rows, settings, replace(args, learning_rate=1e6) if broken else args, frozen, **key
        )

    monkeypatch.setattr(modules, "train", train)
    with pytest.raises(RunFailed, match="broke down in step 2: step 1 is saved in") as caught:
        go(steps=3, max_steps=4)
    log = caught.value.record
    assert log["release"]["kept"] == 1 and log["after"]["forget"]["nll"] > 0
    assert any("step 2, forget module: training broke down at step" in w for w in log["warnings"])


def test_a_cut_that_leaves_the_budget_is_warned_of(workplace):
    values = [10.0, 10.1, 10.2, 20.0]  # the last look is at the cut adapter
    log = go(look=watched(values), utility_budget=0.05, steps=2, rank=1, max_steps=2).record
    assert log["release"]["kept"] == 2 and log["after"]["u"]["y"] == 20.0
    assert any("cut to rank 1, the result is outside the budget" in w for w in log["warnings"])
