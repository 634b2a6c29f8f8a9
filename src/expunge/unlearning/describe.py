"""What a run's record says of its method, model, data and training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from expunge import files, processes, record
from expunge.data import sources, template
from expunge.data.example import Row
from expunge.errors import InputError
from expunge.method import Method, entries
from expunge.record_types import MethodInfo, ModelInfo, OutputInfo
from expunge.sophia import Settings
from expunge.training.predictions import AS_IT_IS
from expunge.training.stops import stop_of
from expunge.unlearning.rows import Data
from expunge.unlearning.settings import Recipe

SELF_WRITTEN = "written by the model itself"  # the source of a retain set that nobody gave


def describe(method: Method) -> dict[str, Any]:
    """The method as the record holds it."""
    row = entries().get(method.name)
    return {
        "name": method.name,
        "parameters": dict(method.parameters),
        "paper": (row.paper or None) if row else None,
        "status": row.status if row else "custom",
        "summary": row.summary if row else None,
        "combiner": repr(method.combine),
        "objectives": {role: objective.name for role, objective in method.objectives.items()},
    } | ({"chosen": dict(method.chosen)} if method.chosen else {})


def describe_model(target: Any, net: Any, settings: Recipe) -> dict[str, Any]:
    """The target, and how much of ``net`` trains."""
    from expunge import models

    moving, total = models.trainable(net)
    return {
        "source": settings.names.get(settings.model, settings.model),
        "fingerprint": target.fingerprint,
        "parameters": total,
        "trainable": moving,
        "adapter": settings.adapter,
        "adapter_config": settings.lora.model_dump() if settings.adapter else None,
        "dtype": str(target.model.dtype).removeprefix("torch."),
    } | ({"quantized": dict(target.quantized)} if target.quantized else {})


def describe_output(path: Path, again: Any, chain: Any, settings: Recipe) -> dict[str, Any]:
    """The weights that were written: ``fingerprint`` is what a run that begins with them says of its model, in this number
    format; ``files`` is of the files; ``check`` compares a few rows in memory and from the files.
    """
    said: dict[str, Any] = {
        "path": path.name,
        "fingerprint": again.fingerprint,
        "dtype": settings.loaded,
        "files": files.sha256_folder(path, "*.safetensors"),
        "check": again.described,
    }
    if chain and chain.adapter:
        said["rank"] = {
            "saved": chain.rank,
            "sum": chain.sum_of_ranks,
            "error": chain.lost.overall if chain.lost else 0.0,
        }
    return said


def parent_of(settings: Recipe, fingerprint: str) -> tuple[dict[str, Any] | None, list[str]]:
    """The earlier run that wrote the model, and a warning where the weights are not the ones that its record names."""
    place = files.expanded(settings.model)
    if not place.is_dir() or not (place.parent / record.FILE).is_file():
        return None, []
    try:
        earlier = record.read(place.parent)
    except InputError:
        return None, []
    output = record.complete(OutputInfo, earlier.get("output"))
    if output["path"] != place.resolve().name:
        return None, []
    named = settings.names.get(settings.model)
    folder = str(Path(settings.model).parent)
    method = record.complete(MethodInfo, earlier.get("method"))
    said = {
        "run": Path(folder).resolve().name if named else folder,
        "created": earlier.get("created"),
        "method": method["name"],
        "fingerprint": output["fingerprint"],
        "model": record.complete(ModelInfo, earlier.get("model"))["fingerprint"],
    }
    alike = bool(record.complete(ModelInfo, earlier.get("model")).get("quantized")) == bool(settings.quantize)
    comparable = output.get("dtype") == settings.loaded and alike and output["fingerprint"]
    if comparable and output["fingerprint"] != fingerprint:
        return said, [
            f"the weights in {named or place} are not those that the record of the run in {said['run']} names"
        ]
    return said, []


def source_of(name: str, settings: Recipe, method: Method) -> Any:
    """Where the stream ``name`` came from."""
    found = getattr(settings, name, method.alternate)
    if name == "retain" and found is None:
        return SELF_WRITTEN
    return settings.retain if name == "keep_rows" and found is None else found


def describe_data(source: Any, rows: Sequence[Row], settings: Recipe) -> dict[str, Any]:
    """Where a set came from, and the fingerprint of its rows."""
    name = str(source) if isinstance(source, str | Path) else f"{type(source).__name__} in memory"
    return {"source": settings.names.get(name, name), "rows": len(rows), "fingerprint": sources.fingerprint(rows)}


def used(data: Data, name: str) -> dict[str, Any]:
    """Of a set of ``data``: the pieces that its texts were cut into, its tokens to be labelled, and how many of them are."""
    if name not in data.tokens:
        return {}
    total, labelled = data.tokens[name]
    return {"pieces": len(data.rows[name]), "tokens": total, "tokens_used": labelled}


def sets(log: Mapping[str, Any]) -> list[str]:
    """A line for each set of a record that says how many rows and tokens were used."""
    return [
        f"{name}: {said['rows']:,} row{'s' * (said['rows'] != 1)}, {share(said)}"
        for name, said in log["data"].items()
        if "tokens" in said
    ]


def shares(data: Data) -> list[str]:
    """How much of each set's tokens is used, in words."""
    return [f"{name}: {share(used(data, name) | {'rows': len(data.given[name])})}" for name in data.tokens]


