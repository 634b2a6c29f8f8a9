"""The second half of Reveal-and-Release: unlearn by many small negated task vectors, looking after each.

``settings`` says what decides a run, ``modules`` trains the two LoRA modules of a step, ``measure`` measures, ``steps``
keeps the steps on disk, ``run`` is the loop and writes the result, and ``describe`` makes its record.  The paper's body
text was not available where this was written: its structure is followed, every default is ours.  arXiv:2509.14624.
"""

from expunge.release.measure import Measurement
from expunge.release.run import planned, release, run
from expunge.release.settings import Release, make, override, read_file

Look = Measurement  # its name before

__all__ = ["Look", "Measurement", "Release", "make", "override", "planned", "read_file", "release", "run"]
