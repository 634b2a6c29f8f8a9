"""Probes of a benchmark: prompts, texts to score after each, settings of generation.  Without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from expunge.data.example import Row
from expunge.errors import InputError
from expunge.settings import DTYPES, scalars

BACKENDS = ("transformers", "vllm")


@dataclass(frozen=True)
class Ask:
    """Let the model answer, greedily: at most ``max_new_tokens``, ended by any of ``stop``.

    ``cut``: the right answer too is cut to that many tokens before the two are compared, as MUSE does.
    """

    max_new_tokens: int = 200
    stop: tuple[str, ...] = ()
    cut: bool = False


@dataclass(frozen=True)
class Probe:
    """One prompt.  ``texts``: variant -> an answer to score after it; ``ask``: let the model answer too.

    The right, the paraphrased and the wrong answers of a question are in one probe, so its prompt is run once.
    ``note``: a property of the row that scoring needs (its right option, its level); ``continues``: the texts continue
    a plain prompt, tokenised together with it and without an end token, as lm-evaluation-harness has it;
    ``grad_norm``: the variants whose gradient is measured too, each a pass forward and backward of its own.
    """

    part: str
    index: int
    row: Row
    texts: Mapping[str, str] = field(default_factory=dict)
    ask: Ask | None = None
    note: str = ""
    continues: bool = False
    grad_norm: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluationOptions:
    """Settings of an evaluation, besides the probes.

    ``max_length``, ``chat_template``: the benchmark's own where None; ``template_arguments``: passed to the template;
    ``limit``: only the first rows of each part; ``dtype``: the number format of the weights, such as
    ``bfloat16``; ``quantize``: the linear layers in 4 or 8 bits, as a base was held in training; ``attn``: how attention is
    computed, which changes no figure but by rounding; ``device``: where the model runs, by default an accelerator if there
    is one; ``backend``: what writes the answers, ``vllm`` where it is installed;
    texts are always scored with transformers.
    """

    max_length: int | None = None
    chat_template: Annotated[
        bool | None,
        Field(description="Ask in the tokenizer's chat template, or as plain text; as the benchmark does if left out."),
    ] = None
    template_arguments: Annotated[
        dict[str, Any] | None,
        BeforeValidator(scalars),
        Field(
            description="Arguments of the chat template, such as enable_thinking=false,date_string=26 Jul 2024.",
            json_schema_extra={"metavar": "NAME=VALUE,…", "repeated": True},
        ),
    ] = None
    limit: Annotated[int | None, Field(description="Only the first rows of each part: a quick look.")] = None
    dtype: Annotated[str, Field(description="Number format of the weights: float32, bfloat16 or float16.")] = "float32"
    quantize: Annotated[
        str | None, Field(description="Hold the model in 4 or 8 bits (needs expunge[gpu]): nf4 or int8.")
    ] = None
    device: Annotated[str | None, Field(description="Where the model runs, such as cuda.")] = None
    attn: Annotated[
        str | None,
        Field(description="How attention is computed: sdpa, eager, flex_attention or flash_attention_2."),
    ] = None
    trust_remote_code: Annotated[bool, Field(description="Run code that the model's repository brings.")] = False
    backend: Annotated[
        str, Field(description="What writes the answers: transformers, or vllm where it is installed.")
    ] = "transformers"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(f"dtype must be {', '.join(DTYPES)}, not {self.dtype!r}")
        if self.backend not in BACKENDS:
            raise InputError(f"backend must be {' or '.join(BACKENDS)}, not {self.backend!r}")
        if self.quantize and self.backend == "vllm":
            raise InputError("quantize is of the backend transformers; leave out one of the two")


How = EvaluationOptions  # its former name


def fingerprint(probes: Iterable[Probe]) -> str:
    """``sha256:`` over the content of ``probes``; the places of their rows do not count."""
    digest = hashlib.sha256()
    for p in probes:
        options = [asdict(p.ask) if p.ask else None, p.note, p.continues, p.grad_norm]
        content = [p.part, p.index, p.row.prompt, p.row.answer, sorted(p.texts.items()), options, *p.row.further]
        digest.update(json.dumps(content, ensure_ascii=False).encode() + b"\n")
    return f"sha256:{digest.hexdigest()}"
