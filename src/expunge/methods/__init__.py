"""The field as a table: ``published`` holds papers' rows, ``misdirection`` those on activations, ``mixtures`` puts
any combiner over any forget loss, ``levels`` ends where a model that never saw the rows would be.

Importing this package fills the registry (:data:`expunge.method.METHODS`).
"""

from expunge.methods.levels import *  # noqa: F403
from expunge.methods.misdirection import *  # noqa: F403
from expunge.methods.mixtures import *  # noqa: F403
from expunge.methods.published import *  # noqa: F403
