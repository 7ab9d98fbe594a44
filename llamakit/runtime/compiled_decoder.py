"""The decoding step, compiled: on a GPU one CUDA graph, on a CPU fused loops of C++."""

from __future__ import annotations

import atexit
import contextlib
import copy
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
    conversation needs few shapes. Each number of rows is compiled by itself: on a GPU one row and
    full batches; on a CPU powers of two, to which other batches are padded.

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
        self._cache: KVCache | None = None  # whose layers are in _by_layer
        self._by_layer: KVCache | None = None
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
            and (cache.device.type == "cpu" or len(batch.tokens) in (1, cache.slots))
        )
        return fits and self._spent >= self._patience

    def spend(self, seconds: float) -> None:
        """Add to the time spent on uncompiled decoding."""
        self._spent += seconds

    def __call__(self, batch: Batch, cache: KVCache, device: torch.device) -> torch.Tensor:
        """Return the logits, ``(B, V)`` float32."""
        rows, stop = len(batch.tokens), visible(max(batch.starts) + 1, cache.length)
        size = rows if device.type != "cpu" else padded(rows, cache.slots)
        missing = size - rows
        counted = None
        if size > 1 and device.type == "cpu":
            counted = torch.arange(size)[:, None] < rows  # (B, 1)
        tokens = torch.tensor((*batch.tokens, *[(0,)] * missing), device=device)  # (B, 1)
        starts = (*batch.starts, *[0] * missing)
        positions = torch.tensor(starts, device=device)[:, None]  # (B, 1)
        arguments = tokens, positions, self._prepared(cache), stop, counted
        shape = (size, stop)
        if shape in self._compiled:
            logits: torch.Tensor = self._step(*arguments)
        else:
            logits = self._compile(*arguments)
            self._compiled.add(shape)
        if device.type == "cpu":
            return logits[:rows]
        return logits.clone()  # a CUDA graph writes its next result to the same memory

    def _prepared(self, cache: KVCache) -> KVCache:
        """Return the cache as the step takes it: on a CPU the layers are tensors of their own.

        Of one tensor with all layers, the compiled step copies the whole for each layer it writes.
        """
        if cache.device.type != "cpu":
            for tensor in cache.tensors:
                torch._dynamo.mark_static_address(tensor)
            return cache
        if self._cache is not cache or self._by_layer is None:
            by_layer: Any = copy.copy(cache)
            by_layer.tensors = tuple(it.unbind() for it in cache.tensors)
            self._cache, self._by_layer = cache, by_layer
        return self._by_layer

    def _compile(self, *arguments: Any) -> torch.Tensor:
        """Run a step of a new shape, which compiles it; the first time is logged."""
        started = time.perf_counter()
        with ignored_warnings(""):  # torch's compiler uses what torch deprecates
            logits: torch.Tensor = self._step(*arguments)
        if not self._compiled:
            took = time.perf_counter() - started
            logging.getLogger("llamakit").warning("compiled the decoding step in %.0f s", took)
        return logits


def visible(stop: int, length: int) -> int:
    """Return how many positions attention covers: a power of two, at least ``stop``."""
    return min(length, max(LEAST, 1 << (stop - 1).bit_length()))


def padded(rows: int, slots: int) -> int:
    """Return how many rows a batch is padded to on a CPU: a power of two, at most all slots."""
    return min(slots, 1 << (rows - 1).bit_length())


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
    if wanted and model.device.type == "cpu" and not _has_compiler():
        logging.getLogger("llamakit").warning("no C++ compiler found: the step is not compiled")
        return
    if wanted or (wanted is None and model.device.type == "cuda"):
        use_private_cache()
        patience = 0.0 if wanted else PATIENCE
        model.decoder = CompiledDecoder(model, patience=patience, backend="inductor")


def _has_compiler() -> bool:
    """Return whether torch finds a C++ compiler."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        return bool(shutil.which(get_cpp_compiler()))
    except InvalidCxxCompiler:
        return False
