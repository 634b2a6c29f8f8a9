"""The field as a table: ``published`` holds papers' rows, ``misdirection`` those on activations, ``mixtures`` puts
any combiner over any forget loss.

Importing this package fills the registry (:data:`expunge.method.METHODS`).
"""

from expunge.methods.misdirection import *  # noqa: F403
from expunge.methods.mixtures import *  # noqa: F403
from expunge.methods.published import *  # noqa: F403
