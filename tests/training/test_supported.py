"""Methods under accelerators that step inside backward."""

from __future__ import annotations

import pytest
import tiny
from accelerate import Accelerator
from accelerate.utils import DistributedType

from expunge import methods
from expunge.errors import InputError


def test_accelerators_that_step_inside_backward(monkeypatch):
    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType.DEEPSPEED, raising=False)
    tiny.trainer(methods.npo())  # fixed weights
    with pytest.raises(InputError, match=r"DEEPSPEED does not allow .*; use FSDP2.* fixed weights such as pdu_level"):
        tiny.trainer(methods.blur_npo())
    with pytest.raises(InputError, match="turns whole weights round, which DEEPSPEED shards"):
        tiny.trainer(methods.task_vector())
