"""The settings of a search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from expunge.errors import InputError
from expunge.generation.sample import FORMS, SLOT, Form, Sampling
from expunge.reveal import metas
from expunge.reveal.arms import MetaPrompt
from expunge.reveal.search import Plan
from expunge.settings import check_keys, checked, scalars, split_pair


class Reveal(BaseModel):
    """The settings of ``expunge reveal``.

    ``topic``: what the model should forget, in a few words; ``scorer``: the relevance of an answer, a name of
    :func:`expunge.scorers.scorer` (without one: the similarity to the model's answers to the list's own instructions);
    ``heading``, ``seeds``: the list of instructions that the model continues, instead of the topic's or the scorer's own.
    One of topic, scorer and seeds is needed.  ``template``: the prompt of each instruction, a text with ``{instruction}``
    in it, for a model with a fixed prompt format.

    The search: ``arms`` soft prompts of ``soft_tokens`` tokens, ``scale`` times as large as the model's embeddings, from a
    Sobol sequence of ``dimension``; each writes an instruction at ``arm_temperature``.  ``chooser``: the choice of the
    next arm, ``linear`` (ridge regression), ``bandit`` (the paper's network, a hundred times slower) or ``random``; ``nu``:
    how much the first two explore.
    Answers are drawn at ``temperature`` and ``top_p``.  ``neutral``: number of neutral rows.  ``embeddings``: a
    sentence-transformers model instead of the model's own hidden states.
    The rest are :class:`~expunge.reveal.search.Plan`'s.
    """

    model_config = ConfigDict(extra="forbid")
    model: str = Field(description="Hub id, folder, GGUF file, PEFT adapter folder, or smollm2-135m.")
    topic: str | None = Field(None, description="What the model should forget, in a few words.")
    scorer: str | None = Field(
        None,
        description="What makes an answer relevant: entity:NAME|NAME, words:a, b, toxicity, ner:PER, code or "
        "FILE.py:FUNCTION; without it, how near it is to what the model says of the topic, or to the seed instructions.",
    )
    heading: str | None = Field(None, description="What the seed instructions are a list of.")
    seeds: list[str] = []
    form: Literal["question", "beginning"] = "question"
    template: str = Field(
        SLOT,
        description="The prompt that every instruction stands in, with {instruction} in it: for a model that is always "
        "asked in one form.",
    )
    out: str = Field("revealed", description="Folder for revealed.jsonl, neutral.jsonl and the log.")
    chooser: Literal["linear", "bandit", "random"] = Field(
        "linear",
        description="What chooses the next instruction: linear (ridge regression), bandit (the paper's network) or random.",
        json_schema_extra={"metavar": "linear|bandit|random"},
    )
    arms: int = Field(256, ge=2)
    soft_tokens: int = Field(5, ge=1)
    dimension: int = Field(10, ge=1, le=21201)  # as many as torch's Sobol sequence has
    scale: float = Field(1.0, ge=0, allow_inf_nan=False)
    arm_temperature: float = Field(1.0, ge=0)
    instruction_tokens: int = Field(48, ge=1)
    nu: float = Field(0.0001, ge=0)
    rounds: int = Plan.rounds
    queries: int = Plan.queries
    initial: int = Plan.initial
    responses: int = Plan.responses
    best: int = Plan.best
    harvest: int = Plan.harvest
    weight: float = Field(Plan.weight, ge=0, le=1)
    threshold: float = Field(Plan.threshold, ge=0, le=1)
    shortest: int = Plan.shortest
    max_perplexity: float = Plan.max_perplexity
    temperature: float = Sampling.temperature
    top_p: float = Sampling.top_p
    max_new_tokens: int = Sampling.max_new_tokens
    neutral: int = Field(64, ge=8)
    embeddings: str | None = None
    chat_template: bool = Field(True, description="Ask in the tokenizer's chat template, or as plain text.")
    template_arguments: Annotated[dict[str, Any], BeforeValidator(scalars)] = Field(
        {},
        description="Arguments of the chat template, such as enable_thinking=false,date_string=26 Jul 2024.",
        json_schema_extra={"metavar": "NAME=VALUE,…", "repeated": True},
    )
    seed: int = Field(0, ge=0, description="Seed of every random draw.")
    model_name: str | None = None
    device: str | None = Field(None, description="Where the model runs, such as cuda.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Number format of the weights.")
    quantize: Literal["nf4", "int8"] | None = Field(
        None, description="Hold the model in 4 or 8 bits (needs expunge[gpu]): nf4 or int8."
    )
    attn: str | None = Field(
        None, description="How attention is computed: sdpa, eager, flex_attention or flash_attention_2."
    )
    overwrite: bool = Field(False, description="Begin anew, whatever is there.")
    trust_remote_code: bool = Field(False, description="Run code that the model's repository brings.")

    @property
    def plan(self) -> Plan:
        """The plan of the search."""
        plan_settings = {k: v for k, v in self.model_dump().items() if k in Plan.__dataclass_fields__}
        return Plan(**plan_settings, longest=self.max_new_tokens)

    @property
    def sampling(self) -> Sampling:
        """Sampling of the answers."""
        return Sampling(self.temperature, self.top_p, self.max_new_tokens)

    @property
    def prompt_form(self) -> Form:
        """The prompt form of an instruction."""
        if self.template.count(SLOT) != 1:
            raise InputError(f"the template must hold {SLOT} once: there an instruction is put, not {self.template!r}")
        return replace(FORMS[self.form], template=self.template)

    @property
    def meta(self) -> MetaPrompt:
        """The list of instructions that the model continues."""
        default_meta = metas.topic_prompt(self.topic, self.form) if self.topic else None
        if default_meta is None and not (self.heading and self.seeds):
            default_meta = metas.scorer_prompt(self.scorer, self.form) if self.scorer else None
        if default_meta is None and not self.seeds:
            raise InputError("say what the model should forget: a topic, a scorer that knows what to ask, or seeds")
        heading = self.heading or (default_meta.heading if default_meta else "Questions and requests:")
        return MetaPrompt(heading, tuple(self.seeds) or (default_meta.seeds if default_meta else ()))


def make(values: Mapping[str, Any], where: str = "reveal") -> Reveal:
    """``values`` as checked settings; InputError in one sentence for the first wrong one."""
    check_keys(values, Reveal.model_fields, where)
    return checked(Reveal, values, where)


def override(values: Mapping[str, Any], pairs: Iterable[str]) -> dict[str, Any]:
    """``values`` with ``key=value`` settings."""
    return dict(values) | dict(split_pair(pair, "queries=40") for pair in pairs)
