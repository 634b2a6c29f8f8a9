"""The scores of a comparison that was recorded before there were any, from the figures in its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.evaluation import scores
from expunge.evaluation.benchmark import ScoreParts, to_json
from expunge.evaluation.metrics.scores import SCORES


def scored(record: Mapping[str, Any], parts: ScoreParts | None = None) -> dict[str, Any]:
    """``record`` (of ``compare.json``) with the scores of target, retrained model and runs; what has a score stays as it is.

    They have no intervals, for the rows are not in the record.
    """
    target, retrained = ((record.get(who) or {}).get("figures") for who in ("target", "retrained"))

    def whole(model: Mapping[str, Any]) -> dict[str, Any]:
        figures = model["figures"]
        if not figures or any((f["part"], f["name"]) == (scores.PART, SCORES[0]) for f in figures):
            return dict(model)
        return {**model, "figures": [*figures, *to_json(scores.of_figures(figures, target, retrained, parts))]}

    models = {who: whole(record[who]) for who in ("target", "retrained") if record.get(who)}
    return {**record, **models, "runs": [whole(run) for run in record["runs"]]}
