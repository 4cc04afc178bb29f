"""sentence-transformers as its own trainer runs it, for the suite `peers`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks import harness
from mipic_llm.data.read.rows import Example

RATE = 2e-5
Gradients = tuple[float, dict[str, torch.Tensor]]  # loss, and gradients by name


def opponent(name: str, dims: Sequence[int], mini: int):
    """-> (model, loss) of sentence-transformers, fp32 weights (bf16: its trainer's autocast)."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import losses

    model = SentenceTransformer(
        name, device="cuda" if harness.on_gpu() else "cpu",
        config_kwargs={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    )  # fmt: skip
    if mini:
        inner = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=mini)
    else:
        inner = losses.MultipleNegativesRankingLoss(model)
    return model, losses.MatryoshkaLoss(model, inner, matryoshka_dims=list(reversed(dims)))


def their_gradients(model, loss, collator, rows, precision: str) -> Gradients:
    """Loss and gradients of sentence-transformers for these rows, as its trainer calls it."""
    columns = collator([_features(row) for row in rows])
    features = []
    for column in ("anchor", "positive", "negative"):
        start = f"{column}_"
        features.append({k.removeprefix(start): v.to(model.device) if hasattr(v, "to") else v
                         for k, v in columns.items() if k.startswith(start)})  # fmt: skip
    model.train()
    with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
        value = loss(features, None)
    value.backward()
    found = {n.split("auto_model.")[-1].removeprefix("0.model."): p.grad.float().clone()
             for n, p in model.named_parameters() if p.grad is not None}  # fmt: skip
    model.zero_grad()
    return value.item(), found


def agree(ours, theirs, limit: float) -> tuple[float, float]:
    """Relative differences of loss and gradient (norm over all weights); SystemExit above limit."""
    (our_loss, our_grads), (their_loss, their_grads) = ours, theirs
    shared = sorted(set(our_grads) & set(their_grads))
    if not shared or len(shared) < len(their_grads):
        raise SystemExit(f"peers: only {len(shared)} of {len(their_grads)} gradients have a pair")
    mine = torch.cat([our_grads[n].flatten().double() for n in shared])
    other = torch.cat([their_grads[n].flatten().double() for n in shared])
    gaps = abs(our_loss / their_loss - 1), ((mine - other).norm() / other.norm()).item()
    if max(gaps) >= limit:
        raise SystemExit(f"peers: loss and gradient differ by {gaps[0]:.1e}, {gaps[1]:.1e}; "
                         "nothing timed")  # fmt: skip
    return gaps


def _features(row: Example) -> dict[str, str]:
    return {"anchor": row.anchor, "positive": row.positive or "", "negative": row.negatives[0]}


class Recorder:
    """Their collator, keeping the rows of each batch and its real and padded tokens."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.waiting, self.useful, self.slots = inner, [], 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, features: list[dict[str, str]]) -> dict[str, Any]:
        self.waiting.append(features)
        made = self.inner(features)
        for key, value in made.items():
            if key.endswith("attention_mask"):
                self.useful += int(value.sum())
                self.slots += value.numel()
        return made


@contextmanager
def alone() -> Iterator[None]:
    """Our one rank's environment hidden: their trainer would wrap its model for several ranks."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_SIZE")
    kept = {n: os.environ.pop(n) for n in names if n in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def their_trainer(model, loss, rows, B: int, steps: int, precision: str, folder: str):
    """-> (SentenceTransformerTrainer, Recorder): its defaults but for what both sides share."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )

    arguments = SentenceTransformerTrainingArguments(
        output_dir=folder, per_device_train_batch_size=B, max_steps=steps,
        learning_rate=RATE, weight_decay=0.01, max_grad_norm=1.0, optim="adamw_torch_fused",
        lr_scheduler_type="constant", save_strategy="no", logging_strategy="no", report_to=[],
        disable_tqdm=True, use_cpu=not harness.on_gpu(), bf16=precision == "bf16", seed=1,
    )  # fmt: skip
    trainer = SentenceTransformerTrainer(
        model=model, args=arguments, loss=loss,
        train_dataset=Dataset.from_list([_features(r) for r in rows]),
    )  # fmt: skip
    recorder = Recorder(trainer.data_collator)
    trainer.data_collator = recorder
    return trainer, recorder
