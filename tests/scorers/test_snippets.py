"""Python code in a text: which blocks there are, and what they are worth."""

from __future__ import annotations

import sys

import pytest

from expunge.scorers import scorer
from expunge.scorers.snippets import LARGEST, blocks, parses

needs_a_sandbox = pytest.mark.skipif(sys.platform == "win32", reason="needs Linux or macOS")


def fenced(code, mark="python"):
    return f"Here:\n```{mark}\n{code}\n```\nDone."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (fenced("x = 1"), ["x = 1\n"]),
        (fenced("x = 1", ""), ["x = 1\n"]),
        (fenced("x = 1", "Python3"), ["x = 1\n"]),
        (fenced("ls", "bash") + "\n" + fenced("y = 2", "py"), ["y = 2\n"]),
        ("```python\nx = 1\ny = ", ["x = 1\ny = "]),  # the tokens ran out
        ("```python title=a\nx = 1\n```", ["x = 1\n"]),
        ("  ```\n  x\n  ```", ["  x\n"]),
        ("x = 1", []),
        ("```python```", []),
    ],
)
def test_blocks(text, expected):
    assert blocks(text) == expected


@pytest.mark.parametrize("source", ["x = 1", "print(1)", "import os", "'doc'\npass", r"print('\d')"])
def test_programs_parse(source):
    assert parses(source)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "# nothing",
        "hello",
        "'text'",
        "3",
        "def f(:",
        "x = 1\0",
        "(" * 5000 + ")" * 5000,
        "-" * 40_000 + "1",
        "x=1\n" * LARGEST,
    ],
)
def test_others_do_not(source):
    assert not parses(source)


@needs_a_sandbox
def test_code_is_worth_one_where_it_runs():
    texts = [
        fenced("def f(x):\n    return x + 1\nassert f(1) == 2"),
        fenced("assert 1 == 2"),
        fenced("import no_such_package"),
        fenced("input()"),
        fenced("def f(:"),
        "print(1)",
        "hello",
        fenced("oops(") + fenced("x = 1") + fenced("1/0"),  # the first that parses decides
    ]
    assert scorer("code")(texts).tolist() == [1, 0.5, 0.5, 0.5, 0, 0, 0, 1]
