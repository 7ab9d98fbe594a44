"""One decoding step, compiled: on a GPU one recorded graph instead of hundreds of launches."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import torch

from llamakit.runtime.kv_cache import KVCache
from llamakit.runtime.model import Batch, Transformer

PATIENCE = 30.0
"""Seconds of plain decoding after which compiling, which takes about as long, is worth it."""

LEAST = 256
"""The least number of positions that attention looks at."""


class CompiledDecoder:
    """Takes over the steps that have one new id a row.

    Attention looks at the next power of two of positions, the later ones hidden, so that a
    conversation meets few shapes. Batches that are neither one row nor full are left alone: each
    size would be compiled.

    Args:
        patience: seconds of plain decoding before the first compilation.
        backend: torch.compile's.
    """

    def __init__(
        self, model: Transformer, *, patience: float = 0.0, backend: str | Callable[..., Any]
    ) -> None:
        self._patience = patience
        self._spent = 0.0
        self._said = False
        mode = "reduce-overhead" if backend == "inductor" else None
        self._step = torch.compile(
            model.step, backend=backend, dynamic=False, fullgraph=True, mode=mode
        )

    def takes(self, batch: Batch, cache: KVCache) -> bool:
        """Say whether a batch is one of those that are compiled, and the time has come."""
        fits = (
            len(batch.tokens[0]) == 1
            and not batch.every_position
            and batch.slot == 0
            and len(batch.tokens) in (1, cache.slots)
        )
        return fits and self._spent >= self._patience

    def spend(self, seconds: float) -> None:
        """Count time of plain decoding."""
        self._spent += seconds

    def __call__(self, batch: Batch, cache: KVCache, device: torch.device) -> torch.Tensor:
        """Return the logits, ``(B, V)`` float32."""
        started = None if self._said else time.perf_counter()
        stop = visible(max(batch.starts) + 1, cache.length)
        for kept in (cache.keys, cache.values):
            torch._dynamo.mark_static_address(kept)
        tokens = torch.tensor(batch.tokens, device=device)  # (B, 1)
        positions = torch.tensor(batch.starts, device=device)[:, None]  # (B, 1)
        logits: torch.Tensor = self._step(tokens, positions, cache, stop)
        if started is not None:
            self._said = True
            took = time.perf_counter() - started
            logging.getLogger("llamakit").warning("compiled the decoding step in %.0f s", took)
        return logits.clone()  # a recorded graph writes its next result to the same place


def visible(stop: int, length: int) -> int:
    """Return how many positions attention looks at: a power of two that holds ``stop``."""
    return min(length, max(LEAST, 1 << (stop - 1).bit_length()))


def install(model: Transformer, wanted: bool | None) -> None:
    """Have a model's decoding compiled, if that is wanted.

    Args:
        wanted: True from the first step; None on a GPU, once it has decoded for so long that
            compiling pays; False never.
    """
    if wanted or (wanted is None and model.device.type == "cuda"):
        patience = 0.0 if wanted else PATIENCE
        model.decoder = CompiledDecoder(model, patience=patience, backend="inductor")
