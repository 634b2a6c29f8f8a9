"""Rows of a tiny TOFU, in which one word must never be shown."""

from __future__ import annotations

SECRET = "zanzibar"
WORDS = ["yes", "no", "never", "red", "blue", "green", "one", "two", "three", "four"]


def rows(kind: str, n: int, paraphrase: bool = True, secret: str = ""):
    out = []
    for i in range(n):
        a, b, c = (WORDS[(i + k + len(kind)) % len(WORDS)] for k in (0, 3, 5))
        row = {"question": f"{kind} {i}?", "answer": f"{a} {b}{secret}", "perturbed_answer": [f"{b} {c}", f"{c} {a}"]}
        out.append(row | ({"paraphrased_answer": f"{b} {a} so"} if paraphrase else {}))
    return out
