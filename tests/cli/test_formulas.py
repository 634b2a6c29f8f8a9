"""Formulas of docstrings as a terminal and as Markdown show them."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re

import pytest

import expunge
from expunge.cli.formulas import BLOCK, INLINE, SIZES, SYMBOLS, WORDS, for_markdown, for_terminal, unicode
from expunge.cli.show import describe, markdown
from expunge.method import entries

ROOMS = ("losses", "combine", "sophia", "stats", "methods.", "evaluation.", "scorers.", "models.lora", "release.")


@pytest.mark.parametrize(
    ("latex", "text"),
    [
        (r"\tfrac12", "½"),
        (r"\frac{a + b}{2}", "(a + b)/2"),
        (r"\frac{1}{\sum_i |y_i|}\sum_i x", "1/(Σᵢ |yᵢ|) Σᵢ x"),
        (r"\log\tfrac{a}{b}", "log (a/b)"),
        (r"\beta\log\pi_\theta(y \mid x)", "β log π_θ(y | x)"),
        (r"\arg\max \pi", "arg max π"),
        (r"p_{w_j}, p_{i,t}, \lambda_{\max}, \pi_{\mathrm{ref}}, e^{1/|y|}", "p_wⱼ, p_(i,t), λ_max, π_ref, e^(1/|y|)"),
        (r"k^*, x'_1, \hat h, \bar b, J^\top", "k*, x′₁, ĥ, b̄, Jᵀ"),
        (r"\bigl\lVert \nabla_{p} L \bigr\rVert_2 \le \infty", "‖∇ₚ L‖₂ ≤ ∞"),
        (r"\min\{k : \text{all from } k\}", "min{k : all from k}"),
        (r"\text{different n-grams} \cdot 2", "different n-grams · 2"),
        ("a \n   b", "a b"),
        (r"\hat h \odot \tilde g \approx v \pm \sqrt{x + 1}", "ĥ ⊙ g̃ ≈ v ± √(x + 1)"),
    ],
)
def test_latex_as_text(latex, text):
    assert unicode(latex) == text


def test_every_docstring_is_read():
    """No backslash, brace of a group or lost operator is left of any formula of the library."""
    found = []
    for module in pkgutil.walk_packages(expunge.__path__, "expunge."):
        if not module.name.removeprefix("expunge.").startswith(ROOMS):
            continue
        for part in vars(importlib.import_module(module.name)).values():
            if (inspect.isfunction(part) or inspect.isclass(part)) and part.__module__ == module.name and part.__doc__:
                found += formulas(inspect.cleandoc(part.__doc__))
    assert len(found) > 60
    for latex in found:
        text = unicode(latex)
        assert not re.search(r"\\|\0|[a-z]{3,}frac|mathrm|\bleft|\bquad", text), (latex, text)
        assert balanced(text), (latex, text)
        for name in set(re.findall(r"\\([A-Za-z]+)", SIZES.sub("", latex))) - {*SYMBOLS, *WORDS, "mathbb"}:
            assert not unicode(rf"\{name}{{x}}{{y}}").startswith(name), latex  # printed as a word: sqrt x + y
        assert balanced(latex.replace("\\{", "").replace("\\}", "")), latex


def formulas(text):
    return [m[1] for m in INLINE.finditer(text)] + [f"{m['first']} {m['rest']}" for m in BLOCK.finditer(text)]


def balanced(text):
    text = text.replace("[0, 1)", "")  # a half-open interval
    return text.count("{") == text.count("}") and text.count("(") == text.count(")")


DOC = """Sentence with :math:`\\tfrac12 x_i` and :func:`~expunge.losses.npo`.

.. math:: a = \\frac{b}{c},
    \\qquad d * e

After it, ``code``, see :mod:`expunge.stats`.

>>> 1 + 1
2
"""


def test_a_docstring_for_a_terminal():
    assert for_terminal(DOC) == (
        "Sentence with ½ xᵢ and npo.\n\n    a = b/c, d * e\n\nAfter it, ``code``, see expunge.stats.\n\n>>> 1 + 1\n2\n"
    )


def test_a_docstring_as_markdown():
    assert for_markdown(DOC) == (
        "Sentence with $\\tfrac12 x_i$ and `npo`.\n\n$$\na = \\frac{b}{c}, \\qquad d * e\n$$\n\n"
        "After it, `code`, see `expunge.stats`.\n\n```python\n>>> 1 + 1\n2\n```\n"
    )


def test_every_method_is_shown_without_markup():
    for name in entries():
        if name == "torchjd":  # it may not be installed
            continue
        assert not re.search(r"\\|:math:|:func:|\.\. math", describe(name)), name
        assert "$$" in markdown(name) or ":math:" not in markdown(name)
        assert ":math:" not in markdown(name) and markdown(name).count("$$") % 2 == 0
