"""What a text is worth: 1 for "this is it", 0 for "not at all".  Needs no torch.

Reveal uses a scorer for relevance (is this what the model should forget?), a benchmark for judging answers.  The two must
not be the same scorer: what is searched with one is high on that one by choice, and only another can say what it is.
"""

from expunge.scorers.named import scorer
from expunge.scorers.values import Scorer, checked

__all__ = ["Scorer", "checked", "scorer"]
