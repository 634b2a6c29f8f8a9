"""RMU against BLUR-RMU: what is left of the right answers to WMDP's questions, and of the rest.

    python -m perf.misdirection --model smollm2-135m --questions cyber-questions.json --texts wikitext2/ \\
        --layer 7 --coefficients 4,8 --alphas 100,1200 --gammas 0.00125,0.01 max_steps=100

Half of the short questions with their right answers are the forget set, pieces of WikiText-2's validation part the retain
set; measured are the likelihood of the right answers (per token, trained and held-out questions) and the perplexity of
WikiText-2's test part.  A steering coefficient is a multiple of the mean length of the model's own activations at the
layer.  First it prints which share of a forward pass's operations is done.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from expunge import models
from expunge.data.example import Row, evenly
from expunge.evaluation.collect.one_pass import collect
from expunge.evaluation.figures import probes
from expunge.forward.layers import hidden_after
from expunge.stats import bootstrap_mean
from expunge.unlearning.run import unlearn

LONGEST = 400  # characters of a question: what is longer is program code
WORDS = 120  # of a piece of text


def questions(file: Path) -> list[Row]:
    """Short questions with the right answer after them."""
    found = json.loads(file.read_text(encoding="utf-8"))
    return [
        Row(f"Question: {q['question'].strip()}\nAnswer:", f" {q['choices'][q['answer']].strip()}")
        for q in found
        if len(q["question"]) <= LONGEST
    ]


def pieces(file: Path, n: int) -> list[Row]:
    """``n`` texts of ``WORDS`` words, from all over the file."""
    words = file.read_text(encoding="utf-8").split(" ")
    cut = [" ".join(words[i : i + WORDS]).strip() for i in range(0, len(words) - WORDS, WORDS)]
    return [Row(None, piece) for piece in evenly(cut, n)]


def measure(model: Any, tokenizer: Any, sets: dict[str, list[Row]]) -> dict[str, Any]:
    """Negative log-likelihood per token of each set, a mean over rows with its interval, and the texts' perplexity."""
    found = collect(
        model, tokenizer, [p for name, rows in sets.items() for p in probes(name, rows)], chat_template=False
    )
    out: dict[str, Any] = {}
    for name in sets:
        values = np.array([-s.mean_logp for s in found.scored(name)])
        inside = bootstrap_mean(values)
        out[name] = {"nll": float(values.mean()), "low": inside.low, "high": inside.high, "n": len(values)}
    tokens = np.concatenate([s.logp for s in found.scored("texts")])
    return out | {"perplexity": math.exp(-float(tokens.mean(dtype=np.float64)))}


def shares(model: Any, batch: dict[str, torch.Tensor], layer: int) -> float:
    """Operations of a forward pass up to ``layer`` over those of a whole one."""
    with torch.no_grad(), FlopCounterMode(display=False) as whole:
        model(**batch)
    with torch.no_grad(), FlopCounterMode(display=False) as cut:
        hidden_after(model, batch, layer)
    return cut.get_total_flops() / whole.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("misdirection"))
    parser.add_argument("--layer", type=int, default=7)
    parser.add_argument("--coefficients", default="4")
    parser.add_argument("--alphas", default="100,1200")
    parser.add_argument("--gammas", default="0.00125,0.01")
    parser.add_argument("--rows", type=int, default=100, help="rows of each set that are measured")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings of a run")
    args = parser.parse_args()

    every = questions(args.questions)
    forget, retain = every[::2], pieces(args.texts / "valid.txt", 400)
    sets = {
        "trained": evenly(forget, args.rows),
        "held_out": evenly(every[1::2], args.rows),
        "texts": pieces(args.texts / "test.txt", args.rows),
    }
    target = models.load(args.model)
    tokens = target.tokenizer(
        [r.answer for r in sets["texts"][:4]], return_tensors="pt", truncation=True, max_length=128
    )
    batch = {k: tokens[k] for k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        length = float(hidden_after(target.model, batch, args.layer).norm(dim=1).median())
    print(f"share of a forward pass up to layer {args.layer}: {shares(target.model, batch, args.layer):.3f}")
    print(f"median length of an activation there: {length:.2f}")
    results = {"target": measure(target.model, target.tokenizer, sets)}
    say("target", results["target"])

    trials: list[tuple[str, str, dict[str, Any]]] = []
    for c in map(float, args.coefficients.split(",")):
        own = {"layer": args.layer, "steering_coefficient": c * length}
        trials += [(f"rmu c={c:g} α={a}", "rmu", own | {"retain_weight": a}) for a in args.alphas.split(",") if a]
        trials += [(f"blur_rmu c={c:g} γ={g}", "blur_rmu", own | {"gamma": g}) for g in args.gammas.split(",") if g]
    chosen = dict(s.split("=", 1) for s in args.settings)
    given = [{"prompt": r.prompt, "completion": r.answer} for r in forget], [{"text": r.answer} for r in retain]
    for name, method, parameters in trials:
        settings = {"parameters": parameters, "chat_template": False, "eval_rows": 8} | chosen
        folder = args.out / name.replace(" ", "_")
        run = unlearn(
            args.model, forget=given[0], retain=given[1], method=method, out=folder, overwrite=True, **settings
        )
        results[name] = measure(run.model, run.tokenizer, sets) | {"seconds": run.record["seconds"]}
        say(name, results[name])
        (args.out / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False))


def say(name: str, found: dict[str, Any]) -> None:
    """One line of the table."""
    parts = [(s, found[s]) for s in ("trained", "held_out")]
    nll = "  ".join(f"{s} {v['nll']:.3f} ({v['low']:.3f} to {v['high']:.3f})" for s, v in parts)
    print(f"{name}: {nll}  perplexity {found['perplexity']:.2f}", flush=True)


if __name__ == "__main__":
    main()
