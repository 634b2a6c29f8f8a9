"""The norm of a text's loss gradient, for membership inference; no gradient of the whole model is ever held."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn import functional

from expunge.forward import logits_at


def grad_norm(model: nn.Module, prompt: Sequence[int], text: Sequence[int]) -> float:
    r"""Mean over parameter tensors of the gradient norm of the mean NLL of ``text`` after ``prompt`` (token ids).

    .. math:: \tfrac{1}{|P|} \sum_{p \in P} \Bigl\lVert \nabla_p \tfrac1T \sum_t -\log\pi(y_t \mid x, y_{<t}) \Bigr\rVert_2

    Each tensor's gradient is measured as it is made and let go, so the memory is that of one forward pass and the largest
    tensor.  Of all parameters, whether or not they train; a text of no token has no norm, 0.  See
    :func:`expunge.evaluation.privacy.grad_norm_score`.
    """
    if not text:
        return 0.0
    weights = [p for p in model.parameters() if p.is_floating_point()]
    held = [(p, p.requires_grad, p.grad) for p in weights]
    norms: list[Tensor] = []

    def measure(p: Tensor) -> None:
        assert p.grad is not None
        norms.append(p.grad.float().norm())
        p.grad = None

    ids = torch.tensor([[*prompt, *text]], device=weights[0].device)
    keep = torch.zeros_like(ids, dtype=torch.bool)
    keep[0, len(prompt) - 1 : -1] = True
    with ExitStack() as stack, torch.enable_grad():
        for p in weights:
            p.grad = None
            p.requires_grad_(True)
            stack.callback(p.register_post_accumulate_grad_hook(measure).remove)
        logits, _ = logits_at(model, keep, input_ids=ids, use_cache=False)
        functional.cross_entropy(logits.float(), ids[0, len(prompt) :]).backward()
    for p, trains, gradient in held:
        p.requires_grad_(trains)
        p.grad = gradient
    return float(torch.stack(norms).sum() / len(weights))
