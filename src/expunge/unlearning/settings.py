"""A run as a value: what the command line, a recipe file and ``unlearn`` all come down to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from expunge.errors import InputError, nearest, shortened
from expunge.evaluation.custom import HELP, Names, metrics
from expunge.settings import check_keys, check_pairs, checked, full_names, mapping, read_recipe, scalars, split_pair
from expunge.unlearning import readers

# The table that key=value names -> the field of a recipe.
TABLES = {"method": "parameters", "optimizer": "optimizer_parameters", "lora": "lora", "training": "training"}

SUCH = {"lora": "lora.r=8", "training": "learning_rate=1e-5"}


class Adapter(BaseModel):
    """LoRA's own settings."""

    model_config = ConfigDict(extra="forbid")
    r: int = Field(16, gt=0, le=65536)
    alpha: float = Field(32, gt=0, allow_inf_nan=False)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: Annotated[str | list[str], BeforeValidator(readers.modules)] = "all-linear"


class Recipe(BaseModel):
    """Everything that decides a run.

    ``forget`` and ``retain``: a file, a folder, a hub name (or rows in memory, from Python).  ``eval_rows``: how many rows
    of each set the figures before and after are measured on (evenly spread).  ``fluency_rows``: how many of those to
    forget are answered for the fluency of the answers, which are not shown.  ``examples``: how many rows of each set are
    answered and *shown* in record and report; 0 keeps all text out of them.  ``compare_with``: a third model,
    such as the retrained one, for the same figures; ``compare_name`` is what the report calls it.  ``model_name`` and
    ``data_name`` (the folder of the data files) stand in the record in place of where they lie here.
    ``holdout``: text that the model never saw; training stops once the forget loss is down to what it is there.  Methods
    that end at a level take it from these rows (:mod:`expunge.unlearning.unseen`).
    ``level``: a model that never saw the forget rows; methods such as ``blur_level`` end where they are as likely as there
    (:mod:`expunge.training.levels`).
    ``keep``: training ends, and goes back to the last good weights, where the model keeps less than this share of its
    probability of retain rows that are not trained on (:mod:`expunge.training.utility`).
    ``trainable``: a regular expression; only weights whose name it is found in train, or with LoRA get factors (a method of
    activations brings its own).
    ``columns``: part of a row -> column of the files, for names that are not known; ``assistant_turns``: of a conversation
    with several, which are trained on.  ``template_arguments``: passed to the tokenizer's chat template wherever it is
    rendered; ``strftime_now`` is the date for one that asks for today's.
    ``max_length``: tokens of a row; longer plain texts are cut into pieces, longer answers are cut off.
    ``limit``: only the first rows of each set are read.  ``dtype``: with LoRA of the weights that do not train, its factors
    are float32 in any case; without LoRA of the weights that are saved: those that train are float32 until then, for
    bfloat16 would lose most of their small steps.  On a CUDA device a step computes in bfloat16 either way, unless
    ``bf16=false`` says otherwise.  ``quantize``: with LoRA, the weights that do not train in 4 or 8 bits; ``dtype`` is
    then of those that stay in full, and what an nf4 layer computes in.  ``attn``: how attention is computed, transformers'
    ``attn_implementation``.
    ``save_every``: seconds between checkpoints (None: only those that training arguments ask for); the same run again goes
    on from the newest, unless it is to begin ``fresh``.
    ``optimizer``: ``sophia``, ``sophia_published``, or ``adamw`` for the one that the training argument ``optim`` names;
    without one it is the method's.
    ``processes``: how many the command line starts; from Python a launcher does.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    model: str = Field(description="Hub id, folder, GGUF file, PEFT adapter folder, or smollm2-135m.")
    forget: Annotated[Any, AfterValidator(readers.rows)] = Field(
        description="Forget set: JSONL, JSON, CSV, text, Parquet, Excel, folder or hub name."
    )
    retain: Annotated[Any, AfterValidator(readers.rows)] = Field(None, description="Retain set: what must stay.")
    self_retain: int = Field(
        64,
        ge=0,
        description="No retain set: N rows about something else that the model writes itself, where the method needs some.",
        json_schema_extra={"metavar": "N"},
    )
    holdout: Annotated[Any, AfterValidator(readers.rows)] = Field(
        None,
        description="Text the model never saw: stop once the forget loss is down to what it is there. Methods that end at a "
        "level take it from these rows.",
    )
    level: str | None = Field(
        None,
        description="A model that never saw the forget rows, for methods that end at its level: a retrained one or the one "
        "before fine-tuning. Left out, the base of an adapter, holdout rows, or answers that the model makes up itself.",
        json_schema_extra={"metavar": "MODEL"},
    )
    keep: float | None = Field(
        None,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="Stop, and go back, where the model keeps less than this share of its probability of retain rows that "
        "are not trained on, such as 0.95.",
        json_schema_extra={"metavar": "SHARE"},
    )
    keep_every: int | None = Field(
        None,
        ge=1,
        description="With keep: steps between two probes; if not given, there are 16 in a run.",
        json_schema_extra={"metavar": "STEPS"},
    )
    keep_rows: Annotated[Any, AfterValidator(readers.rows)] = Field(
        None,
        description="With keep: rows of the probe; if not given, one in five retain rows, taken away from training.",
    )
    out: str = Field("unlearned", description="Folder for run.json, model/ and report.html.")
    method: str = Field("blur_level", description="One of `expunge methods`, or FILE.py:NAME.")
    parameters: dict[str, Any] = {}
    as_published: bool = Field(
        False,
        description="The paper's method in place of one of this library that builds on it: blur_npo for blur_level, pdu for "
        "pdu_level.",
    )
    optimizer: str | None = Field(
        None,
        description="sophia or sophia_published (second order), or adamw: what the training argument optim names; "
        "the method's if not given.",
    )
    optimizer_parameters: dict[str, Any] = {}
    adapter: Literal["lora"] | None = Field(None, description="lora trains LoRA factors; without it all weights train.")
    lora: Adapter = Adapter()  # type: ignore[call-arg]
    merge: bool = Field(False, description="With an adapter: write a merged model.")
    max_rank: int | None = Field(
        None,
        ge=1,
        description="Where the model is an adapter already: the highest rank of the one that is saved; a higher one is cut "
        "by SVD; if not given, 4 × lora.r.",
        json_schema_extra={"metavar": "R"},
    )
    trainable: Annotated[str, AfterValidator(readers.expression)] | None = Field(
        None,
        description="Only weights whose name this is found in train (with lora: get factors).",
        json_schema_extra={"metavar": "REGEX"},
    )
    training: dict[str, Any] = {}
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the data order, the adapter and the refusals.")
    max_length: int = Field(512, gt=1)
    chat_template: bool = Field(True, description="Ask in the tokenizer's chat template, or as plain text.")
    template_arguments: Annotated[dict[str, Any], BeforeValidator(scalars)] = Field(
        {},
        description="Arguments of the chat template, such as enable_thinking=false,date_string=26 Jul 2024.",
        json_schema_extra={"metavar": "NAME=VALUE,…", "repeated": True},
    )
    columns: Annotated[dict[str, str], BeforeValidator(mapping)] = Field(
        {},
        description="Which column is what, such as question=Frage,answer=Antwort.",
        json_schema_extra={"metavar": "PART=COLUMN,…", "repeated": True},
    )
    assistant_turns: Literal["all", "last"] = Field(
        "all", description="Which of a conversation's assistant turns are labelled: all or last."
    )
    limit: int | None = Field(None, ge=1, description="Only the first rows of each set: a quick look.")
    eval_rows: int = Field(100, ge=1, description="Rows of each set for the figures before and after.")
    examples: int = Field(
        0, ge=0, description="Rows of each set to answer and SHOW in record and report; 0 shows no text."
    )
    max_new_tokens: int = Field(80, ge=1)
    fluency_rows: int = Field(
        16, ge=0, description="Rows to forget whose answers are measured, not shown: are they still sentences? 0: none."
    )
    metric: Names = Field(None, description=HELP, json_schema_extra={"metavar": "NAME"})
    compare_with: str | None = Field(None, description="A third model for the figures, such as the retrained one.")
    compare_name: str | None = None
    model_name: str | None = None
    data_name: str | None = None
    title: str | None = None
    processes: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Start that many processes on this machine, one a GPU (on the CPU without); a step has the same rows.",
        json_schema_extra={"metavar": "N"},
    )
    device: str | None = Field(None, description="Where the model runs, such as cuda.")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Number format of the weights: with lora of those that do not train, else of those that are saved; what "
        "trains is float32 meanwhile.",
    )
    quantize: Literal["nf4", "int8"] | None = Field(
        None,
        description="With lora: hold the weights that do not train in 4 or 8 bits (QLoRA, needs expunge[gpu]): nf4 or int8.",
    )
    attn: str | None = Field(
        None,
        description="How attention is computed: sdpa, eager, flex_attention or, where flash-attn is installed, "
        "flash_attention_2; if not given, transformers' choice.",
    )
    overwrite: bool = Field(False, description="Write over an earlier run in the folder.")
    save_every: Annotated[float | None, BeforeValidator(readers.seconds)] = Field(
        "5m",
        validate_default=True,
        description="Save a checkpoint this often, from which the same command goes on: 90s, 5m, 2h, or never.",
        json_schema_extra={"metavar": "TIME"},
    )
    fresh: bool = Field(False, description="Start over where the folder holds an unfinished run.")
    trust_remote_code: bool = Field(False, description="Run code that the model's repository brings.")
    push_to_hub: bool = Field(False, description="Push the model with its card to the Hugging Face Hub in the end.")
    hub_model_id: str | None = Field(None, description="With push_to_hub: user/name; if not given, the name of out.")
    hub_private_repo: bool | None = Field(None, description="With push_to_hub: whether a new repository is private.")
    hub_token: str | None = Field(
        None, repr=False, description="With push_to_hub: the token, if not that of hf auth login."
    )
    hub_revision: str | None = Field(None, description="With push_to_hub: the branch that it goes to.")

    @property
    def loaded(self) -> Literal["float32", "bfloat16"]:
        """The number format of the weights in memory: whole weights train in float32, whatever they are saved in."""
        return self.dtype if self.adapter else "float32"

    @property
    def compute(self) -> str | None:
        """The number format in which nf4 layers compute; None: what suits the device."""
        return self.dtype if "dtype" in self.model_fields_set else None

    @property
    def names(self) -> dict[str, str]:
        """Path -> what the record calls it."""
        out = {self.model: self.model_name} if self.model_name else {}
        for place in (self.forget, self.retain, self.holdout, self.keep_rows):
            if self.data_name and isinstance(place, str | Path) and Path(place).exists():
                out[str(place)] = f"{self.data_name}/{Path(place).name}"
        return out


def make(values: Mapping[str, Any], where: str = "the run") -> Recipe:
    """``values`` checked; the first thing that is wrong is one sentence."""
    values = with_training(values, where)
    if any(key not in Recipe.model_fields for key in values):
        from expunge.training.arguments import names
        from expunge.training.refused import habit

        check_keys(values, [*Recipe.model_fields, *names()], where, habit)
    made = checked(Recipe, values, where)
    _check_heeded(made, where)
    if made.dtype != "float32" and made.merge:
        raise InputError(
            f"{where}: weights that an adapter is merged into are float32; with dtype = {made.dtype} say no merge"
        )
    metrics(made.metric)  # one that is none is refused before a model is loaded
    return made


def _check_heeded(made: Recipe, where: str) -> None:
    """Raise InputError for a setting that would do nothing beside the others, or that training does not take."""
    given = made.model_fields_set
    if made.adapter is None:
        for key in sorted(made.lora.model_fields_set):
            raise InputError(f"{where}: lora.{key} does nothing without LoRA; say adapter = lora (--adapter lora) too")
        if made.merge:
            raise InputError(
                f"{where}: merge does nothing without an adapter, whole weights are saved anyway; say adapter = lora "
                "(--adapter lora) too, or leave it out"
            )
    if made.quantize:
        _check_quantized(made, where)
    if made.max_rank and (made.adapter is None or made.merge):
        raise InputError(
            f"{where}: max_rank is of the adapter that is saved, and whole weights are; say adapter = lora (--adapter lora) "
            "without merge, or leave it out"
        )
    for key in ("keep_every", "keep_rows"):
        if getattr(made, key) is not None and made.keep is None:
            raise InputError(
                f"{where}: {key} does nothing without keep; say keep = 0.95 (--keep 0.95) too, or leave it out"
            )
    if made.trainable and "target_modules" in made.lora.model_fields_set:
        raise InputError(f"{where}: trainable and lora.target_modules say the same thing; leave out one of the two")
    for key in sorted(given & {"hub_model_id", "hub_private_repo", "hub_token", "hub_revision"}):
        if not made.push_to_hub and getattr(made, key) is not None:
            raise InputError(
                f"{where}: {key} does nothing without push_to_hub; say push_to_hub = true (--push-to-hub) too"
            )
    if made.compare_name and not made.compare_with:
        raise InputError(f"{where}: compare_name does nothing without compare_with, the model that it names")
    if "max_new_tokens" in given and not made.examples:
        raise InputError(f"{where}: max_new_tokens is of the answers that are shown; say examples = 5 too")
    if made.training:
        from expunge.training.arguments import parsed

        parsed(made.training)


def _check_quantized(made: Recipe, where: str) -> None:
    """Raise InputError for what cannot be done with weights that are quantised."""
    if made.adapter is None:
        raise InputError(
            f"{where}: weights that are quantised cannot train (quantize = {made.quantize}); say adapter = lora "
            "(--adapter lora) too, or leave quantize out"
        )
    if made.merge:
        raise InputError(
            f"{where}: an adapter cannot be merged into weights that are quantised (quantize = {made.quantize}) without "
            "rounding it away; leave merge out, the adapter is saved, and PEFT merges it into the full weights"
        )
    if made.training.get("fsdp") or made.training.get("deepspeed"):
        raise InputError(
            f"{where}: weights that are quantised (quantize = {made.quantize}) are not sharded; leave out fsdp and "
            "deepspeed (each process then holds them whole), or quantize"
        )


def without_level(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` of one of several runs, less the ``level`` that they share where its own method reads none."""
    from expunge.method import entry

    out = dict(values)
    if out.get("level") is not None and not entry(out["method"]).make(**out.get("parameters", {})).reads_level:
        out.pop("level")
    return out


