"""Python code in a text: its fenced blocks, whether one parses, whether it runs."""

from __future__ import annotations

import ast
import re
import warnings

from expunge.scorers import sandbox

LARGEST = 50_000  # characters of a block; a longer one counts as one that does not parse
_FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)


def blocks(text: str) -> list[str]:
    """The fenced code blocks of ``text`` marked as Python, or not marked at all, in order.

    A block that nothing closes goes to the end: generation stops where its tokens do.  Code without a fence is none.

    >>> blocks("So:\\n```python\\nprint(1)\\n```\\nor\\n```sh\\nls\\n```")
    ['print(1)\\n']
    """
    return [body for mark, body in _FENCE.findall(text) if mark.lower() in ("", "py", "python", "python3")]


def parses(source: str) -> bool:
    """Whether ``source`` is Python that does something: a statement other than a bare name or constant.

    >>> parses("x = 1"), parses("hello"), parses("x = ")
    (True, False, False)
    """
    if len(source) > LARGEST:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a backslash in a string, of `1 is 1`
            body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Name | ast.Constant)) for s in body)


def code_score(text: str) -> float:
    """1 if the first block of ``text`` that parses runs to its end in the sandbox without error, 1/2 if it does not,
    0 if there is none.

    Code that waits for input finds it at its end, and a package that is not Python's own is missing: both are errors.
    """
    code = next((b for b in blocks(text) if parses(b)), None)
    if code is None:
        return 0.0
    return 1.0 if sandbox.run(code).ok else 0.5
