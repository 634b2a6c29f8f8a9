"""Who stays forgotten: the worst of what is left and of what comes back, in words, as SVG and as PNG."""

from __future__ import annotations

import re

import pytest

from expunge.errors import InputError
from expunge.report.draw import stays


def share(name: str, value: float, family: str = "remaining", decides: bool = True) -> dict:
    return {"name": f"{family}/{name}", "family": family, "value": value, "low": value - 0.1, "high": value + 0.1,
            "decides": decides}  # fmt: skip


def audit(word: str, *findings: dict, **attacks: tuple[float, float | None]) -> dict:
    return {
        "verdict": {"word": word, "findings": list(findings)},
        "policy": {"remaining": 0.2},
        "attacks": [{"name": name, "recovery": {"value": r, "low": r, "high": r},
                     "excess": None if e is None else {"value": e, "low": e, "high": e}}
                    for name, (r, e) in attacks.items()],
    }  # fmt: skip


HIDES = audit("not forgotten", share("recall", 0.1), share("preference", 0.3), share("x", 0.9, decides=False),
              share("loss", 0.8, "membership"), pruning=(0.9, 0.0), prefill=(0.6, 0.55))  # fmt: skip
BARE = audit("forgotten", share("recall", -0.9))


def test_the_worst_of_both():
    found = stays.line("npo", HIDES)
    assert (found.left, found.figure) == (pytest.approx((0.3, 0.2, 0.4)), "preference")
    assert (found.back[0], found.attack) == (0.55, "prefill")  # beyond the control, not 0.9
    assert stays.line("x", audit("partly", pruning=(0.9, None))).back[0] == 0.9
    assert stays.line("b", BARE).back is None
    assert stays.in_words([found]) == (
        "Who stays forgotten. npo: not forgotten, left 0.30 (preference), brought back 0.55 (prefill)."
    )


def test_files(tmp_path):
    named = [("npo", HIDES), ("retrained", BARE)]
    text = stays.write(named, tmp_path / "stays.svg").read_text()
    title = re.search(r'<title id="stays-title">(.*?)</title>', text)
    assert title and title[1] == stays.in_words([stays.line(*n) for n in named])
    assert "var(--forget)" in text and "--forget:" in text and "#d55e01" in text.split("</style>")[0]
    assert stays.write(named, tmp_path / "stays.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"\.svg or \.png"):
        stays.write(named, tmp_path / "stays.pdf")
