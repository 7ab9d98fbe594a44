"""A third-party sampler that generates a given text at a given speed."""

from __future__ import annotations

import time
from typing import Literal

from llamakit import hookimpl


def says(
    tokenizer,
    text: str = "Quite so.",
    pause: float = 0.0,
    ending: Literal["stop", "again"] = "stop",
):
    """Write ``text``, whatever the model thinks.

    Args:
        text: what to write.
        pause: seconds before each token.
        ending: what comes after it.
    """
    import torch

    tokens = tokenizer.encode(text.replace("\\n", "\n"))
    end = [tokenizer.eos_id] if ending == "stop" else []

    def sample(logits, rows):
        time.sleep(pause)
        written = [len(row.tokens) - row.prompt_length for row in rows]
        chosen = [(tokens + end)[count % len(tokens + end)] for count in written]
        return torch.tensor(chosen, device=logits.device)

    return sample


@hookimpl
def register_samplers(samplers):
    """Offer ``says``."""
    samplers.register("says", says, help="a given text")
