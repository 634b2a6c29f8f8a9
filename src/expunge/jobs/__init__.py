"""Many tasks at once: in processes of this machine, or on a Ray cluster.  A task is a function and its arguments.

``spread`` runs them; ``local`` is a pool of processes of ``concurrent.futures``, ``cluster`` is Ray, ``tasks`` what both run.
"""

from expunge.jobs.settings import Jobs, check, spread
from expunge.jobs.tasks import Done, Task

__all__ = ["Done", "Jobs", "Task", "check", "spread"]
