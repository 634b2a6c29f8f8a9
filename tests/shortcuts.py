"""What makes tiny models quick, in every process of the tests: imported for what it does."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import accelerate.utils.imports
import accelerate.utils.memory
import torch

torch.set_num_threads(1)  # tiny models drown in thread hand-over
# Every forward pass asks whether DeepSpeed is installed, and the answer is searched for on the disk.
accelerate.utils.imports._is_package_available = functools.cache(accelerate.utils.imports._is_package_available)

# Every end of a training run walks all objects of the session, most of which live to its end.
accelerate.utils.memory.gc = SimpleNamespace(collect=int)
