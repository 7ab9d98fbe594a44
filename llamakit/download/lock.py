"""One download into a folder at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from llamakit.errors import DestinationError


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second llamakit from downloading into the same folder.

    Raises:
        DestinationError: one does.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DestinationError(
                f"another llamakit is downloading into {folder} at this moment: wait for it, or "
                "choose another folder with --output-dir"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)
