"""What tests are checked against: ``tests/fixtures`` (its SOURCES.md says where each file comes from), the whole data."""

from __future__ import annotations

import gzip
import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

FIXTURES = Path(__file__).parent / "fixtures"
MODELS = ("full01", "full05", "full10", "retain99", "retain95", "retain90")
"""Of OpenUnlearning's logs: the full model on each forget set, and the models retrained without it."""


@cache
def _file(model):
    return json.loads(gzip.decompress((FIXTURES / "tofu_eval_logs" / f"{model}.json.gz").read_bytes()))


def log(model):
    """OpenUnlearning's log of a model: of each metric ``agg_value`` and its columns as lists."""
    return _file(model)["log"]


def summary(model):
    """Its published figures."""
    return _file(model)["summary"]


def column(model, metric, key):
    return np.array(log(model)[metric][key])


def digits(published):
    """Equal in every digit but the last of a 64-bit number."""
    return pytest.approx(published, rel=1e-15, abs=0)


def whole(name):
    """The folder ``name`` of the originals under ``EXPUNGE_TEST_DATA``, which only slow tests read."""
    folder = Path(os.environ.get("EXPUNGE_TEST_DATA", "")) / name
    if "EXPUNGE_TEST_DATA" not in os.environ or not folder.exists():
        pytest.skip(f"needs {name} in the folder EXPUNGE_TEST_DATA")
    return folder
