"""The field as a table: ``published`` holds the papers' rows, ``mixtures`` puts any combiner over any forget loss.

Importing this package fills the registry (:data:`expunge.method.METHODS`).
"""

from expunge.methods.mixtures import *  # noqa: F403
from expunge.methods.published import *  # noqa: F403
