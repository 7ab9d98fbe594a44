"""How many threads compute a pass on a CPU: one, where its products are too small for more.

Threads of one product wait for one another at its end. Where a server's event loop and its clients
want the cores too, the thread that is waited for may not have one, so a product has to be larger to
be worth it. What is computed does not depend on the number.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from statistics import mean

import torch
from torch import nn

from llamakit.runtime.kernels.kernel import Kernel

BANDWIDTH = 10e9
"""Bytes of weight a second that one thread multiplies by, about."""
FREE_ROWS = 8
"""So many positions are multiplied in the time that reading the weight takes, about."""
ALONE_SECONDS, SHARED_SECONDS = 100e-6, 400e-6
"""How long a product has to take on one thread for more to be worth it: where the process only
computes, and where it serves."""


class ComputeThreads:
    """The number of threads for the passes of one model.

    ``OMP_NUM_THREADS`` in the environment switches it off.

    Args:
        is_shared: other threads of the process, or other programs, want the cores during a pass.
    """

    def __init__(self, model: nn.Module, *, is_shared: bool) -> None:
        sizes = [it.nbytes for it in model.modules() if isinstance(it, Kernel)]
        self._seconds = mean(sizes) / BANDWIDTH if sizes else 0.0
        self._least = SHARED_SECONDS if is_shared else ALONE_SECONDS
        self._is_on = "OMP_NUM_THREADS" not in os.environ

    def one_is_enough(self, positions: int) -> bool:
        """Return whether a pass of so many positions is computed on one thread."""
        seconds = self._seconds * max(1.0, positions / FREE_ROWS)
        return self._is_on and seconds < self._least

    @contextlib.contextmanager
    def limited(self, positions: int) -> Iterator[None]:
        """Compute the block on as many threads as a pass of so many positions is worth."""
        usual = torch.get_num_threads()
        if usual == 1 or not self.one_is_enough(positions):
            yield
            return
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(usual)
