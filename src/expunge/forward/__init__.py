"""What a loss may see of a forward pass: ``view`` (ForwardPass), and beneath it ``kernels``, ``layers`` and ``prefix``."""

from expunge.forward.view import IGNORE, ForwardPass, Positions, see

__all__ = ["IGNORE", "ForwardPass", "Positions", "see"]
