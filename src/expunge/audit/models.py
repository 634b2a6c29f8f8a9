"""The models of an audit, loaded one after another: each is measured, attacked, and let go.

The target comes last, since it judges what the others answered.  It is loaded before as well only where it has to write
paraphrased questions and wrong answers.  What was measured of target and control may come from an audit before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from expunge import models
from expunge.attacks.attack import Attack, Point, Subject
from expunge.audit import attacking, describe, fluency, measure, rewrite
from expunge.audit.control import Control
from expunge.audit.loading import beside, loaded
from expunge.audit.material import Material
from expunge.audit.results import ModelResults, Results
from expunge.audit.settings import Audit
from expunge.data.example import Row

Measured = dict[str, ModelResults]  # of targets and controls, by all that decides it
OWN = {"model", "out", "run", "policy", "examples", "request", "operator", "title", "model_name", "target_name",
       "control_name", "data_name", "fail_unless", "overwrite"}  # fmt: skip  # settings that decide nothing of them


def measure_all(
    settings: Audit,
    material: Material,
    attacks: Sequence[Attack],
    control: Control | None,
    folder: Path,
    measured: Measured,
) -> Results:
    """Measure and attack all models of an audit; what the target writes goes into ``folder``.

    ``measured``: target and control of audits before, which differ in their unlearned model alone; those of this are added.
    """
    material, rewritten = _completed(settings, material, folder)
    results: dict[str, ModelResults] = {}
    with loaded(settings.model, settings) as one:
        results["unlearned"] = results_of(one, "unlearned", attacks, settings, material)
    kept = kept_as("control", attacks, settings, material)
    if control and kept not in measured:
        with loaded(control.name, settings) as one:
            measured[kept] = results_of(one, "control", attacks, settings, material)
    if control:
        results["control"] = measured[kept]
    own = [a for a in attacks if attacking.scale_of(a) == "own"]
    kept = kept_as("target", own, settings, material)
    with loaded(settings.target or "", settings) as target:
        if kept not in measured:
            measured[kept] = results_of(target, "target", own, settings, material)
        results = {"target": measured[kept], **results}
        judged = fluency.judged(
            {role: one.table for role, one in results.items()}, target.model, target.tokenizer, material, settings
        )
    return Results(results, judged, material, rewritten)


def kept_as(role: str, attacks: Sequence[Attack], settings: Audit, material: Material) -> str:
    """What decides what is measured of a model that is not the unlearned one, as a text."""
    rows = replace(material, warnings=[], trained_on=None)
    return repr((role, [a.name for a in attacks], settings.model_dump(exclude=OWN), rows))


def _completed(settings: Audit, material: Material, folder: Path) -> tuple[Material, dict[str, Any]]:
    """The rows with what the target writes of them, and what is said of that; no model is loaded where none has to write."""
    if not rewrite.wanted(material, settings):
        return rewrite.complete(material, None, settings, folder)
    with loaded(settings.target or "", settings) as target:
        return rewrite.complete(material, target, settings, folder)


def results_of(
    one: models.Loaded, role: str, attacks: Sequence[Attack], settings: Audit, material: Material
) -> ModelResults:
    """What is measured of a model, attacked by ``attacks``."""
    table = measure.measured(one.model, one.tokenizer, material, settings, f"the {role} model")
    return ModelResults(table, describe.facts(one), attacked(one, role, attacks, settings, material))


def attacked(
    one: models.Loaded, role: str, attacks: Sequence[Attack], settings: Audit, material: Material
) -> dict[str, list[Point] | str]:
    """The attacks on one model; target and retrained model are in memory only for attacks that need them."""
    from tqdm.auto import tqdm

    def know(net: Any) -> measure.Array:
        return measure.probability(net, one.tokenizer, material.forget, material, settings)

    subject = Subject(
        one.model,
        one.tokenizer,
        [with_wrong(material, i) for i in range(len(material.forget))],
        known=material.known,
        retain=material.others,
        unrelated=measure.general_rows(),
        seed=settings.seed,
    )
    groups: dict[tuple[str, ...], list[Attack]] = {}
    for attack in attacks:
        groups.setdefault(tuple(n for n in ("target", "retrained") if n in attack.needs), []).append(attack)
    out: dict[str, list[Point] | str] = {}
    how = {"desc": f"attacking the {role} model", "leave": False, "bar_format": "{desc}{postfix} [{elapsed}]"}
    for needed, some in groups.items():
        with beside(needed, settings) as others, tqdm(**how) as bar:
            out |= attacking.carried_out(
                some, replace(subject, **others), know, bar.set_postfix_str, seeds=settings.seeds
            )
    return out


def with_wrong(material: Material, i: int) -> Row:
    """A measured row with the wrong answers that were written for it, or given."""
    return replace(material.forget[i], perturbed=material.rewritten[i].wrong)
