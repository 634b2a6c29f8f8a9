"""Everything that reads or writes weights; what is saved loads in plain transformers and PEFT.

``locate`` finds a model's files, ``gguf`` and ``tokenizer`` read two of them, ``load`` gives a model in memory (``loaded``),
``adapt`` says what of it trains, ``lora`` does the arithmetic of adapters, ``save`` writes what came out, ``size`` says how
much that will be.
"""

from expunge.models.adapt import (
    adapted,
    add,
    attach_lora,
    check_targets,
    detach_lora,
    linear_layers,
    lora_targets,
    train_only,
    trainable,
    without_experts,
)
from expunge.models.load import load
from expunge.models.loaded import Loaded, fingerprint_state
from expunge.models.locate import ALIAS, Source, resolve
from expunge.models.save import Chained, adapter_of, chained, save, save_adapter
from expunge.models.size import written_bytes

__all__ = [
    "ALIAS",
    "Chained",
    "Loaded",
    "Source",
    "adapted",
    "adapter_of",
    "add",
    "attach_lora",
    "chained",
    "check_targets",
    "detach_lora",
    "fingerprint_state",
    "linear_layers",
    "load",
    "lora_targets",
    "resolve",
    "save",
    "save_adapter",
    "train_only",
    "trainable",
    "without_experts",
    "written_bytes",
]
