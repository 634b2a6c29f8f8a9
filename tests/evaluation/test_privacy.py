"""Membership scores by hand, and the published AUCs and PrivLeak from the published per-example scores."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from expunge.errors import InputError
from expunge.evaluation import privacy

LOGS = Path(__file__).parents[2].parent / "shared" / "data" / "tofu_eval_logs"
SPLITS = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"}


def test_scores_by_hand():
    """Two texts: log-probabilities (-1, -2, -3, -4, -5) and (-2,)."""
    logp = [[-1.0, -2.0, -3.0, -4.0, -5.0], [-2.0]]
    np.testing.assert_allclose(privacy.loss_score(logp), [3, 2])
    np.testing.assert_allclose(privacy.min_k(logp), [4.5, 2])  # the two lowest of five; at least one token
    size = [len(zlib.compress(t.encode())) for t in ("some words here", "ü")]
    np.testing.assert_allclose(privacy.zlib_score(logp, ["some words here", "ü"]), [3 / size[0], 2 / size[1]])
    np.testing.assert_allclose(privacy.reference_score(logp, [[-1.0], [-1.0, -3.0]]), [2, 0])


def test_min_k_plus_plus_by_hand():
    """(-1 + 3) / 2 = 1, (-2 + 3) / 1 = 1, (-5 + 3) / 2 = -1, (-4 + 2) / 4 = -0.5, 0: the two lowest are -1 and -0.5."""
    logp, mean, deviation = [[-1.0, -2, -5, -4, -3]], [[-3.0, -3, -3, -2, -3]], [[2.0, 1, 2, 4, 1]]
    np.testing.assert_allclose(privacy.min_k_plus_plus(logp, mean, deviation), [0.75])


def test_an_attack_that_sees_everything():
    found = privacy.attack(np.arange(20), np.arange(100, 120))
    assert (found.auc, found.tpr_at_1_percent, found.n_members, found.n_non_members) == (1.0, 1.0, 20, 20)
    assert found.auc_interval.low == found.auc_interval.high == 1.0
    blind = privacy.attack(np.arange(20), np.arange(20))
    assert blind.auc == 0.5 and blind.auc_interval.low < 0.5 < blind.auc_interval.high


def test_privleak_by_hand():
    assert privacy.privleak(1.0, 0.5) == -100 and privacy.privleak(0.4, 0.4) == 0
    assert privacy.privleak(0.2, 0.6) == pytest.approx(100)
    with pytest.raises(InputError, match="divides by 0"):
        privacy.privleak(0.5, 1.0)
    with pytest.raises(InputError, match=r"must lie between 0 and 1, not 1\.2"):
        privacy.privleak(1.2, 0.5)


def test_nan_is_told_with_its_text():
    with pytest.raises(InputError, match="text 1: entry 0 is NaN"):
        privacy.loss_score([[-1.0], [float("nan")]])


@pytest.mark.skipif(not LOGS.exists(), reason="the published evaluation logs are not beside this checkout")
@pytest.mark.parametrize("split", SPLITS)
def test_published_privleak_follows_from_the_published_aucs(split):
    full = json.loads((LOGS / f"tofu_Llama-3.2-1B-Instruct_full/evals_{split}/TOFU_SUMMARY.json").read_text())
    kept = json.loads((LOGS / f"tofu_Llama-3.2-1B-Instruct_{SPLITS[split]}/TOFU_SUMMARY.json").read_text())
    assert privacy.privleak(full["mia_min_k"], kept["mia_min_k"]) == pytest.approx(full["privleak"], abs=1e-5)


@pytest.mark.skipif(not LOGS.exists(), reason="the published evaluation logs are not beside this checkout")
@pytest.mark.parametrize("score", ["loss", "zlib", "min_k", "min_k_plus_plus", "reference", "gradnorm"])
def test_published_aucs_follow_from_the_published_scores(score):
    log = json.loads((LOGS / "tofu_Llama-3.2-1B-Instruct_full/evals_forget10/TOFU_EVAL.json").read_text())[
        f"mia_{score}"
    ]
    sets = ([v["score"] for v in log[name]["value_by_index"].values()] for name in ("forget", "holdout"))
    assert privacy.attack(*sets).auc == pytest.approx(log["auc"], abs=1e-12)
