r"""What a loss may look at: one batch as the model sees it, at labelled tokens only.

A causal language model predicts token :math:`t+1` at position :math:`t`, so the logits that matter for a labelled
token stand one position before it.  Shift and mask happen here, once: a pre-hook on the model's output embedding
keeps ``hidden[position before a labelled token]``, so the head computes N×V logits for N labelled tokens and
nothing for prompt and padding.  Everything after is flat, and a position without a label cannot leak into a loss,
because it does not exist.  Losses of activations read those of the real tokens instead, prompt included.

Letters in shapes: B sequences, T positions, N labelled and M real tokens of the batch, V vocabulary, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from expunge.forward import family, kernels, prefix
from expunge.forward.family import unwrap
from expunge.forward.layers import at_places, head_returning, hidden_after, output_embedding, real_places

IGNORE = -100
Positions = Literal["answer", "answer_unshifted", "all"]
Output = Literal["logits", "margin"]


class ForwardPass:
    """One batch under one model.  Lazy: the model runs when a loss first reads a property that needs it.

    ``labels`` (N,) the labelled tokens; ``sequence`` (N,) which of the B examples a token belongs to; ``size`` B.
    ``token_count`` and ``sequence_count`` are what a mean divides by: N and B of this batch, unless the trainer
    gives the average over the micro-batches of an optimizer step, which makes 1×4 exactly equal to 4×1.
    """

    def __init__(
        self,
        labels: Tensor,
        sequence: Tensor,
        size: int,
        run: Callable[[Output], tuple[Output, Tensor]],
        *,
        reference: Callable[[], ForwardPass] | None = None,
        real: Tensor | None = None,
        activations: Callable[[int], Tensor] | None = None,
        of_real: Tensor | None = None,
        token_count: Tensor | float | None = None,
        sequence_count: Tensor | float | None = None,
    ):
        self.labels = labels  # (N,)
        self.sequence = sequence  # (N,)
        self.size = size
        self.token_count = len(labels) if token_count is None else token_count
        self.sequence_count = size if sequence_count is None else sequence_count
        self._run = run
        self._reference = reference
        self._of_real = of_real  # (all real tokens,) which of them M counts; None: all
        self._real = real if real is None or of_real is None else real[of_real]  # (M,)
        self._activations = activations
        self.likeliest: tuple[Tensor, Tensor] | None = None  # what a cached reference knows: see from_token_logp

    @classmethod
    def from_logits(
        cls,
        logits: Tensor,
        labels: Tensor,
        *,
        reference: ForwardPass | None = None,
        positions: Positions = "answer",
    ) -> ForwardPass:
        """The view of padded logits (B, T, V) and labels (B, T); for tests and for scoring what is already computed."""
        kept = places({"labels": labels}, positions)
        flat = logits[kept[0], kept[1]]
        return cls(
            _targets(labels, kept, positions),
            kept[0],
            len(labels),
            lambda _: ("logits", flat),
            reference=None if reference is None else lambda: reference,
        )

    @classmethod
    def from_activations(cls, values: Tensor, layer: int, own: ForwardPass) -> ForwardPass:
        """The same batch as ``own`` in a view that knows only the activations (M, D) after ``layer``: a reference."""

        def at(asked: int) -> Tensor:
            if asked != layer:
                raise RuntimeError(f"this reference holds activations after layer {layer}; the loss asked for {asked}")
            return values

        view = cls(own.labels, own.sequence, own.size, _nothing_else, real=own._real, activations=at)
        view._of_real = own._of_real
        return view

    @classmethod
    def from_token_logp(
        cls,
        token_logp: Tensor,
        labels: Tensor,
        sequence: Tensor,
        size: int,
        *,
        entropy: Tensor | None = None,
        likeliest: tuple[Tensor, Tensor] | None = None,
    ) -> ForwardPass:
        """A view that knows only log-probabilities (N,) of its labelled tokens: a cached reference.

        And entropies (N,) of their predictions, or the ``likeliest`` K tokens of each and their log-probabilities (N, K).
        """
        view = cls(labels, sequence, size, _nothing_else)
        view.likeliest = likeliest
        view.__dict__ |= {"token_logp": token_logp} | ({} if entropy is None else {"entropy": entropy})
        return view

    # -- what the model computed ------------------------------------------------------------------------------------
    @cached_property
    def logits(self) -> Tensor:
        """(N, V) logits that predict the labelled tokens."""
        return self._run("logits")[1]

    @cached_property
    def token_logp(self) -> Tensor:
        """(N,) log-probability of each labelled token: its logit minus the log-sum-exp, in fp32."""
        return kernels.token_logp(self.logits, self.labels)

    def logp_of(self, tokens: Tensor) -> Tensor:
        """(N, K) log-probabilities of ``tokens`` (N, K) in place of the labelled ones, in fp32."""
        own = self.logits.gather(1, self.labels[:, None]).float()
        return self.logits.gather(1, tokens).float() - (own - self.token_logp[:, None])

    @cached_property
    def entropy(self) -> Tensor:
        """(N,) entropy of the prediction of each labelled token, in nats: how unsure the model is of it, in fp32."""
        return kernels.entropy(self.logits)

    @cached_property
    def margin(self) -> Tensor:
        """(N,) largest logit minus the mean logit, in fp32; never an (N, V) tensor where the head is a plain matrix."""
        if "logits" in self.__dict__:
            return kernels.margin_of_logits(self.logits)
        kind, value = self._run("margin")
        if kind == "margin":
            return value
        self.__dict__["logits"] = value
        return kernels.margin_of_logits(value)

    def hidden(self, layer: int) -> Tensor:
        """(M, D) activations after decoder layer ``layer`` (the first is 0) at the M real tokens; no layer above is run.

        Under the positions ``answer_unshifted``, which reproduce published numbers, M are the labelled tokens themselves.
        """
        if self._activations is None:
            raise RuntimeError(
                "the loss reads activations, but this view was not made of a model that is asked for them"
            )
        found = self._activations(layer)
        return found if self._of_real is None else found[self._of_real]

    def only(self, kept: Tensor) -> ForwardPass:
        """The view of the labelled tokens where ``kept`` (N,) is true, as if the others had a loss of 0.

        Means divide by what they did before, and the lengths of the sequences are the whole ones.
        """

        def run(output: Output) -> tuple[Output, Tensor]:
            if output == "logits" or "logits" in self.__dict__:
                return "logits", self.logits[kept]
            kind, value = self._run(output)
            return kind, value[kept]

        view = ForwardPass(
            self.labels[kept],
            self.sequence[kept],
            self.size,
            run,
            reference=None if self._reference is None else lambda: self.reference.only(kept),
            token_count=self.token_count,
            sequence_count=self.sequence_count,
        )
        view.__dict__ |= {"token_logp": self.token_logp[kept], "lengths": self.lengths}
        return view

    # -- sums and means over sequences ------------------------------------------------------------------------------
    @cached_property
    def lengths(self) -> Tensor:
        """(B,) labelled tokens of each sequence."""
        return _sizes(self.sequence, self.size)

    @cached_property
    def sequence_logp(self) -> Tensor:
        """(B,) summed log-probability of each sequence's labelled tokens."""
        return self.sequence_sum(self.token_logp)

    def sequence_sum(self, per_token: Tensor) -> Tensor:
        """(N,) -> (B,): the sum over each sequence's tokens."""
        return per_token.new_zeros(self.size).index_add(0, self.sequence, per_token)

    def token_mean(self, per_token: Tensor) -> Tensor:
        """(N,) -> scalar: every labelled token of the optimizer step weighs the same."""
        return per_token.sum() / self.token_count

    def sequence_mean(self, per_sequence: Tensor) -> Tensor:
        """(B,) -> scalar: every sequence of the optimizer step weighs the same."""
        return per_sequence.sum() / self.sequence_count

    def real_mean(self, per_token: Tensor) -> Tensor:
        """(M,) -> scalar: the mean over each sequence's real tokens, prompt included, then over sequences."""
        assert self._real is not None
        real = _sizes(self._real, self.size)
        sums = per_token.new_zeros(self.size).index_add(0, self._real, per_token)
        return self.sequence_mean(sums / real)

    @cached_property
    def reference(self) -> ForwardPass:
        """The same batch under the frozen reference, without gradient."""
        if self._reference is None:
            raise RuntimeError("the loss reads the reference model, but its objective does not ask for one")
        return self._reference()


