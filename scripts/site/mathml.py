"""Formulas as MathML in the page: browsers draw it by themselves, without a script, a font or a network.

An extension of Python-Markdown that takes what ``pymdownx.arithmatex`` (``generic``) left between ``\\(…\\)`` and
``\\[…\\]``.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.postprocessors import Postprocessor

INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)
SIZES = re.compile(r"\\[bB]ig+([lrm]?)(?![A-Za-z])")
UNREAD = re.compile(r"\\(arg)(?![A-Za-z])")  # by latex2mathml
PAIR = {"l": r"\left", "r": r"\right"}  # which take in what stands between them, and an exponent after them
WORDS = re.compile(
    r"(<mi[^>]*>(?:log|exp|min|max|ln)</mi>)(?=<m[a-z])"
)  # Chromium sets no space after a function's name


def mathml(latex: str, display: str) -> str:
    """One formula; ``display`` is inline or block."""
    text = UNREAD.sub(r"\\operatorname{\1}", html.unescape(latex).strip())
    sides = [m[1] for m in SIZES.finditer(text) if m[1] in PAIR]
    paired = sides == ["l", "r"] * (len(sides) // 2)
    text = SIZES.sub(lambda m: PAIR.get(m[1], "") if paired else "", text)
    made = convert(text, display=display)  # type: ignore[arg-type]
    made = WORDS.sub(r'\1<mspace width="0.17em"/>', made)
    return made if display == "inline" else f'<div class="formula">{made}</div>'


class Formulas(Postprocessor):
    """Replaces every formula of a page."""

    def run(self, text: str) -> str:
        text = INLINE.sub(lambda m: mathml(m[1], "inline"), text)
        return BLOCK.sub(lambda m: mathml(m[1], "block"), text)


class FormulasExtension(Extension):
    def extendMarkdown(self, md: Markdown) -> None:
        md.postprocessors.register(Formulas(md), "mathml", 1)


def makeExtension(**options: Any) -> FormulasExtension:
    return FormulasExtension(**options)
