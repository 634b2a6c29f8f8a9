"""Settings of a guard and of its commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from expunge.errors import InputError, nearest
from expunge.settings import DTYPES, check_least, scalars

AUDITORS = ("aliases", "model")
REFUSAL = "I'm sorry, but I can't help with that question."


@dataclass(frozen=True)
class Settings:
    """ALU's parameters and ours.

    ``k`` versions are written, the ``j`` best of them are merged if their mean rating (1 to 5) reaches ``threshold``, else
    the answer is ``refusal``.  ``auditor``: who suspects a target, the alias matcher alone or a model too.  ``retries``: how
    often an agent is asked again where its reply cannot be read.  ``listed``: how many targets a prompt lists at most.
    ``max_tokens`` of an answer, ``agent_tokens`` of what an agent writes.  ``prompts``: a folder whose files stand in for
    those in ``guard/prompts``.

    k = 5, j = 3 and threshold = 4 are those of the paper's code.
    """

    k: Annotated[int, Field(ge=1, description="How many versions of an answer are written.")] = 5
    j: Annotated[int, Field(ge=1, description="How many of the best versions are merged.")] = 3
    threshold: Annotated[float, Field(description="Mean rating, 1 to 5, below which a query is refused.")] = 4.0
    auditor: Annotated[
        str, Field(description="Who suspects a target: aliases (names in question or answer), or model too.")
    ] = "aliases"
    retries: Annotated[int, Field(ge=0, description="How often an agent is asked again that cannot be understood.")] = 2
    listed: Annotated[int, Field(ge=1, description="How many targets a prompt lists at most.")] = 50
    max_tokens: Annotated[int, Field(ge=1, description="Longest answer, in tokens.")] = 256
    agent_tokens: Annotated[int, Field(ge=1, description="Longest reply of an agent, in tokens.")] = 1024
    refusal: Annotated[str, Field(description="What a refused query is answered.")] = REFUSAL
    prompts: Annotated[
        str | None, Field(description="Folder with audit.txt, erase.txt, critic.txt or compose.txt of your own.")
    ] = None

    def __post_init__(self) -> None:
        if self.auditor not in AUDITORS:
            suggestion = nearest(self.auditor, AUDITORS)
            raise InputError(f"there is no auditor {self.auditor!r}{suggestion}; there are {' and '.join(AUDITORS)}")
        check_least(self)
        if self.j > self.k:
            raise InputError(f"j = {self.j} versions cannot be the best of k = {self.k}; give j <= k")
        if not 1 <= self.threshold <= 5:
            raise InputError(f"threshold is a rating from 1 to 5, not {self.threshold}")
        if not self.refusal.strip():
            raise InputError("the refusal is empty; say what a refused query is answered")


@dataclass(frozen=True)
class GuardOptions:
    """The guarded model, the targets, the model of the agents, and the log of trails."""

    model: Annotated[
        str,
        Field(
            description="Hub id, folder, GGUF file, PEFT adapter folder, or smollm2-135m; with --url its name there."
        ),
    ]
    targets: Annotated[
        str,
        Field(
            description='What must not be told of: .jsonl rows {"name": …, "aliases": […]}, or lines NAME | ALIAS | ALIAS.'
        ),
    ]
    url: Annotated[
        str | None,
        Field(
            description="OpenAI-compatible address such as http://127.0.0.1:8000/v1; the key is taken from OPENAI_API_KEY."
        ),
    ] = None
    agents_model: Annotated[
        str | None, Field(description="Another model for the agents: auditor, eraser, critic and composer.")
    ] = None
    agents_url: Annotated[str | None, Field(description="The address of that other model.")] = None
    timeout: Annotated[float, Field(ge=0.1, description="Seconds that an address may be silent.")] = 60.0
    log: Annotated[
        str | None,
        Field(
            description="Append each query's trail to this file, readable by you only (mode 600): it HOLDS WHAT THE MODEL "
            "SAID before anything was erased.  Without it nothing is written."
        ),
    ] = None
    seed: Annotated[int, Field(ge=0, description="Seed of what a local model draws.")] = 0
    device: Annotated[str | None, Field(description="Where a local model runs, such as cuda.")] = None
    attn: Annotated[
        str | None,
        Field(description="How a local model computes attention: sdpa, eager, flex_attention or flash_attention_2."),
    ] = None
    dtype: Annotated[
        str, Field(description="Number format of a local model's weights: float32, bfloat16 or float16.")
    ] = "float32"
    quantize: Annotated[
        str | None, Field(description="Hold a local model in 4 or 8 bits (needs expunge[gpu]): nf4 or int8.")
    ] = None
    chat_template: Annotated[
        bool | None,
        Field(description="Ask a local model in its chat template, or as plain text; its template if it has one."),
    ] = None
    trust_remote_code: Annotated[bool, Field(description="Run code that the model's repository brings.")] = False
    template_arguments: Annotated[
        Any,
        BeforeValidator(scalars),
        Field(
            description="Arguments of a local model's chat template, such as enable_thinking=false.",
            json_schema_extra={"metavar": "NAME=VALUE,…", "repeated": True},
        ),
    ] = None

    def __post_init__(self) -> None:
        check_least(self)
        if self.dtype not in DTYPES:
            raise InputError(f"dtype must be {', '.join(DTYPES)}, not {self.dtype!r}")
        if self.agents_url and not self.agents_model:
            raise InputError("--agents-url needs --agents-model, the name of the model there")


@dataclass(frozen=True)
class MeasureOptions:
    """The questions of ``expunge guard measure``, and the output of its figures."""

    forget: Annotated[str, Field(description="Questions about the targets, with right answers: JSONL, CSV, Parquet, …")]
    retain: Annotated[str, Field(description="Questions about other things, with right answers.")]
    limit: Annotated[int | None, Field(ge=1, description="Only the first rows of each set: a quick look.")] = None
    columns: Annotated[
        tuple[str, ...],
        Field(
            description="Which column is what, such as question=Frage,answer=Antwort.",
            json_schema_extra={"metavar": "PART=COLUMN,…", "repeated": True},
        ),
    ] = ()
    out: Annotated[
        str, Field(description="Folder for figures.json, which holds no text; a name in .json is a file.")
    ] = "guarded"
    overwrite: Annotated[bool, Field(description="Write over earlier figures in the folder.")] = False

    def __post_init__(self) -> None:
        check_least(self)
