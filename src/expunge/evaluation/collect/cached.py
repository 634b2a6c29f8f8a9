"""A model by name, and what it says to a benchmark: loaded, asked once, and kept in the user's cache.

The key is made of the weights, of all that is asked and of how; so a model is run once however often it is scored.
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
from expunge.evaluation.collect.one_pass import code, collect, processes
from expunge.evaluation.probe import How, Probe, fingerprint
from expunge.files import cache_folder
from expunge.models.check import check_attention, check_device
from expunge.models.tokenizer import check_tokens, load_tokenizer

logger = logging.getLogger(__name__)
REMEDY = "set EXPUNGE_CACHE to another folder"
FORMAT = 3  # of what is collected: a new one makes older caches unread


def load(name: str, how: How) -> models.Loaded:
    """The model ``name`` in the number format and on the device that ``how`` says."""
    loaded = models.load(
        name,
        dtype=getattr(torch, how.dtype),
        device=how.device or processes().device,
        trust_remote_code=how.trust_remote_code,
        attn=how.attn,
    )
    template.use(loaded.tokenizer, how.template_arguments)
    return loaded


def collected(name: str, probes: Sequence[Probe], how: How) -> tuple[table.Collected, dict[str, Any]]:
    """What the model ``name`` says to ``probes``, from the cache if it was asked before; and which model it was.

    Under several processes the main one has it all; the others have nothing where it came from the cache.
    """
    state = processes()
    if how.backend == "vllm" and state.num_processes > 1:
        raise InputError("the backend vllm runs in one process; start it without a launcher")
    _check_probes(name, probes, how)
    loaded = load(name, how)
    asked = [FORMAT, fingerprint(probes), loaded.fingerprint, how.max_length, how.chat_template]
    asked.append(hashlib.sha256(str(loaded.tokenizer.chat_template).encode()).hexdigest())
    if any(template.described(loaded.tokenizer).values()):
        asked.append(json.dumps(template.described(loaded.tokenizer), sort_keys=True, default=str))
    if how.backend != "transformers":
        asked.append(how.backend)
    folder = cache_folder() / "scores" / hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]
    facts = {"source": name, "fingerprint": loaded.fingerprint}
    held = state.is_main_process and _held(folder)
    known = [(folder / table.ANSWERS).exists()]  # written last
    broadcast_object_list(known)  # the main process decides for all
    if known[0]:
        return (table.read(folder) if state.is_main_process else table.Collected((), ())), facts
    total = sum(len(p.texts) + bool(p.ask) for p in probes)
    quiet = not state.is_main_process
    with tqdm(
        total=total, desc=f"asking {os.path.basename(os.path.normpath(name))}", leave=False, disable=quiet
    ) as bar:
        found = _ask(loaded, probes, how, lambda n: bar.update(n * state.num_processes))
    if held:
        _keep(found, folder, {"model": os.path.basename(os.path.normpath(name)), "questions": len(probes)})
    return found, facts


def _held(folder: Path) -> bool:
    """Whether the cache's entry ``folder`` can be used; a warning says where it cannot."""
    try:
        cache.hold(folder)
    except OSError as error:
        logger.warning("%s, so answers are not kept for another time; %s", cache.unusable(error), REMEDY)
        return False
    return True


def _keep(found: table.Collected, folder: Path, about: dict[str, Any]) -> None:
    """Write ``found`` to the cache; a cache that is full costs nothing but a warning."""
    try:
        files.private_folder(folder)
        cache.describe(folder, about)
        table.write(found, folder)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        logger.warning("%s, so answers are not kept for another time; %s", cache.unusable(error), REMEDY)
        return
    if told := cache.trim():
        print(f"expunge: {told}", file=sys.stderr)


def _check_probes(name: str, probes: Sequence[Probe], how: How) -> None:
    """Raise InputError, before weights are read, where the tokenizer has no place for a probe: no chat template, say."""
    check_device(how.device)
    check_attention(how.attn, how.dtype)
    tokenizer = template.use(load_tokenizer(name, trust_remote_code=how.trust_remote_code), how.template_arguments)
    options = {"max_length": how.max_length or 512, "chat_template": bool(how.chat_template)}
    kinds = {(type(p.row.prompt), p.continues): p for p in reversed(probes)}  # the first of each kind is enough
    for probe in kinds.values():
        coded = code(probe, tokenizer, options)
        check_tokens(name, tokenizer, (i for c in coded for some in (c.prompt, *c.texts) for i in some))


def _ask(loaded: models.Loaded, probes: Sequence[Probe], how: How, progress: Callable[[int], Any]) -> table.Collected:
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
    found = collect(
        loaded.model,
        loaded.tokenizer,
        probes,
        max_length=how.max_length or 512,
        chat_template=bool(how.chat_template),
        progress=progress,
    )
    return replace(found, answers=(*found.answers, *answers))


def is_main_process() -> bool:
    """Whether this process writes what several found."""
    result: bool = processes().is_main_process
    return result
