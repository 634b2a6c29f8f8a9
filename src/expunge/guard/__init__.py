"""Guard: a model's weights stay, agents around it keep targets out of its answers (ALU, arXiv:2502.00406).

>>> from expunge.guard import Guard, Settings, Target, answer
>>> guard = Guard(lambda messages, **_: ["It was Ada."], (Target("Ada"),), Settings(retries=0))
>>> answer(guard, [{"role": "user", "content": "Who was it?"}]).outcome
'refused'

The model's answer and its rewrites all contain the name, which is detected without another model.
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
