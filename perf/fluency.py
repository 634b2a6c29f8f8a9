"""What the fluency of answers says of answers that are language and of such as are not, under a real model.

python -m perf.fluency BASE TARGET RETRAINED FORGET [--rows 10]

BASE: the model that the adapters TARGET and RETRAINED were taught on; FORGET: a file of questions that RETRAINED never saw.
Judged by TARGET: the right answers, both models' own, the retrained ones with their words in another order, answers of
TARGET with noise on its weights (0.3 of each matrix's deviation), a refusal, a word over and over, and made-up words.
"""

from __future__ import annotations

import argparse
import copy
import random
from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel

from expunge import models
from expunge.data.example import Row, evenly
from expunge.data.sources import load_rows
from expunge.evaluation import fluency
from expunge.evaluation.collect.judge import known_words, probes
from expunge.evaluation.collect.one_pass import collect
from expunge.evaluation.probe import Ask, Probe
from expunge.evaluation.table import Collected, Generated

PART = "forget"


def main() -> None:
    """Print a line for each kind of answers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    for name in ("base", "target", "retrained", "forget"):
        parser.add_argument(name)
    parser.add_argument("--rows", type=int, default=10)
    given = parser.parse_args()
    every = load_rows(given.forget)
    rows = evenly(every, given.rows)
    target, tokenizer = taught(given.base, given.target)
    retrained, _ = taught(given.base, given.retrained)
    own = answers(retrained, tokenizer, rows)
    kinds = {
        "right answers": [row.answer for row in rows],
        "target": answers(target, tokenizer, rows),
        "retrained": own,
        "retrained, words shuffled": [" ".join(random.Random(0).sample(t.split(), len(t.split()))) for t in own],
        "target with noise": answers(noisy(target, 0.3), tokenizer, rows),
        "a refusal": ["I'm sorry, I don't know the answer to that."] * len(rows),
        "one word": ["the " * 12] * len(rows),
        "made-up words": ["opoldthorloğafurer was born on ickertoone day"] * len(rows),
    }
    known = known_words(every, tokenizer)
    print("| answers | perplexity | repetition | real words | fluency |\n|---|---|---|---|---|")
    for kind, texts in kinds.items():
        judged = collect(target, tokenizer, probes(PART, dict(enumerate(rows)), dict(enumerate(texts)), known))
        said = tuple(Generated(PART, i, "answer", rows[i].answer, text) for i, text in enumerate(texts))
        found = fluency.means(Collected(judged.scores, said), PART)
        print(f"| {kind} | " + " | ".join(f"{value:.3g}" for value in found.values()) + " |", flush=True)


def taught(base: str, adapter: str) -> tuple[Any, Any]:
    """The base with an adapter merged, and its tokenizer."""
    loaded = models.load(base)
    return PeftModel.from_pretrained(loaded.model, adapter).merge_and_unload().float().eval(), loaded.tokenizer


def answers(model: Any, tokenizer: Any, rows: Sequence[Row]) -> list[str]:
    """At most 32 tokens each."""
    found = collect(model, tokenizer, [Probe(PART, i, row, ask=Ask(32)) for i, row in enumerate(rows)])
    return [a.text for a in found.generated(PART)]


def noisy(model: Any, share: float) -> Any:
    """A copy with normal noise on its matrices, ``share`` of each one's deviation."""
    out, draws = copy.deepcopy(model), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in out.parameters():
            if p.dim() > 1:
                p.add_(torch.randn(p.shape, generator=draws) * p.std() * share)
    return out


if __name__ == "__main__":
    main()
