"""All attacks by name, and what keeps one from being run."""

from __future__ import annotations

from expunge.attacks import relearning, weights
from expunge.attacks.attack import Attack, Subject

ATTACKS: dict[str, Attack] = {a.name: a for module in (relearning, weights) for a in module.ATTACKS}
"""In the order in which a report shows them.

``run`` gives the points after the attack.  Where the figure is the attack's own and not ``measure``'s (families ``asking``,
``sampling`` and ``inside``), the first point has the strength 0: the same figure without the attack, which recovery is
counted from.  ``run`` raises InputError where the subject does not allow the attack; its sentence is the reason.
"""


def missing(attack: Attack, subject: Subject) -> list[str]:
    """The fields that ``attack`` needs and ``subject`` has not, in the attack's order."""
    return [name for name in attack.needs if getattr(subject, name) is None or not _filled(getattr(subject, name))]


def _filled(value: object) -> bool:
    return len(value) > 0 if isinstance(value, list | tuple) else True
