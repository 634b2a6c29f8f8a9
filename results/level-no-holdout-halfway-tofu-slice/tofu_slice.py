"""TOFU's questions about a small slice, fewer of them: what `slice_levels.toml` asks of every run.

Every forget question; every ninth retain, fifth author and sixth fact; answers of at most 80 tokens; no gradient norms.
A copy of `tofu/forget01` otherwise: the same figures, by the same code, of these rows.
"""

from dataclasses import replace

from expunge.benchmarks.tofu import ALL
from expunge.evaluation.benchmark import Data
from expunge.evaluation.probe import Ask, Probe

FORGET01 = ALL[0]
EVERY = {"forget": 1, "holdout": 1, "retain": 9, "real_authors": 5, "world_facts": 6}


def probes(data: Data) -> list[Probe]:
    """Those of TOFU, thinned out."""
    few = [p for p in FORGET01.probes(data) if p.index % EVERY[p.part] == 0]
    return [replace(p, grad_norm=(), ask=Ask(max_new_tokens=80) if p.ask else None) for p in few]


BENCHMARK = replace(FORGET01, name="tofu/slice", probes=probes)
