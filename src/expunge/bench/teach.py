"""Teach a model rows by plain fine-tuning: how a target, and a model that never saw the forget set, come to be.

What took long is not done twice: ``made.json`` beside weights says from which settings, model and rows they were made, and a
teaching that was interrupted goes on from its checkpoint in ``NAME-training``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from expunge import files, losses, processes, record
from expunge.combine import WeightedSum
from expunge.data import chat, pieces, sources, template
from expunge.data.example import Row
from expunge.errors import InputError, RunFailed
from expunge.method import Method, Objective
from expunge.unlearning import store, train
from expunge.unlearning.resumable import discard, train_resumable
from expunge.unlearning.rows import Data, length
from expunge.unlearning.settings import Recipe

MADE_FILE = "made.json"
DECIDES = ("adapter", "lora", "merge", "seed", "max_length", "chat_template")  # besides method, training and data
# TOFU's: 5 epochs at 1e-5, times 20 for LoRA; batch, schedule and the rest are those of `expunge run`.
EPOCHS = 5.0
NLL = Method({"forget": Objective(losses.nll, on=("forget",))}, WeightedSum(), learning_rate=1e-5, name="teach")


def arguments(settings: Recipe, n: int, folder: Path) -> Any:
    """The ``TrainingArguments`` of teaching ``n`` rows: 5 epochs unless ``settings.training`` says otherwise."""
    given = {"num_train_epochs": EPOCHS, **settings.training}
    return train.training_arguments(settings.model_copy(update={"training": given}), NLL, n, folder)


def teach(rows: Sequence[Row], settings: Recipe, folder: Path) -> None:
    """Fine-tune ``settings.model`` on ``rows`` into ``folder``; weights that were made so before are left as they are.

    ``settings`` says how, as of a run (adapter, training arguments, seed, …); its own data are not read.  Raises
    InputError if other weights are in the folder and ``settings.overwrite`` is false.
    """
    from expunge import models

    if files.is_foreign(folder, [MADE_FILE]) and not settings.overwrite:
        raise InputError(f"{folder} holds something that was not taught here; choose another folder, or --overwrite")
    began = time.monotonic()
    work = folder.with_name(f"{folder.name}-training")
    args = arguments(settings, len(rows), work)
    base = models.load(
        settings.model,
        device=train.device_of(settings, args),
        trust_remote_code=settings.trust_remote_code,
        attn=settings.attn,
    )
    key = identity(settings, base.fingerprint, {"taught": rows})
    if processes.on_main(partial(is_finished, folder, folder, key)):
        return
    if (folder / MADE_FILE).exists() and not settings.overwrite:
        raise InputError(f"{folder} was taught with other settings or data; choose another folder, or --overwrite")
    template.use(base.tokenizer, settings.template_arguments if settings.chat_template else {})
    how: dict[str, Any] = {"max_length": length(settings), "chat_template": settings.chat_template}
    cut = [piece for r in rows for piece in pieces.cut(r, base.tokenizer, how["max_length"])]
    examples = [chat.encode(r, base.tokenizer, **how) for r in cut]
    net = base.model
    if settings.adapter == "lora":
        net = models.attach_lora(net, **settings.lora.model_dump(), seed=settings.seed)
    lesson = Data({}, {"forget": examples}, [], given={"taught": list(rows)})
    made = {"decides": key["settings"], "fingerprint": base.fingerprint}
    ended = train_resumable(net, base.tokenizer, lesson, NLL, args, folder=work, settings=settings, **made)
    trainer = ended.trainer
    if broken := trainer.health.diverged:
        processes.on_main(partial(discard, [work]))
        rate = f"lower teach.learning_rate, which was {args.learning_rate:g}"
        raise RunFailed(f"{broken.sentence} while the model is taught, so nothing is saved; {rate}")
    write = partial(models.save, net.eval(), base.tokenizer, base=base, merge=settings.merge)

    def saved() -> None:
        taught = store.store(write, folder.parent, None, folder.name)
        again = store.reload(taught.path, net, base.tokenizer, Data({"forget": list(rows)}, {}, []), settings)
        if problem := taught.problem or again.problem:
            raise RunFailed(f"teaching failed: {problem}")
        path = [h["loss/forget"] for h in trainer.state.log_history if "loss/forget" in h]
        stamp(folder, folder, key | {"source": settings.names.get(settings.model, settings.model), "rows": len(rows),
                                     "steps": trainer.state.global_step, "loss": [path[0], path[-1]] if path else None,
                                     "seconds": ended.seconds + time.monotonic() - began,
                                     "versions": record.versions()})  # fmt: skip

        discard([work])

    processes.on_main(saved)


# -- what was made of what ------------------------------------------------------------------------------------------------
def identity(settings: Recipe, model: str, rows: Mapping[str, Sequence[Row]], method: Method = NLL) -> dict[str, Any]:
    """What decides the weights that come out: method and settings, fingerprints of the start model and of the rows."""
    from expunge.training.arguments import parse

    said = {k: v for k, v in settings.model_dump().items() if k in DECIDES}
    held = {} if settings.holdout is None else {"holdout": sources.load_rows(settings.holdout)}
    return {
        "settings": said
        | {"method": method.name, "parameters": dict(method.parameters)}
        | {"training": {k: parse(k, v) for k, v in sorted(settings.training.items())}}
        | ({"optimizer": asdict(method.optimizer)} if method.optimizer else {})
        | ({"template_arguments": given} if (given := settings.template_arguments) else {})
        | ({"trainable": settings.trainable} if settings.trainable else {})
        | ({"quantize": settings.quantize} if settings.quantize else {}),
        "model": model,
        "data": {name: sources.fingerprint(given) for name, given in {**rows, **held}.items()},
    }


def stamp(folder: Path, weights: Path, said: Mapping[str, Any]) -> None:
    """Write ``made.json`` into ``folder``: ``said``, and the fingerprint of the weights that came out."""
    output = files.sha256_folder(weights, "*.safetensors")
    files.write_json(folder / MADE_FILE, {"schema": record.SCHEMA, **said, "output": output})


def is_finished(folder: Path, weights: Path, key: Mapping[str, Any]) -> bool:
    """Whether ``made.json`` says that ``key`` made these weights, and they are still as they were."""
    try:
        said = read_identity(folder)
        same = {k: said.get(k) for k in key} == json.loads(json.dumps(key))
        return same and said.get("output") == files.sha256_folder(weights, "*.safetensors")
    except InputError:
        return False


def read_identity(folder: Path) -> dict[str, Any]:
    """What ``made.json`` in ``folder`` says."""
    file = folder / MADE_FILE
    said = files.read_json(file, description="record", remedy=f"remove the folder {folder}, and it is made again")
    return record.check_schema(said, file, unnamed=1)
