"""An audit: models loaded one after another, each measured, attacked and let go; then figures, verdict, record and pages."""

from __future__ import annotations

import gc
import importlib.util
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from expunge import models, outputs
from expunge.attacks.attack import Attack, Point, Subject
from expunge.audit import attacking, compare, describe, material, measure, policy, rewrite, verdict
from expunge.audit.material import Material
from expunge.audit.settings import Audit
from expunge.data.example import Row
from expunge.errors import InputError
from expunge.evaluation import table
from expunge.evaluation.table import Collected
from expunge.models.check import check_device
from expunge.models.locate import adapter_base, resolve


@dataclass(frozen=True)
class Result:
    """What an audit wrote: its record, and the folder."""

    record: dict[str, Any]
    folder: Path

    @property
    def word(self) -> str:
        """The verdict."""
        return str(self.record["verdict"]["word"])


@dataclass(frozen=True)
class Control:
    """A model that never saw the forget rows: a ``name``, and of which ``kind``, ``retrained`` or ``base``."""

    name: str
    kind: str


def control_of(settings: Audit) -> Control | None:
    """The control of an audit: a retrained model, the base that is given, or of an adapter its own; None without one."""
    if settings.retrained:
        return Control(settings.retrained, "retrained")
    if settings.base:
        return Control(settings.base, "base")
    source = resolve(settings.target or "")
    if source.kind == "adapter":
        base, _ = adapter_base(Path(source.location))
        return Control(base.location, "base")
    return None


@dataclass(frozen=True)
class Ready:
    """What was checked before a model is loaded."""

    settings: Audit
    policy: policy.Policy
    material: Material
    attacks: list[Attack]
    control: Control | None


def ready(settings: Audit, known_attacks: Mapping[str, Attack] | None = None) -> Ready:
    """All that needs no model, checked; raises InputError for what a person has to mend, and writes nothing."""
    if importlib.util.find_spec("rouge_score") is None:
        raise InputError("an audit needs the package rouge-score: pip install 'expunge[audit]'")
    thresholds = policy.read(settings.policy)
    attacks = attacking.chosen(settings, known_attacks)
    outputs.check(settings.out, describe.LAYOUT, inputs=inputs_of(settings), overwrite=settings.overwrite)
    check_device(settings.device)
    rows = material.read(settings, apart=attacking.needs(attacks, "known"))
    material.check_models(settings)
    return Ready(settings, thresholds, rows, attacks, control_of(settings))


def inputs_of(settings: Audit) -> dict[str, Any]:
    """What an audit reads, which its output must lie apart from."""
    return {
        "model": settings.model,
        "target": settings.target,
        "forget set": settings.forget,
        "retain set": settings.retain,
        "holdout set": settings.holdout,
        "retrained model": settings.retrained,
        "base": settings.base,
        "policy": settings.policy,
    }


def planned(settings: Audit) -> dict[str, Any]:
    """What :func:`run` would do."""
    checked = ready(settings)
    rows = checked.material
    counts = {
        "forget": len(rows.forget),
        "known": len(rows.known),
        "retain": len(rows.retain),
        "holdout": len(rows.holdout),
    }
    return {
        "model": settings.model,
        "target": settings.target,
        "control": f"{checked.control.name} ({checked.control.kind})" if checked.control else None,
        "data": counts,
        "attacks": [a.name for a in checked.attacks],
        "out": settings.out,
    }


def run(settings: Audit, *, command: str | None = None, known_attacks: Mapping[str, Attack] | None = None) -> Result:
    """Carry out an audit; ``known_attacks``: in place of those there are.

    Raises InputError for what a person has to mend, before a model is loaded wherever that is possible.
    """
    began = time.monotonic()
    checked = ready(settings, known_attacks)
    with outputs.claimed(settings.out, describe.LAYOUT, overwrite=settings.overwrite) as folder:
        outputs.retire(folder, describe.LAYOUT)
        return _carried_out(checked, folder, command, began)


def _carried_out(checked: Ready, folder: Path, command: str | None, began: float) -> Result:
    settings, control = checked.settings, checked.control
    rows, about_rows, target = _target(checked, folder)
    seen = {"target": target}
    for role, name in {"unlearned": settings.model, **({"control": control.name} if control else {})}.items():
        seen[role] = _model(role, name, checked, rows)
    tables = {role: one.table for role, one in seen.items()}
    found = compare.compare(
        tables,
        _fluency(tables, checked, rows),
        rows,
        checked.policy,
        control=control.kind if control else None,
        seed=settings.seed,
    )
    knows = {
        role: {
            "probability": found.rows[role]["probability"],
            "asked": attacking.asked_scores(rows.forget, measure.said_of(t, "forget")),
        }
        for role, t in tables.items()
    }
    attacked = [_by_role(a, {role: one.points for role, one in seen.items()}) for a in checked.attacks]
    attacks, findings = attacking.summarised(attacked, knows, checked.policy, settings.seed)
    found.findings += findings
    if not findings:
        found.not_concluded.append("whether it comes back under attack: no attack was carried out (--attacks)")
    decided = verdict.decide(found.findings, checked.policy, basis=found.basis)
    for role, one_table in tables.items():
        table.write(one_table, folder / describe.EVIDENCE / role)
    log = describe.record_of(
        settings,
        rows,
        {role: one.facts for role, one in seen.items()},
        control.kind if control else None,
        found,
        attacks,
        decided,
        checked.policy,
        about_rows,
        command=command,
        seconds=time.monotonic() - began,
    )
    log["worst"] = describe.worst(rows, tables, found, settings)
    return Result(describe.write(log, folder), folder)


