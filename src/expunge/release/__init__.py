"""The second half of Reveal-and-Release: unlearn by many small negated task vectors, looking after each.

``settings`` says what decides a run, ``modules`` trains the two LoRA modules of a step, ``measure`` measures, ``steps``
keeps the steps on disk, ``run`` goes round and writes the result, and ``describe`` makes the record of it.  The paper's body
text was not available where this was written: its structure is followed, every default is ours.  arXiv:2509.14624.
"""

from expunge.release.measure import Look
from expunge.release.run import planned, release, run
from expunge.release.settings import Release, make, override, read_file

__all__ = ["Look", "Release", "make", "override", "planned", "read_file", "release", "run"]
