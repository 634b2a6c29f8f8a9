"""A step as the published trainers take it, kept as the baseline that speed and memory are ratios of.

Full logits at every position; labels passed to the model, so that it computes a loss nobody reads; a deep copy of the
model as reference, run forward at every step; both graphs alive at once; for BLUR two sets of cloned gradients.
Batches are whatever rows come, padded to the longest.  The gradients are those of the library (tested).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Batch = Mapping[str, Tensor]


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]).logits


def _token_logp(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T-1) log-probabilities and the mask of labelled tokens."""
    target = labels[:, 1:]
    logp = logits[:, :-1].float().log_softmax(-1).gather(-1, target.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    mask = (target != -100).float()
    return logp * mask, mask


def nll(model: nn.Module, batch: Batch) -> Tensor:
    """Token-mean negative log-likelihood."""
    logp, mask = _token_logp(_logits(model, batch), batch["labels"])
    return -logp.sum() / mask.sum()


def npo(model: nn.Module, reference: nn.Module, batch: Batch, beta: float) -> Tensor:
    """NPO per sequence, the reference run forward."""
    with torch.no_grad():
        ref = _token_logp(_logits(reference, batch), batch["labels"])[0].sum(-1)
    own = _token_logp(_logits(model, batch), batch["labels"])[0].sum(-1)
    return (-2 / beta * F.logsigmoid(-beta * (own - ref))).mean()


def kl(model: nn.Module, reference: nn.Module, batch: Batch) -> Tensor:
    """KL(reference ‖ model) on labelled tokens, from two full log-softmaxes; the retain loss comes with it, unused."""
    with torch.no_grad():
        ref = _logits(reference, batch)[:, :-1].float().log_softmax(-1)
    own = _logits(model, batch)[:, :-1].float().log_softmax(-1)
    mask = (batch["labels"][:, 1:] != -100).float()
    divergence = F.kl_div(own, ref, log_target=True, reduction="none").sum(-1)
    return (divergence * mask).sum() / mask.sum()


def flattened_margin(model: nn.Module, batch: Batch) -> Tensor:
    """Squared logit margin, mean per sequence, then over sequences."""
    logits = _logits(model, batch)[:, :-1].float()
    mask = (batch["labels"][:, 1:] != -100).float()
    squared = (logits.max(-1).values - logits.mean(-1)) ** 2 * mask
    return (squared.sum(-1) / mask.sum(-1)).mean()


def activations(model: nn.Module, batch: Batch, layer: int, *, grad: bool = True) -> Tensor:
    """(B, T, D) after decoder layer ``layer``, kept by a hook while the whole model runs, head and unread loss included."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: object, out: Tensor | tuple[Tensor, ...]) -> None:
        kept.append(out[0] if isinstance(out, tuple) else out)

    handle = model.get_decoder().layers[layer].register_forward_hook(keep)  # type: ignore[operator, union-attr]
    try:
        with torch.set_grad_enabled(grad):
            _logits(model, batch)
    finally:
        handle.remove()
    return kept[0]


def distance(found: Tensor, wanted: Tensor, batch: Batch) -> Tensor:
    """Mean square over the width and over each row's real tokens, then over rows."""
    mask = batch["attention_mask"].float()
    squared = (found.float() - wanted.float()).square().mean(-1) * mask
    return (squared.sum(-1) / mask.sum(-1)).mean()


def npo_nll(model: nn.Module, reference: nn.Module, forget: Batch, retain: Batch, beta: float = 0.1) -> None:
    """Gradients of NPO + NLL, both graphs in one backward."""
    (npo(model, reference, forget, beta) + nll(model, retain)).backward()


def rmu(
    model: nn.Module,
    reference: nn.Module,
    forget: Batch,
    retain: Batch,
    layer: int = 7,
    steering_coefficient: float = 6.5,
    retain_weight: float = 1200.0,
    seed: int = 0,
) -> None:
    """Gradients of RMU: all layers of both models are run for the activations after one."""
    steered, kept = activations(model, forget, layer), activations(model, retain, layer)
    direction = torch.rand(steered.shape[-1], generator=torch.Generator().manual_seed(seed)).to(steered.device)
    target = steering_coefficient * direction / direction.norm()
    before = activations(reference, retain, layer, grad=False)
    (distance(steered, target, forget) + retain_weight * distance(kept, before, retain)).backward()


def pdu(model: nn.Module, forget: Batch, retain: Batch, multiplier: float = 100.0) -> None:
    """Gradients of margin + λ · NLL, both graphs in one backward."""
    (flattened_margin(model, forget) + multiplier * nll(model, retain)).backward()


def npo_kl(model: nn.Module, reference: nn.Module, forget: Batch, retain: Batch, beta: float = 0.1) -> None:
    """Gradients of NPO + KL, both graphs in one backward; the retain batch is run once more for a loss unused."""
    forgetting = npo(model, reference, forget, beta)
    _logits(model, retain)  # the published retain loss is computed even where KL replaces it
    (forgetting + kl(model, reference, retain)).backward()


def blur_npo(
    model: nn.Module,
    reference: nn.Module,
    forget: Batch,
    retain: Batch,
    beta: float = 0.1,
    gamma: float = 1.0,
) -> None:
    """BLUR's direction from two sets of cloned gradients; both graphs alive, the first kept through its backward."""
    forgetting, keeping = npo(model, reference, forget, beta), nll(model, retain)
    params = [p for p in model.parameters() if p.requires_grad]
    sets = []
    for loss in (forgetting, keeping):
        model.zero_grad()
        loss.backward(retain_graph=True)
        sets.append([p.grad.clone() for p in params])  # type: ignore[union-attr]
    ff = sum((f * f).sum().item() for f in sets[0])
    fr = sum((f * r).sum().item() for f, r in zip(*sets, strict=True))
    xi = gamma - fr / ff
    for p, f, r in zip(params, *sets, strict=True):
        p.grad = r + xi * f


STEPS: dict[str, Callable[..., None]] = {
    "pdu": pdu, "npo": npo_nll, "npo_kl": npo_kl, "blur_npo": blur_npo, "rmu": rmu,
}  # fmt: skip
