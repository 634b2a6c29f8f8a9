r"""A benchmark of expunge as a task of Inspect: the model answers, ROUGE-L recall of the right answer is its score.

    inspect eval examples/inspect_ai/expunge_benchmark.py --model hf/MODEL -M do_sample=false \
        -T benchmark=tofu/forget10 -T part=forget

``do_sample=false``: Inspect's ``hf`` samples otherwise, and then refuses temperature 0, by which a server is asked for the
likeliest answer.
``part``: what was to be forgotten (low is good) or kept (high is good); ``data``: a folder, in place of the Hub.
Needs ``pip install inspect-ai``.
"""

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, GenerateConfig
from inspect_ai.scorer import Score, mean, scorer, stderr
from inspect_ai.solver import generate

from expunge.neighbours import asked, recall

ROLES = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}


@scorer(metrics=[mean(), stderr()])
def rouge_l_recall():
    """How much of the right answer is said, from 0 to 1."""

    async def score(state, target):
        answer = state.output.completion
        return Score(value=recall(target.text, answer), answer=answer)

    return score


@task
def expunge_benchmark(benchmark="tofu/forget10", part="forget", data=None, limit=None):
    """One part of a benchmark."""
    rows = asked(benchmark, data, part=part, limit=limit)
    samples = [
        Sample(
            id=f"{row['part']}-{row['index']}",
            input=[ROLES[m["role"]](content=m["content"]) for m in row["messages"]],
            target=row["answer"],
            metadata={"part": row["part"]},
        )
        for row in rows
    ]
    longest = max(row["max_new_tokens"] for row in rows)
    ends = sorted({text for row in rows for text in row["stop"]}) or None
    config = GenerateConfig(temperature=0.0, max_tokens=longest, stop_seqs=ends)
    return Task(
        dataset=MemoryDataset(samples, name=benchmark), solver=generate(), scorer=rouge_l_recall(), config=config
    )