@dataclass(frozen=True)
class Seen:
    """What was seen of one model before it was let go."""

    table: Collected
    facts: dict[str, Any]
    points: Mapping[str, list[Point] | str] = field(default_factory=dict)


def _target(checked: Ready, folder: Path) -> tuple[Material, dict[str, Any], Seen]:
    """The rows with what the target writes of them, what is said of that, and what was seen of the target."""
    settings = checked.settings
    own = [a for a in checked.attacks if attacking.scale_of(a) == "own"]
    with loaded(settings.target or "", settings) as target:
        rows, about = rewrite.complete(checked.material, target, settings, folder)
        return rows, about, _seen(target, "target", own, checked, rows)


def _model(role: str, name: str, checked: Ready, rows: Material) -> Seen:
    with loaded(name, checked.settings) as one:
        return _seen(one, role, checked.attacks, checked, rows)


def _seen(one: models.Loaded, role: str, attacks: Sequence[Attack], checked: Ready, rows: Material) -> Seen:
    found = measure.measured(one.model, one.tokenizer, rows, checked.settings, f"the {role} model")
    return Seen(found, describe.facts(one), _attacked(one, role, attacks, checked.settings, rows))


def _fluency(tables: Mapping[str, Collected], checked: Ready, rows: Material) -> dict[str, dict[str, measure.Rows]]:
    with loaded(checked.settings.target or "", checked.settings) as target:
        return measure.judged(tables, target.model, target.tokenizer, rows, checked.settings)


@contextmanager
def loaded(name: str, settings: Audit) -> Iterator[models.Loaded]:
    """The model ``name``, let go at the end of the block."""
    import torch

    one = models.load(
        name,
        dtype=getattr(torch, settings.dtype),
        device=settings.device or _usual(),
        trust_remote_code=settings.trust_remote_code,
    )
    material.use(one.tokenizer, settings)
    try:
        yield one
    finally:
        del one
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _usual() -> Any:
    from expunge.evaluation.collect.one_pass import processes

    return processes().device


def _attacked(
    one: models.Loaded, role: str, attacks: Sequence[Attack], settings: Audit, rows: Material
) -> dict[str, list[Point] | str]:
    """The attacks on one model; target and retrained model are in memory only for attacks that need them."""
    from tqdm.auto import tqdm

    def know(net: Any) -> measure.Array:
        return measure.probability(net, one.tokenizer, rows.forget, rows, settings)

    out: dict[str, list[Point] | str] = {}
    groups: dict[tuple[str, ...], list[Attack]] = {}
    for attack in attacks:
        groups.setdefault(tuple(n for n in ("target", "retrained") if n in attack.needs), []).append(attack)
    how = {"desc": f"attacking the {role} model", "leave": False, "bar_format": "{desc}: {postfix} [{elapsed}]"}
    for needed, some in groups.items():
        with _beside(needed, settings) as beside, tqdm(**how) as bar:
            subject = Subject(
                one.model,
                one.tokenizer,
                [with_wrong(rows, i) for i in range(len(rows.forget))],
                known=rows.known,
                retain=rows.others,
                unrelated=measure.general_rows(),
                seed=settings.seed,
                **beside,
            )
            out |= attacking.carried_out(some, subject, know, lambda name: bar.set_postfix_str(name))
    return out


@contextmanager
def _beside(needed: Sequence[str], settings: Audit) -> Iterator[dict[str, Any]]:
    places = {"target": settings.target, "retrained": settings.retrained}
    with ExitStack() as stack:
        yield {n: stack.enter_context(loaded(str(places[n]), settings)).model for n in needed if places[n]}


def with_wrong(rows: Material, i: int) -> Row:
    """A measured row with the wrong answers that were made for it."""
    return replace(rows.forget[i], perturbed=rows.rewritten[i].wrong)


def _by_role(attack: Attack, points: Mapping[str, Mapping[str, list[Point] | str]]) -> attacking.Attacked:
    found = {role: of[attack.name] for role, of in points.items() if attack.name in of}
    good = {role: p for role, p in found.items() if not isinstance(p, str)}
    problem = next((p for role, p in found.items() if isinstance(p, str) and role == "unlearned"), None)
    return attacking.Attacked(attack, good, problem)
