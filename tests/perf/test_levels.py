"""How far an estimate of the level is from the truth, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from perf import levels


def test_rows_against_rows_and_against_their_mean():
    truth = np.array([1.0, 2.0, 3.0])
    said = levels.compared(np.array([2.0, 3.0, 4.0]), truth)
    assert said == pytest.approx({"mean": 3, "deviation": 1, "correlation": 1, "rmse": 1, "ks": 1 / 3})
    unpaired = levels.compared(np.array([1.0, 3.0]), truth, paired=False)
    assert unpaired["rmse"] == pytest.approx((2 / 3) ** 0.5) and np.isnan(unpaired["correlation"])
    tokens = levels.over_tokens([np.array([1.0, 2.0]), np.array([4.0])], [np.array([1.0, 2.0]), np.array([2.0])])
    assert tokens["token_rmse"] == pytest.approx((4 / 3) ** 0.5)
