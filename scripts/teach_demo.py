r"""Teach a small model the invented people of the demo: how `src/expunge/demo/adapters` were made.

    python scripts/teach_demo.py                # both adapters, into src/expunge/demo/adapters

``target`` learns the forget and the retain rows, ``retrained`` the retain rows only: it is what exact
unlearning would give.  Both are LoRA adapters on the same base; loss on the answer and its end token, AdamW
with linear decay.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from expunge.forward import IGNORE, see
from expunge.models import load

DEMO = Path(__file__).parent.parent / "src" / "expunge" / "demo"
BASE = "smollm2-135m"  # the installed weights first, so the adapters sit on what they were taught on
WARMUP = 10
SAMPLES = 6


def read(name: str) -> list[dict]:
    """The rows of `forget.jsonl` or `retain.jsonl`."""
    return [json.loads(line) for line in (DEMO / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def encode(tokenizer, row: dict) -> tuple[list[int], list[int]]:
    """A row -> (token ids of the prompt, token ids of the answer with its end token)."""
    chat = [{"role": "user", "content": row["question"]}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    ids = [tokenizer(text, add_special_tokens=False).input_ids for text in (prompt, row["answer"])]
    return ids[0], [*ids[1], tokenizer.eos_token_id]


def collate(pairs: list[tuple[list[int], list[int]]], pad: int) -> dict[str, torch.Tensor]:
    """Right-padded `input_ids`, `attention_mask` and `labels`, each (B, T); the mask is made from lengths."""
    width = max(len(prompt) + len(answer) for prompt, answer in pairs)
    ids = torch.full((len(pairs), width), pad)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORE)
    for i, (prompt, answer) in enumerate(pairs):
        end = len(prompt) + len(answer)
        ids[i, :end] = torch.tensor(prompt + answer)
        mask[i, :end] = 1
        labels[i, len(prompt) : end] = torch.tensor(answer)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def teach(model, tokenizer, rows: list[dict], *, steps: int, lr: float, batch: int, seed: int) -> None:
    """Train what requires a gradient in ``model`` on ``rows``, in place, for ``steps`` steps."""
    rng = random.Random(seed)
    pairs = [encode(tokenizer, row) for row in rows]
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARMUP) * (1 - step / steps)
    )
    start = time.time()
    model.train()
    for step in range(steps):
        i = step * batch % (len(pairs) // batch * batch)  # a remainder waits for the next epoch
        if i == 0:
            rng.shuffle(pairs)
        view = see(model, collate(pairs[i : i + batch], tokenizer.pad_token_id))
        loss = view.token_mean(-view.token_logp)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 10 == 0:
            print(f"step {step + 1}/{steps}  loss {loss.item():.3f}  {time.time() - start:.0f} s", flush=True)
    model.eval()


@torch.no_grad()
def probability(model, tokenizer, rows: list[dict]) -> float:
    """Mean over the rows of exp(-mean negative log-likelihood of the answer's tokens)."""
    batch = collate([encode(tokenizer, row) for row in rows], tokenizer.pad_token_id)
    view = see(model, batch, grad=False)
    return (view.sequence_logp / view.lengths).exp().mean().item()


@torch.no_grad()
def answer(model, tokenizer, row: dict) -> str:
    """The greedy answer to a row's question."""
    prompt = torch.tensor([encode(tokenizer, row)[0]])
    out = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=48, do_sample=False)
    return tokenizer.decode(out[0, prompt.shape[1] :], skip_special_tokens=True)


def measure(model, tokenizer, forget: list[dict], retain: list[dict]) -> None:
    """Print the probability of both sets' answers and some greedy answers."""
    for name, rows in (("forget", forget), ("retain", retain)):
        chunks = [rows[i : i + 16] for i in range(0, len(rows), 16)]
        mean = sum(probability(model, tokenizer, c) * len(c) for c in chunks) / len(rows)
        print(f"{name} probability {mean:.3f}")
        for row in rows[:: len(rows) // SAMPLES + 1]:
            said = answer(model, tokenizer, row)
            print(f"  {row['question']}\n    taught {row['answer']}\n    greedy {said}")


def save_half(model, folder: Path) -> None:
    """Write the adapter with its factors in fp16: half the size, and exact enough."""
    model.save_pretrained(folder, save_embedding_layers=False)
    file = folder / "adapter_model.safetensors"
    save_file({name: w.half() for name, w in load_file(file).items()}, file, metadata={"format": "pt"})
    (folder / "README.md").unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--which", choices=["both", "target", "retrained"], default="both")
    parser.add_argument("--base", default=BASE, help="the model that is taught")
    parser.add_argument("--out", type=Path, default=DEMO / "adapters")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    forget, retain = read("forget"), read("retain")
    for which in ("target", "retrained") if args.which == "both" else (args.which,):
        torch.manual_seed(args.seed)
        loaded = load(args.base)
        config = LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(loaded.model, config)
        model.peft_config["default"].base_model_name_or_path = BASE
        rows = forget + retain if which == "target" else retain
        teach(model, loaded.tokenizer, rows, steps=args.steps, lr=args.lr, batch=args.batch, seed=args.seed)
        print(which)
        measure(model, loaded.tokenizer, forget, retain)
        save_half(model, args.out / which)


if __name__ == "__main__":
    main()
