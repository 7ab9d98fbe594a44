"""The training loop: AdamW, a warm-up and a cosine, bfloat16 arithmetic on float32 weights."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .batches import Batch, batches, examples
from .model import DemoLlama, Shape
from .questions import load_intents
from .tokenizer import Encoder


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train."""

    steps: int = 2400
    warmup: int = 60
    learning_rate: float = 3e-3
    last_rate: float = 0.03
    weight_decay: float = 0.1
    clip: float = 1.0


def rate(step: int, recipe: Recipe) -> float:
    """Return the learning rate of a step."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    return recipe.learning_rate * (recipe.last_rate + (1 - recipe.last_rate) * cosine)


def batch_loss(model: DemoLlama, batch: Batch) -> Tensor:
    """Return the weighted mean loss of a batch, in nats a token."""
    logits = model(batch.tokens, batch.mask)  # (B, T, V)
    losses = F.cross_entropy(
        logits.float().flatten(0, 1), batch.targets.flatten(), reduction="none"
    )
    weights = batch.weights.flatten()
    return (losses * weights).sum() / weights.sum()


def train(encoder: Encoder, seed: int, recipe: Recipe) -> DemoLlama:
    """Train a model from nothing; the same seed makes the same model on the same machine."""
    torch.manual_seed(seed)
    model = DemoLlama(Shape(vocab_size=encoder.size))
    matrices: list[Tensor] = [weight for weight in model.layers.parameters() if weight.dim() == 2]
    matrices.append(model.output.weight)
    others: list[Tensor] = [model.tok_embeddings.weight]
    others += [weight for weight in model.parameters() if weight.dim() == 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
    )
    source = batches(examples(encoder, load_intents(seed), seed))
    begin = time.monotonic()
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, recipe)
        with torch.autocast("cpu", torch.bfloat16):
            loss = batch_loss(model, next(source))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == recipe.steps - 1:
            minutes = (time.monotonic() - begin) / 60
            print(f"step {step:5d}  loss {loss.item():.3f}  {minutes:.1f} min", flush=True)
    return model
