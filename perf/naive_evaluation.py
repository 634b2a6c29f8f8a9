"""TOFU measured as the published evaluations do it, kept as the baseline that `perf.evaluation` is a ratio of.

Each metric has a pass of its own over the model, in one batch size, rows in the order of the file, logits of every position
and the loss that the model computes of its labels; a question's right, paraphrased and wrong answers each carry their
prompt; answers come from ``generate``.  Every number is worked out here from scratch, so that two pieces of code which
share nothing but the tokens agree on it.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import ks_2samp
from torch import Tensor, nn
from torch.nn import functional

from expunge.data.chat import encode, prompt_ids
from expunge.data.example import Row

BATCH = 32  # of the published evaluation's settings
NEW = 200
Rows = Sequence[Row]
Texts = Sequence[str]


class Naive:
    """A model, its tokenizer and the seconds that each metric took."""

    def __init__(self, model: nn.Module, tokenizer: Any, batch: int = BATCH):
        self.model, self.tokenizer, self.batch = model.eval(), tokenizer, batch
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, f: Callable[[], Any]) -> Any:
        """``f()``, its seconds added to ``name``."""
        began = time.perf_counter()
        value = f()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
        return value

    def _batches(self, rows: Rows, texts: Texts) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        pad = self.tokenizer.pad_token_id
        for start in range(0, len(rows), self.batch):
            some = [
                encode(r, self.tokenizer, answer=t)
                for r, t in zip(rows[start : start + self.batch], texts[start : start + self.batch], strict=True)
            ]
            width = max(len(e.input_ids) for e in some)
            ids = torch.tensor([[*e.input_ids, *[pad] * (width - len(e.input_ids))] for e in some])
            labels = torch.tensor([[*e.labels, *[-100] * (width - len(e.labels))] for e in some])
            mask = torch.tensor([[1] * len(e.input_ids) + [0] * (width - len(e.input_ids)) for e in some])
            yield ids, labels, mask

    @torch.no_grad()
    def _tokens(self, rows: Rows, texts: Texts, read: Callable[[Tensor, Tensor], Tensor]) -> list[np.ndarray]:
        """``read(logits, next tokens)`` (T,) at the labelled tokens of each text: one whole pass."""
        out = []
        for ids, labels, mask in self._batches(rows, texts):
            logits = self.model(input_ids=ids, attention_mask=mask, labels=labels).logits[:, :-1].float()
            values = read(logits, ids[:, 1:])
            out += [v[y != -100].numpy().astype(np.float64) for v, y in zip(values, labels[:, 1:], strict=True)]
        return out

    def mean_logp(self, rows: Rows, texts: Texts) -> np.ndarray:
        """(n,) mean log-probability of the labelled tokens."""

        def read(logits: Tensor, y: Tensor) -> Tensor:
            return -functional.cross_entropy(logits.transpose(1, 2), y, reduction="none")

        return np.array([v.mean() for v in self._tokens(rows, texts, read)])

    def hits(self, rows: Rows, texts: Texts) -> list[np.ndarray]:
        """Whether the likeliest token is right, the end-of-turn token left out."""
        return [v[:-1] for v in self._tokens(rows, texts, lambda z, y: z.argmax(-1) == y)]

    def token_logp(self, rows: Rows, texts: Texts) -> list[np.ndarray]:
        """Token log-probabilities from a whole log-softmax."""
        return self._tokens(rows, texts, lambda z, y: z.log_softmax(-1).gather(-1, y.unsqueeze(-1)).squeeze(-1))

    def standard_logp(self, rows: Rows, texts: Texts) -> list[np.ndarray]:
        """Min-K++: token log-probabilities less their mean over the vocabulary, over their deviation."""

        def read(logits: Tensor, y: Tensor) -> Tensor:
            logp = logits.log_softmax(-1)
            p = logp.exp()
            mean = (p * logp).sum(-1)
            variance = (p * (logp - mean.unsqueeze(-1)).square()).sum(-1)
            return (logp.gather(-1, y.unsqueeze(-1)).squeeze(-1) - mean) / variance.clamp(min=1e-6).sqrt()

        return self._tokens(rows, texts, read)

    def grad_norms(self, rows: Rows) -> np.ndarray:
        """(n,) mean over parameters of the gradient norm, one row at a time."""
        out = []
        for row in rows:
            example = encode(row, self.tokenizer)
            labels = torch.tensor([example.labels])
            labels[0, -1] = -100
            self.model.requires_grad_(True).zero_grad()
            self.model(input_ids=torch.tensor([example.input_ids]), labels=labels).loss.backward()
            out.append(
                torch.stack([p.grad.norm() for p in self.model.parameters() if p.grad is not None]).mean().item()
            )
        self.model.zero_grad()
        return np.array(out)

    @torch.no_grad()
    def answers(self, rows: Rows) -> list[str]:
        """Greedy answers in the order of the rows."""
        out = []
        for start in range(0, len(rows), self.batch):
            prompts = [prompt_ids(r, self.tokenizer) for r in rows[start : start + self.batch]]
            width = max(map(len, prompts))
            pad = self.tokenizer.pad_token_id
            ids = torch.tensor([[*[pad] * (width - len(p)), *p] for p in prompts])
            mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
            made = self.model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False, pad_token_id=pad
            )
            out += [t.strip() for t in self.tokenizer.batch_decode(made[:, width:], skip_special_tokens=True)]
        return out

    def rouge(self, rows: Rows) -> dict[str, float]:
        """ROUGE-1 and ROUGE-L recall of the greedy answers."""
        scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
        scores = [scorer.score(r.answer, g) for r, g in zip(rows, self.answers(rows), strict=True)]
        return {k: float(np.mean([s[k].recall for s in scores])) for k in ("rouge1", "rougeL")}

    def truth_ratio(self, rows: Rows, right: Texts) -> np.ndarray:
        """(n,) wrong over right, a pass for the right answers and one for each wrong one."""
        ours = np.exp(self.mean_logp(rows, right))
        theirs = np.exp(np.mean(self._wrong(rows), axis=0))
        return theirs / ours

    def share(self, rows: Rows) -> np.ndarray:
        """(n,) probability of the right answer among all that are offered."""
        right = np.exp(self.mean_logp(rows, [r.answer for r in rows]))
        return right / (right + np.exp(self._wrong(rows)).sum(0))

    def _wrong(self, rows: Rows) -> list[np.ndarray]:
        return [self.mean_logp(rows, [r.perturbed[j] for r in rows]) for j in range(len(rows[0].perturbed))]


def tofu(naive: Naive, sets: Mapping[str, Rows], retrained: Mapping[str, np.ndarray]) -> dict[tuple[str, str], float]:
    """Every figure of ``expunge bench tofu/forget01``, by (part, name).

    ``sets``: forget, holdout, retain, real_authors, world_facts.  ``retrained``: its ``truth_ratio`` (n,) of the
    forget set, its ``min_k_auc``, and ``nll_forget``, ``nll_holdout`` (n,): known before, as a published log.
    """
    out: dict[tuple[str, str], float] = {}
    forget = sets["forget"]
    own = [r.answer for r in forget]
    t = naive.timed
    out["forget", "probability"] = t("probability", lambda: np.exp(naive.mean_logp(forget, own)).mean())
    rouge = t("rouge", lambda: naive.rouge(forget))
    out["forget", "rouge_l_recall"], out["forget", "rouge_1_recall"] = rouge["rougeL"], rouge["rouge1"]
    ratio = t("truth_ratio", lambda: naive.truth_ratio(forget, [r.paraphrase or "" for r in forget]))
    paraphrases = [r.paraphrase or "" for r in forget]
    out["forget", "paraphrased_probability"] = t(
        "paraphrased_probability", lambda: np.exp(naive.mean_logp(forget, paraphrases)).mean()
    )
    out["forget", "truth_ratio"] = np.minimum(ratio, 1 / ratio).mean()
    out["forget", "truth_ratio_true_better"] = np.maximum(0, 1 - ratio).mean()
    out["forget", "knowledge"] = (1 / (1 + ratio)).mean()
    out["forget", "exact_memorisation"] = t(
        "exact_memorisation", lambda: np.mean([h.mean() for h in naive.hits(forget, own)])
    )
    hits = t("extraction_strength", lambda: naive.hits(forget, own))
    out["forget", "extraction_strength"] = np.mean([1 - _miss(h) / len(h) for h in hits])
    out["forget", "extraction_strength_compat"] = np.mean([1 - min(_miss(h), len(h) - 1) / len(h) for h in hits])
    nine = []
    for part in ("retain", "real_authors", "world_facts"):
        rows = sets[part]
        answers = [r.answer for r in rows]
        if part == "retain":
            p = t("probability", lambda rows=rows, a=answers: np.exp(naive.mean_logp(rows, a)))
        else:
            p = t("probability", lambda rows=rows: naive.share(rows))
        right = [r.paraphrase or r.answer for r in rows]
        r = t("truth_ratio", lambda rows=rows, right=right: naive.truth_ratio(rows, right))
        out[part, "probability"], out[part, "truth_ratio"] = p.mean(), np.maximum(0, 1 - r).mean()
        out[part, "rouge"] = t("rouge", lambda rows=rows: naive.rouge(rows))["rougeL"]
        nine += [out[part, name] for name in ("probability", "truth_ratio", "rouge")]
    out["all", "model_utility"] = 9 / sum(1 / v for v in nine) if all(nine) else 0.0
    for name, score in _attacks(naive, retrained).items():
        seen, unseen = (t(f"mia_{name}", lambda k=k, f=score: f(k, sets[k])) for k in ("forget", "holdout"))
        out["forget", f"mia_{name}_auc"] = np.mean([[(u > s) + 0.5 * (u == s) for u in unseen] for s in seen])
        out["forget", f"mia_{name}_tpr_at_1_percent"] = _tpr(seen, unseen)
    zero = 1 - float(retrained["min_k_auc"])
    out["forget", "privleak"] = (1 - out["forget", "mia_min_k_auc"] - zero) / zero * 100
    out["forget", "forget_quality"] = ks_2samp(ratio, retrained["truth_ratio"]).pvalue
    return {k: float(v) for k, v in out.items()}


def _attacks(naive: Naive, retrained: Mapping[str, np.ndarray]) -> dict[str, Callable[[str, Rows], list[float]]]:
    """Name -> a score of each row, higher for texts never seen; a pass each."""

    def texts(rows: Rows) -> list[str]:
        return [r.answer for r in rows]

    def loss(_: str, rows: Rows) -> list[float]:
        return [-v.mean() for v in naive.token_logp(rows, texts(rows))]

    def per_byte(k: str, rows: Rows) -> list[float]:
        return [v / len(zlib.compress(r.answer.encode())) for v, r in zip(loss(k, rows), rows, strict=True)]

    return {
        "loss": loss,
        "zlib": per_byte,
        "min_k": lambda _, rows: [_lowest(v[:-1]) for v in naive.token_logp(rows, texts(rows))],
        "min_k_plus_plus": lambda _, rows: [_lowest(v[:-1]) for v in naive.standard_logp(rows, texts(rows))],
        "grad_norm": lambda _, rows: list(naive.grad_norms(rows)),
        "reference": lambda k, rows: list(np.array(loss(k, rows)) - retrained[f"nll_{k}"]),
    }


def _lowest(values: np.ndarray) -> float:
    return -float(np.mean(sorted(values)[: max(1, int(0.4 * len(values)))]))


def _miss(hits: np.ndarray) -> int:
    """How many tokens there are up to the last one that greedy decoding gets wrong."""
    k = len(hits)
    while k > 0 and hits[k - 1]:
        k -= 1
    return k


def _tpr(seen: Sequence[float], unseen: Sequence[float]) -> float:
    """Share of members found at the lowest threshold that takes at most 1 % of the non-members for members."""
    return max(
        np.mean(np.array(seen) <= t) if np.mean(np.array(unseen) <= t) <= 0.01 else 0.0 for t in {*seen, *unseen}
    )