def share(said: Mapping[str, Any]) -> str:
    """What :func:`used` gave, in words.

    >>> share({"rows": 1, "pieces": 52, "tokens": 20093, "tokens_used": 20093})
    'all 20,093 tokens in 52 pieces'
    >>> share({"tokens": 400, "tokens_used": 399})
    '399 of 400 tokens (99.8 %)'
    """
    total, labelled = said["tokens"], said["tokens_used"]
    part = (
        f"all {total:,} tokens" if total == labelled else f"{labelled:,} of {total:,} tokens ({labelled / total:.1%})"
    )
    many = said.get("pieces", 0) != said.get("rows", said.get("pieces", 0))
    return part.replace("%)", " %)") + (f" in {said['pieces']:,} pieces" if many else "")


def reading(settings: Recipe, tokenizer: Any) -> dict[str, Any]:
    """How rows became tokens: columns, labelled turns, and how the chat template was rendered (None where it was not)."""
    return {
        "columns": dict(settings.columns),
        "assistant_turns": settings.assistant_turns,
        "max_length": settings.max_length,
        "template": template.described(tokenizer) if settings.chat_template else None,
    }


def stopped(trainer: Any) -> dict[str, Any]:
    """Where a run ended before its last step; with a holdout set also the forget loss it was to come down to, and what the
    last look at it saw.
    """
    stop = stop_of(trainer)
    after = {"stopped_after": stop.step} if stop else {}
    if trainer.stop is None or trainer.health.diverged:
        return after
    level, found = trainer.stop.level, trainer.stop.found
    return {"holdout_level": level, "forget_loss": found, "stopped_after": trainer.state.global_step} | after


def watched(trainer: Any, level: Mapping[str, Any]) -> dict[str, Any]:
    """What the record says of a run whose numbers went wrong, or were watched: why it ended before its last step, the
    probes of a utility guard, a retain budget and what became of it, micro-batches that were halved, how far the forget set
    is from its level; ``level``: what gave that.
    """
    stop, guard, fit = stop_of(trainer), trainer.guard, trainer.fit
    return (
        {"stopped": stop.described() if stop else None}
        | ({"budget": trainer.budget} if trainer.budget else {})
        | ({"keep": guard.described()} if guard else {})
        | ({"out_of_memory": fit.described()} if fit.halved else {})
        | ({"level": ended_at(trainer, level)} if trainer.level and trainer.level.found else {})
    )


def ended_at(trainer: Any, level: Mapping[str, Any]) -> dict[str, Any]:
    """How far the forget set is from its level; ``level``: what gave that, and here how its predictions were calibrated, and
    how well it is known.
    """
    held = trainer.reference.level
    how = getattr(held, "calibration", AS_IT_IS)
    calibrated = {} if how == AS_IT_IS else how._asdict()
    known = {"uncertainty": held.uncertainty, "in_context": getattr(held, "in_context", False)}
    return {**level, **calibrated, **known, **trainer.level.described()}


def reference(trainer: Any) -> dict[str, Any]:
    """What is held of the frozen target for the losses that read it, where any does."""
    held = trainer.reference.described
    return {"reference": held} if held else {}


def shared() -> dict[str, int]:
    """How many processes trained together, where they are several."""
    n = processes.count()
    return {"processes": n} if n > 1 else {}


NOT_CHOSEN = ("output_dir", "logging_dir", "logging_nan_inf_filter")  # folders, and what the trainer always sets


def describe_training(args: Any, total_steps: int, sophia: Settings | None = None) -> dict[str, Any]:
    """What was set away from the library's defaults, as ``TrainingArguments`` itself writes it, without folders.

    Where Sophia stands in for the optimizer that ``optim`` names, it is told in its place.
    """
    from transformers import TrainingArguments

    from expunge.training import devices

    launched = (
        {k: getattr(args, k) for k in ("use_cpu", "ddp_backend")} if shared() else {}
    )  # not of the user's choosing
    with devices.undisturbed():
        plain = TrainingArguments(output_dir=args.output_dir, report_to=[], **launched).to_dict()
    chosen = {k: v for k, v in args.to_dict().items() if v != plain.get(k) and k not in NOT_CHOSEN}
    if sophia:
        chosen = {k: v for k, v in chosen.items() if k != "optim"} | {"optimizer": {"name": "sophia", **asdict(sophia)}}
    return chosen | {
        "max_steps": total_steps,
        "per_device_train_batch_size": args.per_device_train_batch_size,
    }


def steps(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The trainer's log as one row per logged optimizer step; ``seconds`` is how long the step took."""
    rows = [h for h in history if any(key.startswith("loss/") for key in h)]
    return [{"step": h["step"], **{k: v for k, v in h.items() if k not in ("step", "loss")}} for h in rows]


def tokens(trainer: Any) -> int:
    """How many tokens the steps read over all streams, prompt and padding included: what the trainer counted, 6 operations
    a parameter and token.
    """
    from expunge.forward.family import parameters

    result: int = round(trainer.state.total_flos / (6 * parameters(trainer.model)))
    return result
