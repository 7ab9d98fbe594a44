"""Ctrl-C, deferred while it would do harm."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


def import_torch() -> None:
    """Import torch with Ctrl-C deferred: raised inside its C++ start-up it would end in SIGABRT."""
    with deferred_interrupt():
        import torch.distributed  # noqa: F401


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[None]:
    """Defer Ctrl-C to the end of the block. Only the main thread gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    deferred: list[tuple[int, FrameType | None]] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: deferred.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if deferred and callable(before):
            before(*deferred[0])
