"""Errors of disks, which name their file."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from llamakit.errors import NoSpaceError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_full_disk(error: BaseException) -> bool:
    """Tell whether a disk, a quota or the largest size of a file is reached."""
    return isinstance(error, OSError) and error.errno in _FULL


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have errors of reading and writing name the file; the system names only what it opens."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def disk_errors_explained(path: Path, *, kept: bool = False) -> Iterator[None]:
    """Turn the errors of a full file system into a sentence, and have others name their file.

    Args:
        path: the file or folder that is written.
        kept: what was written stays, and the same command resumes from it.

    Raises:
        NoSpaceError: the file system is full, or a quota or limit is reached.
    """
    try:
        with naming(path):
            yield
    except OSError as error:
        if not is_full_disk(error):
            raise
        advice = (
            "What is there is kept: free some space, run the same command again and it resumes."
            if kept
            else "What was written has been removed; free some space, or choose another place."
        )
        raise NoSpaceError(f"{error.filename}: {error.strerror}. {advice}") from None
