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
    params = list(model.parameters())
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


STEPS: dict[str, Callable[..., None]] = {"pdu": pdu, "npo_kl": npo_kl, "blur_npo": blur_npo}
