"""Scorers: functions from texts to values in [0, 1].  Needs no torch.

Reveal uses a scorer for relevance (is this what the model should forget?), a benchmark for judging answers.  The two must
not be the same scorer: texts that were searched with one score high on that one by selection.
"""

from expunge.scorers.named import scorer
from expunge.scorers.values import Scorer, checked

__all__ = ["Scorer", "checked", "scorer"]
