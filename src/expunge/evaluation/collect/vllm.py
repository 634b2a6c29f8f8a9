"""Greedy answers by vLLM, many at a time, where it is installed (``pip install 'expunge[vllm]'``).

The loaded model is saved whole into a temporary folder and vLLM reads that: so both backends run the same weights, of a Hub
model, a GGUF file or an adapter, at the cost of their size on disk.  Meanwhile the loaded model waits in main
memory and afterwards vLLM is shut down, so an accelerator never holds two copies.  Texts are scored with transformers.

Greedy decoding of the same weights, but other kernels: where two tokens are nearly as likely, an answer may differ.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from expunge import models
from expunge.data.chat import prompt_ids
from expunge.evaluation.collect.one_pass import answered
from expunge.evaluation.probe import Ask, Probe
from expunge.evaluation.table import Generated
from expunge.generation.greedy import end_tokens


def answers(
    loaded: models.Loaded,
    probes: Sequence[Probe],
    *,
    chat_template: bool = True,
    dtype: str = "float32",
    trust_remote_code: bool = False,
) -> list[Generated]:
    """The model's answers to the probes with ``ask``, in their order: the same prompts, as token IDs, and the same stops.

    Needs the package vllm, and room for the model on disk where temporary files go.
    """
    prompted = [(p, p.ask) for p in probes if p.ask]
    if not prompted:
        return []
    prompts = [prompt_ids(p.row, loaded.tokenizer, chat_template=chat_template) for p, _ in prompted]
    ends = sorted(end_tokens(loaded.model, loaded.tokenizer))
    longest = max(len(ids) + ask.max_new_tokens for ids, (_, ask) in zip(prompts, prompted, strict=True))
    with _aside(loaded.model), tempfile.TemporaryDirectory() as folder:
        models.save(loaded.model, loaded.tokenizer, Path(folder) / "model")
        with _engine(
            str(Path(folder) / "model"), dtype=dtype, trust_remote_code=trust_remote_code, max_model_len=longest
        ) as engine:
            outputs = engine.generate(
                [{"prompt_token_ids": ids} for ids in prompts],
                [_sampling(ask, ends) for _, ask in prompted],
                use_tqdm=False,
            )
            token_ids = [list(output.outputs[0].token_ids) for output in outputs]
    texts = [loaded.tokenizer.decode(ids, skip_special_tokens=True) for ids in token_ids]
    return [answered(p, loaded.tokenizer, text) for (p, _), text in zip(prompted, texts, strict=True)]


def _sampling(ask: Ask, ends: list[int]) -> Any:
    from vllm import SamplingParams

    return SamplingParams(temperature=0.0, max_tokens=ask.max_new_tokens, stop=list(ask.stop), stop_token_ids=ends)


@contextmanager
def _engine(folder: str, **settings: Any) -> Iterator[Any]:
    """vLLM on the model in ``folder``, without the model's own sampling defaults; shut down afterwards."""
    from vllm import LLM

    engine = LLM(folder, generation_config="vllm", seed=0, **settings)
    try:
        yield engine
    finally:
        engine.llm_engine.engine_core.shutdown()
        del engine
        _collect_garbage()


@contextmanager
def _aside(model: torch.nn.Module) -> Iterator[None]:
    """Move ``model`` to main memory during the block."""
    device = next(model.parameters()).device
    model.to("cpu")
    _collect_garbage()
    try:
        yield
    finally:
        model.to(device)


def _collect_garbage() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
