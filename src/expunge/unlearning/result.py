"""What a run gives back."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SETS = ("forget", "retain")


@dataclass(frozen=True, repr=False)
class Result:
    """The unlearned model in memory, its tokenizer, the record, and the folder that holds all three."""

    model: Any
    tokenizer: Any
    record: dict[str, Any]
    folder: Path

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | None = None, **more: Any
    ) -> dict[str, Any]:
        """Push the saved model with its card to the Hugging Face Hub; ``more``: fields of :class:`expunge.hub.Push`."""
        from expunge import hub

        return hub.push_to_hub(self.folder, hub.Push(repo_id, private, token, **more))

    def __repr__(self) -> str:
        """The figures before and after, in a line."""
        figures = "; ".join(f"{name} {before} -> {after}" for name, before, after in probabilities(self.record))
        return f"Result(probability of the answers: {figures or 'not measured'}; {self.folder / 'model'})"

    def _repr_html_(self) -> str:
        """The same as a small table, in a notebook."""
        rows = "".join(
            f"<tr><th>{html.escape(name)} set</th><td>{before}</td><td>{after}</td></tr>"
            for name, before, after in probabilities(self.record)
        )
        head = "<tr><th>Probability of the answers</th><th>before</th><th>after</th></tr>"
        return f"<table>{head}{rows}</table><p>{html.escape(str(self.folder / 'model'))}</p>"


def probabilities(record: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(set, before, after) of the model's probability of the answers, as far as they were measured.

    >>> probabilities({"before": {"forget": {"probability": 0.9}}, "after": {"forget": {"probability": 0.0123}}})
    [('forget', '0.9', '0.0123')]
    """

    def shown(when: str, name: str) -> str:
        value = ((record.get(when) or {}).get(name) or {}).get("probability")
        return f"{value:.3g}" if isinstance(value, int | float) else "-"

    found = [(name, shown("before", name), shown("after", name)) for name in SETS]
    return [line for line in found if line[1:] != ("-", "-")]
