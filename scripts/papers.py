"""docs/papers.md's table: every paper, its methods, their defaults, and what sets each of them."""

from __future__ import annotations

import inspect

from expunge.cli.formulas import for_markdown
from expunge.method import entries

TITLES = {
    "2210.01504": "Knowledge Unlearning for Mitigating Privacy Risks in Language Models",
    "2401.06121": "TOFU: A Task of Fictitious Unlearning for LLMs",
    "2404.05868": "Negative Preference Optimization",
    "2410.07163": "Simplicity Prevails: SimNPO",
    "2305.18290": "Direct Preference Optimization",
    "2506.05314": "Constrained Entropic Unlearning (PDU)",
    "2506.08164": "BLUR: bi-level unlearning",
    "2502.19301": "Weighted gradient ascent (WGA)",
    "2505.11953": "Saturation and importance (SatImp)",
    "2402.10052": "UNDIAL",
    "2503.01224": "CE-U",
    "2410.11143": "FLAT",
    "2509.02820": "JensUn",
    "2409.13474": "Alternate Preference Optimization (AltPO)",
    "2212.04089": "Editing Models with Task Arithmetic",
    "2404.18239": "SOUL",
    "2403.03218": "WMDP and RMU",
    "2001.06782": "PCGrad",
    "1810.04650": "MGDA",
    "2410.22086": "Normalised gradient difference",
    "2406.16232": "Jacobian Descent (TorchJD)",
}
OU = "locuslab/open-unlearning"
# What was read: the file, and what stands there.  A method without an entry here has its docstring's word only.
READ = {
    "npo": (f"{OU} `configs/trainer`", "β 0.1, α 1, γ 1"),
    "simnpo": (f"{OU} `configs/trainer`", "β 4.5, δ 0, γ 0.125"),
    "dpo": (f"{OU} `configs/trainer`", "β 0.1"),
    "grad_diff": (f"{OU} `configs/trainer`", "α 1, γ 1, retain loss NLL"),
    "wga": (f"{OU} `configs/trainer/WGA.yaml`", "β 1"),
    "satimp": (
        f"{OU} `configs/trainer/SatImp.yaml`",
        "β₁ 5, β₂ 1; its README gives the weights the other way round than its YAML",
    ),
    "undial": (f"{OU} `configs/trainer/UNDIAL.yaml`", "β 10, α 0, learning rate 1e-4"),
    "ce_u": (f"{OU} `configs/trainer`", "`ignore_first_n` 1"),
    "pdu": (
        f"{OU} `community/methods/PDU/run.sh`",
        "“Final best parameters”: λ₀ 100, dual step 5, budget 0.3, warm-up 5 of 10 epochs (TOFU)",
    ),
    "blur_npo": (
        "OptimAI-Lab/BLURLLMUnlearning `TOFU/src/trainer/unlearn/base.py`",
        "γ 1.0 and lower = True are written into the code; β 0.1, learning rate 1e-5",
    ),
    "blur_rmu": (
        "OptimAI-Lab/BLURLLMUnlearning `README.md`, WMDP",
        "α 800 (the argument's default is 1200); γ = 1/α = 0.00125",
    ),
    "soul_grad_diff": (
        "OPTML-Group/SOUL `configs/TOFU/SO_GradDiff.json`",
        "learning rate 5e-6, weight decay 0.1, γ 2, betas (0.9, 0.95), ρ 0.04",
    ),
}


def table() -> str:
    """A section a paper."""
    by_paper: dict[str, list[str]] = {}
    for name, row in entries().items():
        by_paper.setdefault(row.paper.removeprefix("arXiv:"), []).append(name)
    parts = []
    for paper, names in by_paper.items():
        title = (
            f"## {TITLES[paper]}\n\n[arXiv:{paper}](https://arxiv.org/abs/{paper})" if paper else "## Of this library"
        )
        parts.append("\n\n".join([title, *(_method(name) for name in names)]))
    return "\n\n".join(parts)


def _method(name: str) -> str:
    """A method's defaults, the sentence of its docstring about them, and the file that was read."""
    row = entries()[name]
    defaults = ", ".join(f"`{key} = {value}`" for key, value in row.defaults.items()) or "no parameters"
    text = for_markdown(inspect.cleandoc(inspect.unwrap(row.make).__doc__ or "")).split("\n\n")
    said = " ".join(text[1].split()) if len(text) > 1 else ""
    lines = [f"**[`{name}`](methods.md#{name})**: {defaults}.", said]
    if name in READ:
        lines.append("Read: {}: {}.".format(*READ[name]))
    return "\n\n".join(filter(None, lines))