def _nothing_else(_: Output) -> tuple[Output, Tensor]:
    raise RuntimeError("this view was made of what a loss said it reads of the reference, and it has no logits")


def select(labels: Tensor, positions: Positions = "answer") -> Tensor:
    """(B, T) labels -> (B, T) mask of the positions whose logits are kept.

    ``answer``: the positions that predict a labelled token.  The other two exist to reproduce published numbers:
    ``answer_unshifted`` takes the positions *of* the labelled tokens, ``all`` every position, padding too.
    """
    if positions == "all":
        return torch.ones_like(labels, dtype=torch.bool)
    labelled = labels != IGNORE
    if positions == "answer_unshifted":
        return labelled
    keep = torch.zeros_like(labelled)
    keep[:, :-1] = labelled[:, 1:]
    return keep


def places(batch: Mapping[str, Any], positions: Positions = "answer") -> Tensor:
    """(2, N) row and position of the logits that are kept: as the collator counted them, else read from the labels."""
    labels = batch["labels"]
    if positions == "answer" and "labelled" in batch:
        found: Tensor = batch["labelled"]
        return found
    if positions == "all":
        at = torch.arange(labels.numel(), device=labels.device)
        return torch.stack([at // labels.shape[1], at % labels.shape[1]])
    return select(labels, positions).nonzero().T


def _targets(labels: Tensor, kept: Tensor, positions: Positions) -> Tensor:
    """(N,) the labels that the kept logits are compared with."""
    return labels[kept[0], kept[1] + (positions == "answer")]


def _sizes(group: Tensor, groups: int) -> Tensor:
    """(N,) numbers below ``groups`` -> (groups,) how often each occurs; ``bincount`` would read their range back."""
    return torch.zeros(groups, dtype=torch.long, device=group.device).index_add(0, group, torch.ones_like(group))


def see(
    model: nn.Module,
    batch: Mapping[str, Any],
    *,
    positions: Positions = "answer",
    reference: Callable[[], ForwardPass] | None = None,
    counts: Mapping[str, Tensor | float] | None = None,
    grad: bool = True,
) -> ForwardPass:
    """The lazy view of ``batch`` (``input_ids``, ``attention_mask``, ``labels``: (B, T)) under ``model``.

    ``model`` may be wrapped (DDP, PEFT, compiled): its own forward is called, so its hooks and its autocast hold.
    ``batch["prefix"]``, if given, is how many leading tokens all rows share: see :mod:`expunge.forward.prefix`.
    """
    labels = batch["labels"]
    kept = places(batch, positions)
    shared = _shared(model, batch) if positions == "answer" else 0
    batch = {**batch, "padding": "read"} if positions == "all" else batch  # its logits are read: its mask stays

    def run(output: Output) -> tuple[Output, Tensor]:
        with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
            return _head_at(model, batch, kept, output, shared)

    def activations(layer: int) -> Tensor:
        with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
            return hidden_after(model, batch, layer)

    real = real_places(batch) if "attention_mask" in batch else None
    return ForwardPass(
        _targets(labels, kept, positions),
        kept[0],
        len(labels),
        run,
        reference=reference,
        real=None if real is None else real[0],
        activations=activations,
        of_real=labels[real[0], real[1]] != IGNORE if positions == "answer_unshifted" and real is not None else None,
        **dict(counts or {}),
    )


@torch.no_grad()
def hidden_at(model: nn.Module, batch: Mapping[str, Any]) -> Tensor | None:
    """(N, D) hidden states that the head turns into the logits of the labelled tokens.

    None where the model works on what its head returns (a soft-cap, a scale): hidden states and head do not give its
    logits then.
    """
    head, shared = output_embedding(model), _shared(model, batch)
    with _at(head, places(batch), batch["labels"].shape, shared), head_returning(head, lambda hidden: hidden) as made:
        value = prefix.logits(model, batch, shared)
    return value if value is made.get("value") else None


def logits_at(model: nn.Module, keep: Tensor, *, cache: Any = None, **inputs: Any) -> tuple[Tensor, Any]:
    """(N, V) logits at positions ``keep`` (B, T) of one plain call of ``model``, and all that the call returned."""
    with _at(output_embedding(model), keep.nonzero().T, keep.shape, 0):
        out = family.run(model, cache=cache, **inputs)
    return out.logits, out


def _shared(model: nn.Module, batch: Mapping[str, Any]) -> int:
    """How many leading tokens are run once for all rows; none under DDP, which counts the calls of its model, or
    sharded: all processes must run the same modules, and their batches differ.
    """
    return prefix.usable(model, batch) if unwrap(model) is model and not family.is_sharded(model) else 0


def _head_at(
    model: nn.Module, batch: Mapping[str, Any], kept: Tensor, output: Output, shared: int
) -> tuple[Output, Tensor]:
    """Run ``model`` with its head at the kept positions; says which output came: a margin needs a plain head."""
    head, shape = output_embedding(model), batch["labels"].shape
    made = (
        head_returning(head, partial(_margin, head)) if output == "margin" and _is_plain(model, head, batch) else None
    )
    with _at(head, kept, shape, shared), made or nullcontext():
        value = prefix.logits(model, batch, shared)
    return ("margin", value.squeeze(-1)) if made else ("logits", value)


def _is_plain(model: nn.Module, head: nn.Module, batch: Mapping[str, Any]) -> bool:
    """Whether ``model`` returns what its head does and its head is a matrix: no soft-cap, no scale.  Asked once, of its
    first row, under no wrapper (DDP copies what it returns) and without dropout: a resumed run draws the same masks.
    """
    if not hasattr(head, "_expunge_plain"):
        head._expunge_plain = family.kind(head) is nn.Linear and _passed_on(unwrap(model), head, batch)  # type: ignore[assignment]
    return bool(head._expunge_plain)


@torch.no_grad()
def _passed_on(model: nn.Module, head: nn.Module, batch: Mapping[str, Any]) -> bool:
    row = {name: batch[name][:1] for name in ("input_ids", "attention_mask")} | {"padding": batch.get("padding")}
    training = model.training
    model.eval()
    try:
        with head_returning(head, partial(_margin, head)) as made:
            value = prefix.logits(model, row, 0)
    finally:
        model.train(training)
    return value is made.get("value")


def _margin(head: Any, hidden: Tensor) -> Tensor:
    """(N, D) -> (N, 1): a head that returns the margin of its logits without making them."""
    return kernels.margin_of_linear(hidden, head.weight, head.bias).unsqueeze(-1)


@contextmanager
def _at(head: nn.Module, kept: Tensor, shape: Sequence[int], shared: int) -> Iterator[None]:
    """While open, ``head`` receives ``hidden[rows, positions]`` (N, D) instead of ``hidden`` (B, T, D), ``shape`` (B, T).

    Where the first ``shared`` columns are run apart, it receives nothing of them, then what is kept of the others.
    """
    rest = (shape[0], shape[1] - shared)

    def choose(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = args[0]
        if shared and hidden.shape[:2] == (1, shared):
            return (hidden[0, :0], *args[1:])
        if hidden.shape[:2] != rest:
            raise RuntimeError(f"the head sees {tuple(hidden.shape[:2])} positions, the batch has {rest}")
        return (at_places(hidden, kept, shared), *args[1:])

    handle = head.register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()
