"""A tiny Llama and rows of random tokens of unequal length, for tests that need a real model's shape."""

from __future__ import annotations

import tempfile
from functools import partial
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from expunge.data.collate import collate
from expunge.data.example import Example
from expunge.data.streams import PairedDataset
from expunge.method import Method
from expunge.training.trainer import UnlearningTrainer

V = 32


def model(seed: int = 0, **config: Any) -> LlamaForCausalLM:
    torch.default_generator.manual_seed(seed)  # not the seeds of devices that are not there
    sizes = {"vocab_size": V, "hidden_size": 16, "intermediate_size": 32, "max_position_embeddings": 256}
    sizes["num_hidden_layers"] = 2
    return LlamaForCausalLM(
        LlamaConfig(
            num_attention_heads=2,
            num_key_value_heads=2,
            pad_token_id=0,
            eos_token_id=0,
            bos_token_id=1,
            **(sizes | config),
        )
    )


def never_taught() -> LlamaForCausalLM:
    """The model that gives the level: another one, of more skewed probabilities, so that tokens lie on both sides."""
    other = model(seed=1)
    with torch.no_grad():
        other.lm_head.weight.mul_(4)
    return other


def example(seed: int, prompt: int | None = None) -> Example:
    """4 to 12 tokens, 1 to 4 of them prompt; the last token is the end-of-turn token 0, which is also the pad token."""
    g = torch.Generator().manual_seed(seed)
    length = int(torch.randint(5, 13, (1,), generator=g))
    cut = int(torch.randint(1, 5, (1,), generator=g)) if prompt is None else prompt
    ids = [*torch.randint(1, V, (length - 1,), generator=g).tolist(), 0]
    return Example(tuple(ids), tuple([-100] * cut + ids[cut:]))


def examples(start: int, n: int) -> list[Example]:
    return [example(start + i) for i in range(n)]


def paired(n: int = 8, window: int = 4) -> PairedDataset:
    streams = {"forget": examples(0, n), "retain": examples(1000, n + 3), "alternate": examples(2000, n)}
    return PairedDataset(streams, seed=0, window=window)


def arguments(out: str | None = None, **kw: Any) -> TrainingArguments:
    defaults: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "max_steps": 3,
        "learning_rate": 0.1,
        "max_grad_norm": 0.0,
        "optim": "sgd",
        "lr_scheduler_type": "constant",
        "use_cpu": True,
        "report_to": [],
        "remove_unused_columns": False,
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
    }
    nowhere = f"{tempfile.gettempdir()}/expunge-tests"  # nothing is saved there
    return TrainingArguments(output_dir=out or nowhere, **(defaults | kw))


def trainer(method: Method, m: Any = None, data: PairedDataset | None = None, out: str | None = None, **kw: Any):
    return UnlearningTrainer(
        model=m or model(),
        args=arguments(out, **kw),
        train_dataset=data or paired(),
        data_collator=partial(collate, pad_id=0),
        method=method,
        level=never_taught if method.reads_level else None,
    )


def batch(rows: list[Example]) -> dict[str, torch.Tensor]:
    return collate([{"input_ids": r.input_ids, "labels": r.labels, "index": i} for i, r in enumerate(rows)], pad_id=0)


def break_loss(monkeypatch: Any, at: int) -> None:
    """Make the forget loss of optimizer step ``at`` infinite, as a method's formula may."""
    whole = UnlearningTrainer.objective_loss

    def loss(self: Any, name: str, model: Any, inputs: Any) -> torch.Tensor:
        value = whole(self, name, model, inputs)
        return value / 0 if name == "forget" and self.state.global_step + 1 == at else value

    monkeypatch.setattr(UnlearningTrainer, "objective_loss", loss)


def delta(a: Any, b: Any) -> torch.Tensor:
    """The flat difference of two models' parameters."""
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return torch.cat([(p.detach() - q.detach()).flatten() for p, q in pairs])


def assert_same_steps(got: torch.Tensor, wanted: torch.Tensor, method: Method, *, atol: float, rtol: float) -> None:
    """Two trained differences are equal to rounding; under Sophia all but a few of the coordinates.

    Its step divides by the curvature, so a coordinate with next to no gradient and no curvature goes by its rounding: under
    one in two hundred may, and all together must point the same way.
    """
    if not method.optimizer:
        return torch.testing.assert_close(got, wanted, atol=atol, rtol=rtol)
    off = (got - wanted).abs() > atol + rtol * wanted.abs()
    assert off.float().mean() < 0.005, f"{int(off.sum())} of {off.numel()} coordinates differ"
    assert (got - wanted).norm() < 0.01 * wanted.norm()
