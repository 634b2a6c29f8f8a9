"""Make a language model forget, and prove that it did.

>>> from expunge import methods, unlearn  # doctest: +SKIP
>>> method = methods.blur_npo(beta=0.1)  # doctest: +SKIP
>>> result = unlearn("model", forget="forget.jsonl", retain="retain.jsonl", method=method)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any

__version__ = "0.2.0"
__all__ = ["InputError", "Result", "RunFailed", "methods", "unlearn"]


def __getattr__(name: str) -> Any:
    """Import torch and transformers only when something that needs them is asked for."""
    import importlib

    homes = {"unlearn": "unlearning.run", "Result": "unlearning.result", "InputError": "errors", "RunFailed": "errors"}
    if name == "methods":
        return importlib.import_module("expunge.methods")
    if name in homes:
        return getattr(importlib.import_module(f"expunge.{homes[name]}"), name)
    raise AttributeError(f"module 'expunge' has no attribute {name!r}")
