r"""Formulas of docstrings (LaTeX in RST's ``math``) as Unicode for a terminal, or as Markdown that MathJax and KaTeX read.

Only the LaTeX that the docstrings use: a test reads all of them.
"""

from __future__ import annotations

import re
import unicodedata

TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[{}_^]|\s+|.")
INLINE = re.compile(r":math:`([^`]*)`")
BLOCK = re.compile(r"^(?P<indent> *)\.\. math:: ?(?P<first>.*)\n(?P<rest>(?:(?P=indent) +\S.*\n?)*)", re.M)
ROLE = re.compile(r":(?:func|class|mod|meth|data|attr):`(~?)([^`]*)`")

SYMBOLS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "epsilon": "ε", "varepsilon": "ε", "eta": "η", "theta": "θ", "lambda": "λ",
    "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π", "rho": "ρ", "sigma": "σ", "ell": "ℓ", "Delta": "Δ", "Sigma": "Σ",
    "sum": "Σ", "prod": "Π", "bigcup": "∪", "nabla": "∇", "infty": "∞", "dots": "…", "cdot": "·", "in": " ∈ ", "sim": " ~ ",
    "pm": " ± ", "cap": " ∩ ", "cup": " ∪ ", "odot": " ⊙ ", "approx": " ≈ ",
    "le": " ≤ ", "ge": " ≥ ", "leftarrow": " ← ", "top": "ᵀ", "langle": "⟨", "rangle": "⟩", "lfloor": "⌊", "rfloor": "⌋",
    "lVert": "‖", "rVert": "‖", "|": "‖", "mid": " | ", "{": "{", "}": "}", ",": " ", ";": " ", " ": " ", "quad": "  ",
    "qquad": "    ", "textstyle": "",
}  # fmt: skip
WORDS = ("log", "ln", "exp", "max", "min", "sup", "arg")
FRACTIONS = ("frac", "tfrac")
VERBATIM = ("text", "mathrm", "operatorname")
SIZES = re.compile(r"\s*\\[bB]ig+r(?![A-Za-z])\s*|\\[bB]ig+[lm]?(?![A-Za-z])\s*")
OPENING = re.compile(r"\\lVert\s*")
ACCENTS = {"hat": "\u0302", "bar": "\u0304", "tilde": "\u0303"}
DOUBLE = {"E": "𝔼", "1": "𝟙"}
ABOVE = dict(zip("0123456789+-=ijnkxyT", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼ⁱʲⁿᵏˣʸᵀ", strict=True))
BELOW = dict(zip("0123456789+-=aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉₊₋₌ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ", strict=True))
GAP = "\0"  # after a fraction, where something follows
HALVES = {("1", "2"): "½"}


def unicode(latex: str) -> str:
    r"""A formula as one line of text.

    >>> unicode(r"-\tfrac{2}{\beta}\,\mathbb{E}\,\log\sigma\Bigl(-\beta\log\tfrac{p}{\pi_{\mathrm{ref}}(y|x)}\Bigr)")
    '-2/β 𝔼 log σ(-β log (p/π_ref(y|x)))'
    >>> unicode(r"\tfrac1T \sum_t \|g_f\|^2, \quad x^*_1 \ge \hat h^{1/|y|}")
    '1/T Σₜ ‖g_f‖², x*₁ ≥ ĥ^(1/|y|)'
    >>> unicode(r"\sqrt{J_i + \epsilon^2} - \epsilon + \sqrt2")
    '√(Jᵢ + ε²) - ε + √2'
    """
    text = unicodedata.normalize(
        "NFC", _sequence(TOKEN.findall(OPENING.sub("‖", SIZES.sub("", " ".join(latex.split())))))
    )
    text = re.sub(f"{GAP}(?=[\\w(\\[⟨‖∇|])", " ", re.sub(f"(?<=½){GAP}(?=\\|)", "", text)).replace(GAP, "")
    for gap in (r"(?<=[(\[{⟨⌊]) ", r" (?=[,)\]}⟩⌋])", r"(?<= ) +"):
        text = re.sub(gap, "", text)
    return text.strip()


def for_terminal(docstring: str) -> str:
    """``docstring`` with its formulas as Unicode, a displayed one on a line of its own."""
    shown = BLOCK.sub(lambda m: f"{m['indent']}    {unicode(m['first'] + ' ' + m['rest'])}\n", docstring)
    return _roles(INLINE.sub(lambda m: unicode(m[1]), shown))


def for_markdown(docstring: str) -> str:
    """``docstring`` as Markdown: formulas between dollars, code in backticks, examples fenced."""
    kept: list[str] = []

    def keep(made: str) -> str:
        kept.append(made)
        return f"\0{len(kept) - 1}\0"

    def block(m: re.Match[str]) -> str:
        return keep("$$\n" + " ".join(f"{m['first']} {m['rest']}".split()) + "\n$$\n")

    text = INLINE.sub(lambda m: keep(f"${' '.join(m[1].split())}$"), BLOCK.sub(block, docstring))
    text = re.sub(r"^>>> .*(?:\n.+)*", lambda m: keep(f"```python\n{m[0]}\n```"), text, flags=re.M)
    text = re.sub(r"``([^`]*)``", lambda m: keep(f"`{m[1]}`"), _roles(text, "`"))
    return re.sub(r"\0(\d+)\0", lambda m: kept[int(m[1])], text)


def _roles(text: str, mark: str = "") -> str:
    """``text`` with RST's roles as the name alone, of one with a tilde the last part."""
    return ROLE.sub(lambda m: f"{mark}{m[2].rpartition('.')[2] if m[1] else m[2]}{mark}", text)


# -- reading --------------------------------------------------------------------------------------------------------------
def _sequence(tokens: list[str], end: str | None = None) -> str:
    """Everything up to ``end``; ``tokens`` are consumed."""
    out = ""
    while tokens and tokens[0] != end:
        token = tokens.pop(0)
        if token in "_^" and token.strip():
            out = out.rstrip() + _script(token, _argument(tokens))
        else:
            out = _joined(out, token, _one(token, tokens))
    if end is not None and tokens:
        tokens.pop(0)
    return out


def _joined(before: str, token: str, made: str) -> str:
    """``made`` after ``before``: a word gets a space on either side of it, and a fraction after a word brackets."""
    name = token.removeprefix("\\")
    after_word = re.search(rf"(?<![A-Za-z])(?:{'|'.join(WORDS)})$", before)
    if name in FRACTIONS and after_word:
        return f"{before} ({made.removesuffix(GAP)})"
    if made[:1].isalnum() and (after_word or (name in WORDS and before[-1:].isalnum())):
        return f"{before} {made}"
    return before + made


def _one(token: str, tokens: list[str]) -> str:
    """One token with its arguments."""
    if token == "{":
        return _sequence(tokens, "}")
    if token.isspace():
        return " "
    if token == "'":
        return "′"
    if not token.startswith("\\"):
        return token
    name = token[1:]
    if name in FRACTIONS:
        above, below = _argument(tokens), _argument(tokens)
        return HALVES.get((above, below), f"{_factor(above)}/{_factor(below)}") + GAP
    if name == "sqrt":
        under = _argument(tokens)
        return f"√{under}" if len(under) == 1 else f"√({under})"
    if name in ACCENTS:
        return _argument(tokens) + ACCENTS[name]
    if name == "mathbb":
        return DOUBLE[_argument(tokens)]
    if name in VERBATIM:
        return _verbatim(tokens)
    return SYMBOLS.get(name, name)


def _argument(tokens: list[str]) -> str:
    """The next group, command or character."""
    while tokens and tokens[0].isspace():
        tokens.pop(0)
    return _one(tokens.pop(0), tokens).strip(f" {GAP}") if tokens else ""


def _verbatim(tokens: list[str]) -> str:
    """The text of the next group, spaces and all."""
    parts: list[str] = []
    if tokens and tokens[0] == "{":
        tokens.pop(0)
        while tokens and (token := tokens.pop(0)) != "}":
            parts.append(token)
    return "".join(parts)


def _factor(text: str) -> str:
    """``text`` in brackets if it holds a product, a sum or a quotient outside of brackets."""
    depth, bars = 0, 0
    for c in text:
        depth += (c in "([{⟨") - (c in ")]}⟩")
        bars ^= c in "|‖"
        if not depth and not bars and c in " +-=/·ΣΠ":
            return f"({text})"
    return text


def _script(kind: str, text: str) -> str:
    """A subscript or superscript: in Unicode's own characters where it has them all."""
    table = BELOW if kind == "_" else ABOVE
    word = len(text) > 1 and text.isalpha()
    if text and not word and all(c in table for c in text):
        return "".join(table[c] for c in text)
    if text in ("*", "ᵀ"):
        return text
    plain = re.fullmatch(r"[^\W_][^\W_-]*(-[^\W_]+)*|.|\([^()]*\)|\[[^\[\]]*\]", text)
    return f"{kind}{text}" if plain else f"{kind}({text})"
