"""The model card of an unlearned model: tags and the section *Unlearning*, from the run's record and its audit.

It holds no text of any row, no title or name that the user gave, no warning and no path of this machine.  The section
stands between two comments: pushed again it is replaced there, and what the user wrote around it stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from expunge import files
from expunge.record import complete
from expunge.record_types import AuditRecord, FindingInfo, RunRecord
from expunge.report.format import DASH, number, plain

BEGIN, END = "<!-- expunge: begin of the unlearning section -->", "<!-- expunge: end of the unlearning section -->"
WRITTEN = "<!-- written by expunge from run.json; delete this line, and it is not written over -->"
HOME = "https://github.com/expunge/expunge"
TAGS = ("unlearning", "machine-unlearning", "expunge")
FIGURES = {
    "probability": "probability of the answers, per token",
    "nll": "loss, nats per token",
    "rouge_l": "ROUGE-L of the answers",
    "truth_ratio": "truth ratio",
    "fluency": "fluency of the answers",
}
TRAINING = (
    "learning_rate", "lr_scheduler_type", "num_train_epochs", "max_steps", "per_device_train_batch_size",
    "gradient_accumulation_steps", "warmup_steps", "weight_decay", "max_grad_norm", "optim", "bf16", "fp16",
)  # fmt: skip
QUESTIONS = {"gone": "Is it gone?", "kept": "Is the rest still there?", "back": "Does it come back?"}
FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*\n", re.DOTALL)
LOCAL_PATH = re.compile(r"(?<![\w:/.])(?:~?/|[A-Za-z]:\\)(?:[\w.+@=-]+[/\\])*([\w.+@=-]+)")


def hub_name(name: Any) -> str | None:
    """The Hub's name of a model, None for what is none, such as a folder of this machine.

    >>> hub_name("smollm2-135m"), hub_name("EleutherAI/pythia-14m"), hub_name("/home/me/model")
    ('HuggingFaceTB/SmolLM2-135M-Instruct', 'EleutherAI/pythia-14m', None)
    """
    from expunge.models.locate import ALIAS, ALIAS_HUB, HUB_NAME  # torch stands behind it

    if name == ALIAS:
        return ALIAS_HUB
    text = str(name or "")
    if "/" not in text or not HUB_NAME.fullmatch(text) or text[0] == "." or files.expanded(text).exists():
        return None
    return text


def metadata(raw: Any, base: str | None, *, adapter: bool) -> dict[str, Any]:
    """The card's metadata, as the Hub reads it: library, tags, and how the model relates to its base."""
    method = complete(RunRecord, raw)["method"]["name"]
    tags = [*TAGS, *([method] if method else []), *(["lora"] if adapter else [])]
    related = {"base_model": base, "base_model_relation": "adapter" if adapter else "finetune"} if base else {}
    return {
        **related,
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": tags,
    }


def model_card(
    record: Mapping[str, Any],
    audit: Mapping[str, Any] | None = None,
    *,
    name: str = "model",
    base: str | None = None,
    adapter: bool = False,
    existing: str | None = None,
) -> str:
    """The card of a run's ``record`` and its ``audit``; ``base``: the Hub's name of the model before.

    ``existing``: a card of the user's, whose text stays: the section is put in, the tags are added.
    """
    made = metadata(record, base, adapter=adapter)
    section = f"{BEGIN}\n{without_paths(unlearning_section(record, audit))}\n{END}"
    if existing is None:
        title = name.removesuffix("/model").split("/")[-1]
        parts = [WRITTEN, f"# {title}", usage(name, base, adapter=adapter), section]
        return _front_matter(made) + "\n\n".join(parts) + "\n"
    match = FRONT_MATTER.match(existing)
    own = yaml.safe_load(match[1]) if match else {}
    body = existing[match.end() :] if match else existing
    before, begin, rest = body.partition(BEGIN)
    _, end, after = rest.partition(END)
    text = f"{before}{section}{after}" if begin and end else f"{body.rstrip()}\n\n{section}\n"
    return f"{_front_matter(_with_tags(own if isinstance(own, dict) else {}, made))}{text}"


def write_card(folder: Path, **given: Any) -> Path | None:
    """Write ``folder/README.md``; None, and nothing is written, where the user has one of his own."""
    file = folder / "README.md"
    if own_card(file) is not None:
        return None
    return files.replace_text(file, model_card(**given))


def own_card(file: Path) -> str | None:
    """The text of a card that the user wrote or changed; None where there is none, or one that expunge wrote."""
    if not file.exists():
        return None
    text = file.read_text(encoding="utf-8", errors="replace")
    return None if WRITTEN in text else text


def _front_matter(values: Mapping[str, Any]) -> str:
    return f"---\n{yaml.safe_dump(dict(values), sort_keys=True, allow_unicode=True)}---\n"


def _with_tags(own: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    tags = own.get("tags") or []
    tags = [tags] if isinstance(tags, str) else list(tags)
    return {**made, **own, "tags": [*tags, *(t for t in made["tags"] if t not in tags)]}


def usage(name: str, base: str | None, *, adapter: bool) -> str:
    """How the model is loaded."""
    load = [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
    ]
    if not adapter:
        load.append(f'model = AutoModelForCausalLM.from_pretrained("{name}")')
    else:
        load[0] = f"from peft import PeftModel\n{load[0]}"
        load.append(
            f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base or "BASE"}"), "{name}")'
        )
    return "\n".join(["```python", *load, "```"])


