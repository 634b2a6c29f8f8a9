"""What makes tiny models quick, in every process of the tests: imported for what it does."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import accelerate.utils.imports
import accelerate.utils.memory
import torch
import typer.testing

torch.set_num_threads(1)  # tiny models drown in thread hand-over
# Every forward pass asks whether DeepSpeed is installed, and the answer is searched for on the disk.
accelerate.utils.imports._is_package_available = functools.cache(accelerate.utils.imports._is_package_available)

# Every end of a training run walks all objects of the session, most of which live to its end.
accelerate.utils.memory.gc = SimpleNamespace(collect=int)

# Every command line that a test types begins with the table of all commands.
typer.testing._get_command = functools.cache(typer.testing._get_command)
