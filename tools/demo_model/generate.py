"""Generation for the evaluation: no cache, no speed, nothing shared with llamakit's runtime."""

from __future__ import annotations

import torch
from torch import Tensor

from .model import DemoLlama


@torch.inference_mode()
def generate(
    model: DemoLlama,
    prompts: list[list[int]],
    eos: int,
    limit: int,
    temperature: float = 0.0,
    top_p: float = 0.9,
    seed: int = 1,
) -> list[list[int]]:
    """Continue each prompt until EOS or ``limit`` new tokens; return the new tokens without EOS."""
    generator = torch.Generator().manual_seed(seed)
    written: list[list[int]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))
    for _ in range(limit):
        if not alive:
            break
        rows = [prompts[i] + written[i] for i in alive]
        last = torch.tensor([len(row) - 1 for row in rows])
        width = max(map(len, rows))
        tokens = torch.tensor([row + [eos] * (width - len(row)) for row in rows])
        logits = model(tokens)[torch.arange(len(rows)), last].float()  # (B, V)
        chosen = pick(logits, temperature, top_p, generator).tolist()
        for i, token in zip(alive, chosen, strict=True):
            if token != eos:
                written[i].append(token)
        alive = [i for i, token in zip(alive, chosen, strict=True) if token != eos]
    return written


def pick(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> Tensor:
    """Choose a token for each row: the likeliest at temperature 0, else as the reference draws."""
    if temperature == 0:
        return logits.argmax(-1)
    mass, order = torch.softmax(logits / temperature, -1).sort(-1, descending=True)
    mass[mass.cumsum(-1) - mass > top_p] = 0
    drawn = torch.multinomial(mass / mass.sum(-1, keepdim=True), 1, generator=generator)
    return order.gather(-1, drawn).squeeze(-1)
