"""All attacks by name, and what keeps one from being run."""

from __future__ import annotations

from collections.abc import Sequence

from expunge.attacks import asking, gguf_file, lens, patching, probe, relearning, sampling, soft_prompt, weights
from expunge.attacks.attack import Attack, Subject

MODULES = (weights, gguf_file, asking, sampling, lens, probe, patching, soft_prompt, relearning)
ATTACKS: dict[str, Attack] = {a.name: a for module in MODULES for a in module.ATTACKS}
"""In the order of their cost, cheapest first within a family; those that train come last.

``run`` gives the points after the attack.  Where the figure is the attack's own and not ``measure``'s (families
``asking``, ``sampling`` and ``inside``), the first point has the strength 0: the same figure without the attack, which
recovery is counted from.  ``run`` raises InputError where the subject does not allow the attack; its sentence is the
reason.
"""


def missing(attack: Attack, subject: Subject) -> list[str]:
    """The fields that ``attack`` needs and ``subject`` has not, in the attack's order."""
    return [name for name in attack.needs if getattr(subject, name) is None or not _filled(getattr(subject, name))]


def _filled(value: object) -> bool:
    return len(value) > 0 if isinstance(value, Sequence) else True
