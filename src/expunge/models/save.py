"""Save a model so that plain transformers or PEFT loads it, and never leave half of it behind."""

from __future__ import annotations

import copy
import json
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.errors import InputError
from expunge.files import expanded, is_foreign, read_json, replacing
from expunge.models.adapt import merged
from expunge.models.lora import Adapter, Truncated, compress, concatenate, rank_of, read_adapter
from expunge.models.quantize import metadata

if TYPE_CHECKING:
    from peft import PeftModel

    from expunge.models.loaded import Loaded

log = logging.getLogger(__name__)

SETTINGS = "adapter_config.json"
MARKERS = ("config.json", SETTINGS)  # a folder that holds one of them may be replaced


def save(
    model: Any,
    tokenizer: Any,
    folder: str | os.PathLike[str],
    *,
    base: Loaded | None = None,
    merge: bool = False,
) -> Path:
    """Write ``model`` and its tokenizer to ``folder``, so that plain transformers or PEFT loads it.

    A plain model is saved whole.  Of a PEFT model the adapter is saved, or with ``merge`` a whole model,
    without touching ``model``.  ``base`` is what :func:`load` gave before the adapter was attached: if that
    was an adapter merged into its base, the two are saved as one adapter on that base (exactly: see
    :mod:`expunge.models.lora`), or, where they are no plain LoRA, as a whole model, which is logged.

    The folder appears when it is complete.  An existing model there is replaced; anything else raises
    InputError.
    """
    from peft import PeftModel

    path = _checked_folder(folder)
    with replacing(path) as fresh:
        if not isinstance(model, PeftModel):
            model.save_pretrained(fresh)
        elif merge or not _write_adapter(adapter_of(model), fresh, base):
            merged(copy.deepcopy(model)).save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
    return path


def save_adapter(adapter: Adapter, model: Any, tokenizer: Any, folder: str | os.PathLike[str], *, base: Loaded) -> Path:
    """Write ``adapter``, an update of what ``base`` was loaded as, and the tokenizer to ``folder``.

    If ``base`` was an adapter merged into its base, the two are saved as one adapter on that base, or, where that cannot
    be, ``model``, the plain model with the update in its weights, is saved whole, which is logged.  The folder appears
    when it is complete; for what may be there see :func:`save`.
    """
    path = _checked_folder(folder)
    with replacing(path) as fresh:
        if not _write_adapter(adapter, fresh, base):
            model.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
    return path


@dataclass(frozen=True)
class Chained:
    """An adapter on top of an adapter: the two as one (None: only a whole model holds both), and how its rank was cut."""

    adapter: Adapter | None
    rank: int = 0
    sum_of_ranks: int = 0
    lost: Truncated | None = None
    warnings: tuple[str, ...] = ()


def chained(adapter: Adapter, base: Loaded, max_rank: int) -> Chained | None:
    """The adapter in ``base`` and ``adapter``, which was trained on top of it, as one of at most ``max_rank``.

    Up to ``max_rank`` the ranks add up and the sum is exact; above, it is cut by SVD (:func:`expunge.models.lora.compress`),
    but never below the rank of either.  None where ``base`` is no adapter.
    """
    if base.adapter is None:
        return None
    first = read_adapter(Path(base.adapter))
    try:
        whole = concatenate(first, adapter)
    except InputError as reason:
        return Chained(None, warnings=(f"saved as a whole model in place of an adapter: {reason}",))
    total, limit = rank_of(whole), max(max_rank, rank_of(first), rank_of(adapter))
    if total <= limit:
        return Chained(whole, total, total)
    cut, lost = compress(whole, limit)
    return Chained(
        cut,
        limit,
        total,
        lost,
        (
            f"the adapter's rank was cut from {total} to {limit}, with a relative error of {lost.overall:.3g}; "
            f"--max-rank {total} keeps all of it, --merge writes whole weights",
        ),
    )


def adapter_of(model: PeftModel) -> Adapter:
    """The active adapter of ``model`` as plain values."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, adapter_name=model.active_adapter, save_embedding_layers=False)
    return Adapter(state, _settings_of(model))


def _checked_folder(folder: str | os.PathLike[str]) -> Path:
    """The absolute folder; InputError if it holds anything but a model."""
    path = expanded(folder).resolve()
    if is_foreign(path, MARKERS):
        raise InputError(f"{path} exists and is no model's folder; give another folder for the output.")
    return path


def _settings_of(model: PeftModel) -> dict[str, Any]:
    """What PEFT writes as the settings of the active adapter."""
    config = copy.copy(model.peft_config[model.active_adapter])
    config.inference_mode = True
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        return read_json(
            Path(folder) / SETTINGS, description="adapter's settings", remedy="PEFT did not write them whole"
        )


def _write_adapter(adapter: Adapter, folder: Path, base: Loaded | None) -> bool:
    """Write ``adapter``, with the one in ``base`` if any; False, and nothing written, if they cannot be one."""
    from safetensors.torch import save_file

    if base is not None and base.adapter is not None:
        try:
            adapter = concatenate(read_adapter(Path(base.adapter)), adapter)
        except InputError as reason:
            log.warning("Saving a whole model in place of an adapter. %s", reason)
            return False
    settings = {**adapter.config, "inference_mode": True}
    if base is not None:
        settings["base_model_name_or_path"] = base.base
    text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    (folder / SETTINGS).write_text(text, encoding="utf-8")
    tensors = {name: value.detach().cpu().contiguous() for name, value in adapter.state.items()}
    kind = base.quantized["kind"] if base is not None and base.quantized else None
    save_file(tensors, folder / "adapter_model.safetensors", metadata=metadata(kind))
    return True
