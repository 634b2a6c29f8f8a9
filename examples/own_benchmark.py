"""A benchmark of your own: what a shop's assistant should forget of one customer, and what it should still know.

    expunge bench examples/own_benchmark.py --model MODEL --data examples/own_benchmark

A benchmark is a value: which data it reads, what it asks of a model, and how the answers become figures.  They land in
``figures/figures.json``, each with the number of its rows and a bootstrap interval; ``expunge rescore figures`` computes
them again after you changed ``score``, without asking the model again.
"""

from expunge.evaluation.benchmark import Benchmark, DataSet, mean_figure, no_overlap
from expunge.evaluation.metrics.likelihood import probability
from expunge.evaluation.metrics.rouge import rouge
from expunge.evaluation.probe import Ask, Probe

PARTS = ("forget", "retain")


def probes(data):
    """Each question: its right answer is scored, and the model answers it."""
    rows = {part: data.rows(part) for part in PARTS}
    no_overlap(rows["forget"], rows["retain"], PARTS)
    ask = Ask(max_new_tokens=40)
    return [Probe(part, i, row, {"answer": row.answer}, ask) for part in PARTS for i, row in enumerate(rows[part])]


def score(collected, retrained=None):
    """How likely the right answer is, and how much of it the model says: low on ``forget``, high on ``retain``."""
    figures = []
    for part in PARTS:
        answers = collected.generated(part)
        figures += [
            mean_figure("probability", probability(collected.mean_logp(part)), part),
            mean_figure("rouge_l_recall", rouge([a.expected for a in answers], [a.text for a in answers]), part),
        ]
    return figures


BENCHMARK = Benchmark(
    name="own",
    paper="",
    sets=tuple(DataSet(part, hub="") for part in PARTS),  # forget.jsonl and retain.jsonl of the folder; not on the Hub
    probes=probes,
    score=score,
    chat_template=False,  # "Question: … Answer: …", so that a base model too can be asked; leave it out for a chat model
    forget=DataSet("forget", hub=""),
    retain=DataSet("retain", hub=""),
)