# -- the section ----------------------------------------------------------------------------------------------------------
def unlearning_section(record: Mapping[str, Any], audit: Mapping[str, Any] | None = None) -> str:
    """The section *Unlearning* in Markdown."""
    said = complete(RunRecord, record)
    method, forget = said["method"], said["data"].get("forget")
    rows = f" a set of {forget['rows']:g} rows" if forget and forget["rows"] else " a set of rows"
    paper = str(method["paper"] or "")
    cited = f" ([{paper}](https://arxiv.org/abs/{paper.removeprefix('arXiv:')}))" if paper.startswith("arXiv:") else ""
    parts = [
        "## Unlearning",
        f"This model was made to forget{rows} with [expunge]({HOME}), method `{method['name']}`{cited}. "
        "Unlearning is approximate: what follows was measured, and is no proof that no trace is left.",
    ]
    if said.get("failed"):
        parts.append("**The run failed:** training broke down before its end.")
    parts += _audited(complete(AuditRecord, audit)) if audit else ["No audit was carried out on this model."]
    parts += [_figures(said), _settings(said), _fingerprints(said)]
    return "\n\n".join(filter(None, parts))


def _audited(said: AuditRecord) -> list[str]:
    verdict = said["verdict"]
    parts = ["### Audit", f"**Verdict: {verdict['word']}.** {_sentence(verdict['sentence'])}"]
    for question, title in QUESTIONS.items():
        if found := [f for f in verdict["findings"] if f["question"] == question]:
            head = "| outcome | figure | value | interval | limit | rows |\n|---|---|---|---|---|---|"
            parts += [f"*{title}*", "\n".join([head, *map(_finding, found)])]
    if verdict["not_concluded"]:
        parts += ["Not concluded:", "\n".join(f"- {_sentence(line)}" for line in verdict["not_concluded"])]
    return parts


def _finding(f: FindingInfo) -> str:
    word = f["outcome"] if f["decides"] else f"{f['outcome']} (does not decide)"
    sign = {"lower": "≤ ", "higher": "≥ ", "near": "± "}.get(f["better"] or "", "")
    interval = f"{_n(f['low'])} to {_n(f['high'])}"
    return _row([word, f["meaning"], _n(f["value"]), interval, f"{sign}{_n(f['limit'])}", f"{f['n'] or 0:g}"])


def _figures(said: RunRecord) -> str:
    """The figures before and after, those of the model to compare with where there are."""
    columns = {
        "before": said["before"],
        "after": said["after"],
        **({"compared with": said["reference"]} if said["reference"] else {}),
    }
    lines = [
        _row(
            [
                name,
                label,
                *(_n(number(of, name, key)) for of in columns.values()),
                _n(number(said["after"], name, "n"), 0),
            ]
        )
        for name in ("forget", "retain", "holdout")
        for key, label in FIGURES.items()
        if any(number(of, name, key) is not None for of in columns.values())
    ]
    head = [_row(["set", "figure", *columns, "rows"]), "|" + "---|" * (len(columns) + 3)]
    return "\n".join(["### Before and after", "", *head, *lines]) if lines else ""


def _settings(said: RunRecord) -> str:
    method, training = said["method"], said["training"]
    lora = said["model"]["adapter_config"] or {}
    values = {
        "method": method["name"],
        **{
            f"method.{k}": v
            for k, v in {**method["parameters"], **(method.get("chosen") or {})}.items()
            if v is not None
        },
        "weights": "LoRA factors" if lora else said["model"].get("trains") or "all",
        **{f"lora.{k}": v for k, v in lora.items() if k in ("r", "alpha", "dropout")},
        **{k: training[k] for k in TRAINING if training.get(k) is not None},
        "optimizer steps": len(said["steps"]) or None,
        "dtype": said["model"]["dtype"],
        "seed": said["seed"],
        "expunge": said["expunge"],
        **{k: said["versions"].get(k) for k in ("torch", "transformers", "peft")},
    }
    lines = [_row([f"`{k}`", f"`{plain(_last(v))}`"]) for k, v in values.items() if v is not None]
    return "\n".join(["### Settings", "", "| setting | value |", "|---|---|", *lines])


def _fingerprints(said: RunRecord) -> str:
    """Of the two models, as `expunge fingerprint` prints them; not of the rows, of which it could confirm a guess."""
    values = {"model before": said["model"]["fingerprint"], "this model": said["output"]["fingerprint"]}
    lines = [_row([k, f"`{v}`"]) for k, v in values.items() if v]
    return "\n".join(["### Fingerprints", "", "| of | SHA-256 |", "|---|---|", *lines]) if lines else ""


def without_paths(text: str) -> str:
    """``text`` with the last part of each path of this machine in its place; addresses stay.

    >>> without_paths("from /home/me/data/forget.jsonl, see https://arxiv.org/abs/2506.05314; 3/4")
    'from forget.jsonl, see https://arxiv.org/abs/2506.05314; 3/4'
    """
    return LOCAL_PATH.sub(r"\1", text)


def _last(value: Any) -> Any:
    """A path's last part; anything else, and a name of the Hub's, as it is."""
    return value.rsplit("/", 1)[-1] if isinstance(value, str) and "/" in value and hub_name(value) is None else value


def _row(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(str(c).replace("|", "\\|").replace("\n", " ") for c in cells) + " |"


def _n(value: float | None, digits: int = 3) -> str:
    return DASH if value is None else f"{value:.{digits}f}"


def _sentence(text: Any) -> str:
    said = str(text or "")
    return f"{said[:1].upper()}{said[1:]}." if said else ""
