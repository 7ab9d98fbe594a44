"""Notices that a file has changed while it was read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from llamakit.errors import DamagedFileError


class Stamp(NamedTuple):
    """What of a file changes when it is written to, or another one takes its name."""

    device: int
    inode: int
    nbytes: int
    mtime_ns: int
    """When it was written to last, in nanoseconds."""


def stamp(status: os.stat_result) -> Stamp:
    """Take the stamp of a file from what the system says of it."""
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def check_stamp(path: Path, before: Stamp) -> None:
    """Check that a file is what it was when it was opened.

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
            f"{path} has changed since it was opened ({_difference(before, now)}); wait until "
            "whatever writes it is done, and start again."
        )


def stamps(paths: Iterable[Path]) -> dict[Path, Stamp]:
    """Take the stamps of files; one that is not there is passed over."""
    return {path: stamp(path.stat()) for path in paths if path.exists()}


@contextlib.contextmanager
def unchanged(before: Mapping[Path, Stamp]) -> Iterator[None]:
    """Check that files are what they were, at the begin and the end of a block.

    Raises:
        DamagedFileError: one has changed, or is gone.
    """
    _check_stamps(before)
    yield
    _check_stamps(before)


def _check_stamps(before: Mapping[Path, Stamp]) -> None:
    for path, status in before.items():
        check_stamp(path, status)


def _difference(before: Stamp, now: Stamp) -> str:
    if before[:2] != now[:2]:
        return "another file has its name"
    if before.nbytes != now.nbytes:
        return f"it had {before.nbytes} bytes and has {now.nbytes}"
    return "it has been written to"