def with_training(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``values`` with the training arguments beside the recipe's keys moved into the table ``training``, by full names."""
    out = full_names(values, where)
    table = out.get("training") or {}
    if not isinstance(table, Mapping):
        return out  # refused where it is checked
    table = full_names(table, f"{where}, [training]")
    if rest := [key for key in out if key not in Recipe.model_fields]:
        from expunge.training.arguments import names

        table |= {key: out.pop(key) for key in rest if key in names()}
    return out | ({"training": table} if table else {})


def read(path: str | Path) -> dict[str, Any]:
    """The settings of a recipe, a TOML or YAML file.

    Top-level keys are :class:`Recipe`'s; the table ``[method]`` holds ``name`` and the method's parameters, ``[optimizer]``
    the optimizer's likewise (its ``name`` may be left to the method), ``[lora]`` LoRA's settings, ``[training]`` fields of
    ``TrainingArguments``.  Relative data paths are relative to the recipe.
    """
    values = read_recipe(path)
    if isinstance(values.get("method"), dict):
        table = dict(values.pop("method"))
        if "name" not in table:
            raise InputError(f"{path}: the table [method] needs a name")
        values["method"] = table.pop("name")
        values["parameters"] = table
    if isinstance(values.get("optimizer"), dict):
        table = dict(values.pop("optimizer"))
        values |= {"optimizer": table.pop("name", None), "optimizer_parameters": table}
    return values


def override(
    values: Mapping[str, Any], pairs: Iterable[str], where: str = "the recipe", *, others: Iterable[str] = ()
) -> dict[str, Any]:
    """``values`` with ``key=value`` settings: recipe keys, ``method.KEY`` (``optimizer``, ``lora``), training arguments.

    ``others``: settings of the command that were taken out before, which a misspelt one may have meant.
    """
    from expunge.training.arguments import names
    from expunge.training.refused import habit

    pairs = list(pairs)
    check_pairs(pairs)
    out = with_training(values, where)
    for table in TABLES.values():
        if not isinstance(out.get(table) or {}, Mapping):
            raise InputError(
                f"{where}: {table} = {shortened(out[table])} is no table; write [{table}] and its keys under it"
            )
    out |= {table: dict(out.get(table) or {}) for table in TABLES.values()}
    for pair in pairs:
        key, value = split_pair(pair)
        table, dot, name = key.partition(".")
        if key in ("method.name", "optimizer.name"):
            out[table] = value
        elif key in ("lora", "training"):
            raise InputError(f"{key} is a table; write its keys one by one, such as {SUCH[key]}")
        elif dot and table in TABLES:
            out[TABLES[table]][name] = value
        elif key in Recipe.model_fields and key not in TABLES.values():
            out[key] = value
        elif key in names():
            out["training"][key] = value
        elif out.get("template_arguments") and not get_close_matches(key, [*Recipe.model_fields, *names()], cutoff=0.8):
            # --template-arguments enable_thinking=false date_string=…; one that the template does not know is refused.
            out["template_arguments"] = {**scalars(out["template_arguments"]), **scalars(pair)}
        else:
            known = [*others, *Recipe.model_fields, *names(), *(f"lora.{field}" for field in Adapter.model_fields)]
            if meant := habit(key):
                raise InputError(f"there is no setting {key!r}{meant}")
            raise InputError(
                f"there is no setting {key!r}{nearest(key, known)}; "
                "a setting is a recipe key, method.KEY, optimizer.KEY, lora.KEY or a field of transformers.TrainingArguments"
            )
    return out
