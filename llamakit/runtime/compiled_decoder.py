"""The decoding step, compiled: on a GPU one CUDA graph instead of hundreds of kernel launches."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from llamakit.files.system_calls import user_id
from llamakit.runtime.kv_cache import KVCache
from llamakit.runtime.model import Batch, Transformer
from llamakit.runtime.warning_filter import ignored_warnings

PATIENCE = 30.0
"""Seconds of plain decoding after which compiling, which takes about as long, is worth it."""

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"

LEAST = 256
"""The least number of positions that attention covers."""


class CompiledDecoder:
    """Runs the decoding steps that have one new token a row, compiled by ``torch.compile``.

    Attention covers the next power of two of positions, with the later ones masked, so that a
    conversation needs few shapes. Only batches of one row and full batches are taken: each size
    is compiled by itself.

    Args:
        patience: seconds of plain decoding before the first compilation.
        backend: torch.compile's.
    """

    def __init__(
        self, model: Transformer, *, patience: float = 0.0, backend: str | Callable[..., Any]
    ) -> None:
        self._patience = patience
        self._spent = 0.0
        self._compiled: set[tuple[int, int]] = set()
        mode = "reduce-overhead" if backend == "inductor" else None
        self._step = torch.compile(
            model.step, backend=backend, dynamic=False, fullgraph=True, mode=mode
        )

    def takes(self, batch: Batch, cache: KVCache) -> bool:
        """Return whether a batch has a compiled shape and compiling pays by now."""
        fits = (
            len(batch.tokens[0]) == 1
            and not batch.every_position
            and batch.slot == 0
            and len(batch.tokens) in (1, cache.slots)
        )
        return fits and self._spent >= self._patience

    def spend(self, seconds: float) -> None:
        """Add to the time spent on uncompiled decoding."""
        self._spent += seconds

    def __call__(self, batch: Batch, cache: KVCache, device: torch.device) -> torch.Tensor:
        """Return the logits, ``(B, V)`` float32."""
        stop = visible(max(batch.starts) + 1, cache.length)
        for tensor in cache.tensors:
            torch._dynamo.mark_static_address(tensor)
        tokens = torch.tensor(batch.tokens, device=device)  # (B, 1)
        positions = torch.tensor(batch.starts, device=device)[:, None]  # (B, 1)
        shape = (len(batch.tokens), stop)
        if shape in self._compiled:
            logits: torch.Tensor = self._step(tokens, positions, cache, stop)
        else:
            logits = self._compile(tokens, positions, cache, stop)
            self._compiled.add(shape)
        return logits.clone()  # a CUDA graph writes its next result to the same memory

    def _compile(
        self, tokens: torch.Tensor, positions: torch.Tensor, cache: KVCache, stop: int
    ) -> torch.Tensor:
        """Run a step of a new shape, which compiles it; the first time is logged."""
        started = time.perf_counter()
        with ignored_warnings(""):  # torch's compiler uses what torch deprecates
            logits: torch.Tensor = self._step(tokens, positions, cache, stop)
        if not self._compiled:
            took = time.perf_counter() - started
            logging.getLogger("llamakit").warning("compiled the decoding step in %.0f s", took)
        return logits


def visible(stop: int, length: int) -> int:
    """Return how many positions attention covers: a power of two, at least ``stop``."""
    return min(length, max(LEAST, 1 << (stop - 1).bit_length()))


def use_private_cache() -> None:
    """Have torch keep what it compiles where no other user can have put anything.

    It loads pickles and libraries from there, and its own choice is a name in ``/tmp`` that
    whoever comes first can take.
    """
    if CACHE_VARIABLE in os.environ:
        return
    folder = Path(tempfile.gettempdir(), f"llamakit-torch-{user_id()}")
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == user_id()
    if not is_own or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        folder = Path(tempfile.mkdtemp(prefix="llamakit-torch-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ[CACHE_VARIABLE] = str(folder)


def install(model: Transformer, wanted: bool | None) -> None:
    """Compile a model's decoding step, now or later.

    Args:
        wanted: True: from the first step. None: on a GPU, after ``PATIENCE`` seconds of decoding.
            False: never.
    """
    if wanted or (wanted is None and model.device.type == "cuda"):
        use_private_cache()
        patience = 0.0 if wanted else PATIENCE
        model.decoder = CompiledDecoder(model, patience=patience, backend="inductor")
