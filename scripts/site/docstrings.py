"""Docstrings of the Python reference as Markdown: an extension of griffe, which reads them for mkdocstrings."""

from __future__ import annotations

import inspect
from typing import Any

import griffe

from expunge.cli.formulas import for_markdown


class Markdown(griffe.Extension):
    """Formulas between dollars, names in backticks, as on the pages that ``scripts/docs.py`` makes."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = for_markdown(inspect.cleandoc(obj.docstring.value))
