"""The figures of a run: those of the forget and the retain set, and the answers it shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from expunge import processes
from expunge.data import chat
from expunge.data.example import evenly
from expunge.unlearning import fluency
from expunge.unlearning.rows import Data
from expunge.unlearning.settings import Recipe

HINTS = {
    "retain_weight": "a lower retain_weight",
    "steering_coefficient": "a larger steering_coefficient",
    "budget": "a larger budget",
}  # parameter -> which way it has to go for more to be forgotten
LEAST_CHANGE = 0.01  # of the forget set's negative log-likelihood: below, nothing has moved


def measure(
    net: Any, tokenizer: Any, data: Data, settings: Recipe, *, alone: bool = False, judge: Any = None
) -> dict[str, Any]:
    """Figures of the forget and the retain set, and answers if the user wants examples.

    Several processes share the rows and all get the figures; ``alone`` one asks them all itself.  The figures have the
    fluency of answers to forget rows if there is a model ``judge``, the one before unlearning; else these answers are
    ``said``, row number -> text, to be judged later.
    """
    from tqdm.auto import tqdm

    from expunge.evaluation import custom
    from expunge.evaluation.collect.one_pass import collect
    from expunge.evaluation.figures import figures, probes

    sets = {name: evenly(data.rows[name], settings.eval_rows) for name in ("forget", "retain") if name in data.rows}
    probed = []
    for name, rows in sets.items():
        shown = evenly(range(len(rows)), settings.examples)
        probed += probes(name, rows, shown, settings.max_new_tokens)
    probed += fluency.probes(data, settings)
    total = sum(len(p.texts) + bool(p.ask) for p in probed)
    quiet = str(settings.training.get("disable_tqdm", False)).lower() == "true"
    quiet |= not processes.is_main()
    each = 1 if alone else processes.count()
    with tqdm(total=total, desc=f"measuring the {' and the '.join(sets)} set", leave=False, disable=quiet) as bar:
        found = collect(
            net,
            tokenizer,
            probed,
            max_length=data.max_length or settings.max_length,
            chat_template=settings.chat_template,
            progress=lambda n: bar.update(n * each),
            alone=alone,
        )
    answers = {name: [a.text for a in found.generated(name)] for name in sets} if settings.examples else {}
    own = custom.metrics(settings.metric)
    measured: dict[str, Any] = {
        "figures": {name: figures(found, name) | custom.means(own, found, name) for name in sets},
        "answers": answers,
    }
    said = {a.index: a.text for a in found.answers if a.part == fluency.PART}
    if judge is None:
        return measured | ({"said": said} if said else {})
    measured["figures"]["forget"] |= fluency.judged(said, judge, tokenizer, data, settings, alone=alone)
    return measured


def unmoved(
    before: Mapping[str, Mapping[str, float]],
    after: Mapping[str, Mapping[str, float]],
    parameters: Iterable[str] = (),
) -> list[str]:
    """A warning where the forget set is as well known after a run as before it, or better; ``parameters``: the method's.

    >>> unmoved({"forget": {"nll": 2.0}}, {"forget": {"nll": 2.5}})
    []
    """
    if "forget" not in before or "forget" not in after:
        return []
    was, now = before["forget"]["nll"], after["forget"]["nll"]
    if now - was >= LEAST_CHANGE * max(was, LEAST_CHANGE):
        return []
    ways = ["a higher learning_rate", "more steps", *(HINTS[name] for name in parameters if name in HINTS)]
    how = "as well as" if now - was > -LEAST_CHANGE * max(was, LEAST_CHANGE) else "better than"
    return [
        f"nothing was forgotten: the model knows the forget set {how} before (mean negative log-likelihood {was:.4g}, now "
        f"{now:.4g}); try {', '.join(ways)} or another method"
    ]


def answers_shown(
    data: Data,
    settings: Recipe,
    before: dict[str, Any],
    after: dict[str, Any],
    compared: dict[str, Any] | None,
) -> list[dict[str, Any]]:
    """The rows that are shown, with what each model answered."""
    out = []
    for name, answers in before["answers"].items():
        rows = evenly(evenly(data.rows[name], settings.eval_rows), settings.examples)
        for i, row in enumerate(map(chat.split_prompt, rows)):
            out.append(
                {
                    "set": name,
                    "question": chat.question(row),
                    "expected": row.answer,
                    "before": answers[i],
                    "after": after["answers"][name][i] if after["answers"] else None,
                    "reference": compared["answers"][name][i] if compared else None,
                }
            )
    return out
