"""Notices that a file has changed while it was read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from llamakit.errors import DamagedFileError

Stamp = tuple[int, int, int, int]
"""Device, inode, size in bytes, and time of the last change in nanoseconds."""


def stamp(status: os.stat_result) -> Stamp:
    """Return what changes when a file is written to, or another one takes its name."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def check_stamp(path: Path, before: Stamp) -> None:
    """Check that a file is what it was.

    Raises:
        DamagedFileError: it has changed, or is gone.
    """
    try:
        now = stamp(path.stat())
    except OSError as error:
        raise DamagedFileError(
            f"{path} cannot be read any more: {error.strerror}; bring it back, and start again."
        ) from None
    if now != before:
        raise DamagedFileError(
            f"{path} has changed while it was read ({_difference(before, now)}); wait until "
            "whatever writes it is done, and start again."
        )


@contextlib.contextmanager
def unchanged(paths: Iterable[Path]) -> Iterator[None]:
    """Check that no file has changed between the begin and the end of a block.

    Args:
        paths: files; one that is not there is passed over.
    Raises:
        DamagedFileError: one has changed.
    """
    before = {path: stamp(path.stat()) for path in paths if path.exists()}
    yield
    for path, status in before.items():
        check_stamp(path, status)


def _difference(before: Stamp, now: Stamp) -> str:
    if before[:2] != now[:2]:
        return "another file has its name"
    if before[2] != now[2]:
        return f"it had {before[2]} bytes and has {now[2]}"
    return "it has been written to"
