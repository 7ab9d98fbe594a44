"""Checksums of files by their length: MD5 of a checklist, and what the Hugging Face hub has.

32 hex digits are an MD5, 64 a SHA-256, and 40 the SHA-1 of a Git blob: that of a header with the
size, and the file.
"""

from __future__ import annotations

import hashlib

from llamakit.checkpoint.checklist import kind_of
from llamakit.checkpoint.hashing import Checksum

_GIT_DIGITS = 40


def kind(checksum: str | None) -> str:
    """Return what a checksum is called; without one, an MD5 is computed."""
    return "Git SHA-1" if _is_of_git(checksum) else kind_of(checksum)


class Hasher(Checksum):
    """Computes the kind of checksum that is expected of a file.

    Args:
        expected: of which only the length counts; None computes an MD5.
        nbytes: size of the file.
    """

    def __init__(self, expected: str | None, nbytes: int) -> None:
        super().__init__(expected)
        if _is_of_git(expected):
            self._sum = hashlib.sha1(b"blob %d\0" % nbytes, usedforsecurity=False)


def checksum_of(data: bytes, expected: str | None) -> str:
    """Return the checksum of data, of the kind that is expected."""
    hasher = Hasher(expected, len(data))
    hasher.update(0, memoryview(data))
    return hasher.hexdigest()


def _is_of_git(checksum: str | None) -> bool:
    return checksum is not None and len(checksum) == _GIT_DIGITS
