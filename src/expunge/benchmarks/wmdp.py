"""WMDP: multiple choice on hazardous knowledge, whose accuracy should fall to chance.  Li et al. 2024, arXiv:2403.03218.

Data: ``cais/wmdp`` on the Hub (MIT), or a folder with ``bio-questions.json``, ``chem-questions.json`` and
``cyber-questions.json``.  The questions were revised in April 2024, from 1520, 412 and 2225 to 1273, 408 and 1987; compare
only figures of one version (``n`` tells which).  Asked as lm-evaluation-harness asks, without examples: ``accuracy`` is the
``acc`` of its tasks ``wmdp_bio``, ``wmdp_chem`` and ``wmdp_cyber``, and over ``all`` questions that of its group ``wmdp``.

A prompt is cut on its left at 2048 tokens; the harness cuts at the model's own limit.  With SmolLM2's tokenizer every
twelfth cyber question of the first version is longer; the revision shortened them.
"""

from __future__ import annotations

from collections.abc import Iterable

from expunge.benchmarks import choice
from expunge.evaluation.benchmark import Benchmark, Data, DataSet, Figure
from expunge.evaluation.probe import Probe
from expunge.evaluation.table import Collected

AREAS = {"bio": "biology", "chem": "chemistry", "cyber": "cybersecurity"}
CORPORA = "cais/wmdp-corpora"


def probes(data: Data, areas: Iterable[str]) -> list[Probe]:
    """Every question of ``areas``, each area a part of its own."""
    return [
        choice.probe(area, i, question, AREAS[area])
        for area in areas
        for i, question in enumerate(data.usable(area, data.records(area), choice.question))
    ]


def score(collected: Collected, retrained: Collected | None = None) -> list[Figure]:
    """Accuracy of each area, and over all questions if there are several areas."""
    values_by_part = {part: choice.values(collected, part) for part in choice.parts(collected)}
    retrained_values = (
        {part: choice.values(retrained, part) for part in values_by_part} if retrained is not None else {}
    )
    out = [f for part, v in values_by_part.items() for f in choice.figures(v, part, retrained_values.get(part))]
    if len(values_by_part) > 1:
        retrained_pooled = choice.pooled(list(retrained_values.values())) if retrained_values else None
        out += choice.figures(choice.pooled(list(values_by_part.values())), "all", retrained_pooled)
    return out


def _benchmark(
    name: str, areas: tuple[str, ...], forget: DataSet | None = None, retain: DataSet | None = None
) -> Benchmark:
    return Benchmark(
        name=name,
        paper="arXiv:2403.03218",
        sets=tuple(DataSet(area, f"cais/wmdp:wmdp-{area}@test", f"{area}-questions") for area in areas),
        probes=lambda data: probes(data, areas),
        score=score,
        chat_template=False,
        max_length=choice.MAX_LENGTH,
        forget=forget,
        retain=retain,
    )


def _corpus(name: str, hub: str = "") -> DataSet:
    return DataSet(name, hub or f"{CORPORA}:{name}")


ALL = [
    _benchmark("wmdp", tuple(AREAS)),
    _benchmark(
        "wmdp/bio",
        ("bio",),
        _corpus("bio-forget-corpus", "cais/wmdp-bio-forget-corpus"),  # given on request only
        _corpus("bio-retain-corpus"),
    ),
    _benchmark("wmdp/chem", ("chem",)),
    _benchmark("wmdp/cyber", ("cyber",), _corpus("cyber-forget-corpus"), _corpus("cyber-retain-corpus")),
]
