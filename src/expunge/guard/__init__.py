"""Guard: a model's weights stay, agents around it keep targets out of its answers (ALU, arXiv:2502.00406).

>>> from expunge.guard import Guard, Settings, Target, answer
>>> guard = Guard(lambda messages, **_: ["It was Ada."], (Target("Ada"),), Settings(retries=0))
>>> answer(guard, [{"role": "user", "content": "Who was it?"}]).outcome
'refused'

The model said the name; that is found without another model, and its rewrites said it too.
"""

from expunge.guard.endpoints import Endpoint, EndpointError
from expunge.guard.pipeline import Guard, answer
from expunge.guard.settings import Settings
from expunge.guard.targets import Target, read_targets
from expunge.guard.trail import Step, Trail

__all__ = [
    "Endpoint",
    "EndpointError",
    "Guard",
    "Settings",
    "Step",
    "Target",
    "Trail",
    "answer",
    "read_targets",
]
