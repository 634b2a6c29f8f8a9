"""The scores and answers of a model by name: the model is loaded and run once, the results are kept in the user's cache.

The key is made of the weights, the probes and the settings, so a model is run once even if it is scored several times.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from tqdm.auto import tqdm

from expunge import cache, files, models
from expunge.data import template
from expunge.errors import InputError
from expunge.evaluation import table
from expunge.evaluation.collect.one_pass import code, collect
from expunge.evaluation.probe import EvaluationOptions, Probe, fingerprint
from expunge.files import cache_folder
from expunge.models.check import check_attention, check_device
from expunge.models.tokenizer import check_tokens, load_tokenizer
from expunge.processes import device
from expunge.processes import state as processes

logger = logging.getLogger(__name__)
REMEDY = "set EXPUNGE_CACHE to another folder"
FORMAT = 3  # of the stored results; older entries are not read


def load(name: str, how: EvaluationOptions) -> models.Loaded:
    """The model ``name`` with the dtype and on the device of ``how``."""
    loaded = models.load(
        name,
        dtype=getattr(torch, how.dtype),
        device=how.device or device(),
        trust_remote_code=how.trust_remote_code,
        attn=how.attn,
        quantize=how.quantize,
        compute_dtype=None if how.dtype == "float32" else getattr(torch, how.dtype),
    )
    template.use(loaded.tokenizer, how.template_arguments)
    return loaded


def collected(name: str, probes: Sequence[Probe], how: EvaluationOptions) -> tuple[table.Collected, dict[str, Any]]:
    """The scores and answers of the model ``name``, from the cache if it was run before; and its source and fingerprint.

    Under several processes the main one has all results; the others have none if they came from the cache.
    """
    state = processes()
    if how.backend == "vllm" and state.num_processes > 1:
        raise InputError("the backend vllm runs in one process; start it without a launcher")
    _check_probes(name, probes, how)
    loaded = load(name, how)
    key_parts = [FORMAT, fingerprint(probes), loaded.fingerprint, how.max_length, how.chat_template]
    key_parts.append(hashlib.sha256(str(loaded.tokenizer.chat_template).encode()).hexdigest())
    if any(template.described(loaded.tokenizer).values()):
        key_parts.append(json.dumps(template.described(loaded.tokenizer), sort_keys=True, default=str))
    if loaded.quantized:  # its fingerprint is of the weights in full precision
        key_parts.append(json.dumps(loaded.quantized, sort_keys=True))
    if how.backend != "transformers":
        key_parts.append(how.backend)
    folder = cache_folder() / "scores" / hashlib.sha256(json.dumps(key_parts).encode()).hexdigest()[:32]
    facts = {"source": name, "fingerprint": loaded.fingerprint}
    can_write = state.is_main_process and _is_writable(folder)
    is_cached = [(folder / table.ANSWERS).exists()]  # written last
    broadcast_object_list(is_cached)  # the main process decides for all
    if is_cached[0]:
        return (table.read(folder) if state.is_main_process else table.Collected((), ())), facts
    total = sum(len(p.texts) + bool(p.ask) for p in probes)
    quiet = not state.is_main_process
    with tqdm(
        total=total, desc=f"asking {os.path.basename(os.path.normpath(name))}", leave=False, disable=quiet
    ) as bar:
        result = _collect(loaded, probes, how, lambda n: bar.update(n * state.num_processes))
    if can_write:
        _store(result, folder, {"model": os.path.basename(os.path.normpath(name)), "questions": len(probes)})
    return result, facts


def _is_writable(folder: Path) -> bool:
    """Lock the cache's entry ``folder``; False, with a warning, if the cache cannot be written to."""
    try:
        cache.hold(folder)
    except OSError as error:
        logger.warning("%s, so answers are not kept for another time; %s", cache.unusable(error), REMEDY)
        return False
    return True


def _store(result: table.Collected, folder: Path, about: dict[str, Any]) -> None:
    """Write ``result`` to the cache; only warn if that fails, as on a full disk."""
    try:
        files.private_folder(folder)
        cache.describe(folder, about)
        table.write(result, folder)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        logger.warning("%s, so answers are not kept for another time; %s", cache.unusable(error), REMEDY)
        return
    if message := cache.trim():
        print(f"expunge: {message}", file=sys.stderr)


def _check_probes(name: str, probes: Sequence[Probe], how: EvaluationOptions) -> None:
    """Raise InputError, before weights are read, if a probe cannot be tokenised, for lack of a chat template, say."""
    check_device(how.device)
    check_attention(how.attn, how.dtype)
    tokenizer = load_tokenizer(name, trust_remote_code=how.trust_remote_code, quantize=how.quantize)
    template.use(tokenizer, how.template_arguments)
    options = {"max_length": how.max_length or 512, "chat_template": bool(how.chat_template)}
    probe_by_kind = {(type(p.row.prompt), p.continues): p for p in reversed(probes)}  # the first of each kind is enough
    for probe in probe_by_kind.values():
        coded = code(probe, tokenizer, options)
        check_tokens(name, tokenizer, (i for c in coded for some in (c.prompt, *c.texts) for i in some))


def _collect(
    loaded: models.Loaded, probes: Sequence[Probe], how: EvaluationOptions, progress: Callable[[int], Any]
) -> table.Collected:
    answers: Sequence[table.Generated] = ()
    if how.backend == "vllm":
        from expunge.evaluation.collect import vllm

        answers = vllm.answers(
            loaded,
            probes,
            chat_template=bool(how.chat_template),
            dtype=how.dtype,
            trust_remote_code=how.trust_remote_code,
        )
        progress(len(answers))
        probes = [replace(p, ask=None) for p in probes]
    result = collect(
        loaded.model,
        loaded.tokenizer,
        probes,
        max_length=how.max_length or 512,
        chat_template=bool(how.chat_template),
        progress=progress,
    )
    return replace(result, answers=(*result.answers, *answers))


def is_main_process() -> bool:
    """Whether this process writes the results of all."""
    result: bool = processes().is_main_process
    return result
