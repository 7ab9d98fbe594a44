"""Measures kernels in turns, so that a machine's swings reach all of them alike."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from llamakit.errors import PluginError
from llamakit.plugin_manager.registry import Entry
from llamakit.runtime.kernels.kernel import Kernel
from llamakit.runtime.kernels.registered import pack
from llamakit.runtime.kernels.rounded import Weight
from llamakit.runtime.kernels.trial import copied

Product = Callable[[torch.Tensor], torch.Tensor]

COPIES = 4
"""Weights multiplied in turn; before each turn the processor's cache is filled with others."""


def packed_copies(entry: Entry, weight: Weight, dtype: torch.dtype) -> list[Kernel]:
    """Pack copies of a weight; none if the kernel does not take it."""
    packed = (pack(entry, copied(weight), dtype) for _ in range(COPIES))
    return [kernel for kernel in packed if kernel is not None]


@torch.inference_mode()
def quickest_tenths(
    kernels: Mapping[str, Sequence[Product]],
    x: torch.Tensor,
    seconds: float,
    leave_out: Callable[[str, PluginError], object] | None = None,
) -> dict[str, float]:
    """Return the seconds of one call of each kernel, the quickest tenth.

    Args:
        kernels: the products of copies of each, by its name; one that fails is left out.
        seconds: for all of them together.
        leave_out: told of one that fails; None: the error is raised.
    """
    taken: dict[str, list[float]] = {name: [] for name in kernels}
    empty, end, turn = empty_cache(), time.perf_counter() + seconds, 0
    while time.perf_counter() < end or turn < 2 * COPIES:
        if turn % COPIES == 0:
            empty()
        for name in random.sample(list(taken), len(taken)):
            try:
                start = time.perf_counter()
                kernels[name][turn % COPIES](x)
                taken[name].append(time.perf_counter() - start)
            except PluginError as error:
                if leave_out is None:
                    raise
                leave_out(name, error)
                del taken[name]
        turn += 1
    return {name: sorted(them)[len(them) // 10] for name, them in taken.items()}


def empty_cache() -> Callable[[], object]:
    """Return what reads as much memory as the processor's largest cache holds."""
    others = torch.ones(cache_size() // 8 + 1, dtype=torch.int64)
    return others.sum


def cache_size(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Return the bytes of the processor's largest cache, 0 where the system does not say."""
    sizes = [0]
    for path in folder.glob("index*/size"):
        with contextlib.suppress(OSError, ValueError):
            sizes.append(int(path.read_text().strip().removesuffix("K")) << 10)
    return max(sizes)
