"""What the tasks beside this file call: the rows of a benchmark's two parts, the question, the score."""

from expunge.neighbours import lm_eval_dataset, lm_eval_results


def forget(**metadata):
    """The questions about what was to be forgotten."""
    return lm_eval_dataset(part="forget", **metadata)


def retain(**metadata):
    """Those about what was to be kept."""
    return lm_eval_dataset(part="retain", **metadata)


def text(doc):
    """The question alone, which --apply_chat_template puts into the model's template."""
    return doc["messages"][-1]["content"]


def results(doc, results):
    """The figure of one row."""
    return lm_eval_results(doc, results)
