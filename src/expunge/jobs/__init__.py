"""Many tasks at once: in processes of this machine, or on a Ray cluster.  A task is a function and its arguments.

``spread`` runs them; ``local`` does so by process pools of ``concurrent.futures``, ``cluster`` by Ray; ``tasks``: what
both run.
"""

from expunge.jobs.settings import Address, Count, Jobs, check, is_spread, limited, spread
from expunge.jobs.tasks import Done, Task

__all__ = ["Address", "Count", "Done", "Jobs", "Task", "check", "is_spread", "limited", "spread"]
