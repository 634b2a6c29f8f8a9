r"""A learning rate that suits the model, what trains of it and the forget rows, for methods that end at a level.

Adam's first steps move every weight by about the learning rate η, against the sign of its gradient.  If all gradients
agreed, a step would move a quantity s by :math:`\eta\,\|\nabla s\|_1`.  Here s is the mean logit (log p - log(1 - p)) of
the forget tokens that are likelier than their level, and D how far it is above that of the level:

.. math:: \eta = \frac{D}{N\,\|\nabla s\|_1}

is the rate at which N such steps would go the whole way.  Logits, since they go on changing where a probability is next to
1 and its own gradient next to 0.  N is measured, see ``docs/LOG.md``: one number for full weights and LoRA factors.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from expunge.data.example import evenly
from expunge.forward.family import local
from expunge.level_losses import logit
from expunge.method import Method
from expunge.training.gradients import trained

STEPS = 15  # N
ROWS = 16  # of the forget set, at most


def is_found(method: Method, args: Any, given: Collection[str]) -> bool:
    """Whether a run of ``method`` with the training arguments ``args`` finds its rate: nobody has ``given`` one (they are
    names), and Adam takes the steps.
    """
    adam = method.optimizer is None and args.optim.startswith("adamw")
    return method.reads_level and adam and "learning_rate" not in given


def suited(trainer: Any) -> float | None:
    """The learning rate η for ``trainer``, whose reference holds a level; one pass over a few rows, no weight moves.

    None where no token is above its level, or where the gradients are not at hand (DeepSpeed's).
    """
    if trainer.is_deepspeed_enabled:
        return None
    objective = next(o for o in trainer.method.objectives.values() if o.reference == "level")
    stream = objective.on[0]
    rows = evenly(sorted(trainer.reference.level.rows[stream]), ROWS)
    params = trained(trainer.model.eval())
    distance, tokens = 0.0, 0
    for batch in trainer._in_batches(trainer.train_dataset.streams[stream], rows):
        with trainer.compute_loss_context_manager():
            x = trainer._view(trainer.model, stream, batch, objective, {})
        above = x.token_logp > x.reference.token_logp
        if bool(above.any()):
            own = logit(x.token_logp[above]).sum()
            own.backward()
            distance += float(own.detach() - logit(x.reference.token_logp[above]).sum())
            tokens += int(above.sum())
    grads = [local(p.grad).abs().sum(dtype=torch.float64) for p in params if p.grad is not None]
    trainer.model.zero_grad(set_to_none=True)
    if not grads:
        return None
    total = torch.stack([g.to(trainer.args.device) for g in grads]).sum()
    slope = float(trainer.accelerator.reduce(total, "sum") if trainer.shards else total) / tokens
    return distance / tokens / (STEPS * slope) if slope > 0 else None
