"""Checksums of files by their length: MD5 of a checklist, and what the Hugging Face hub has.

32 hex digits are an MD5, 64 a SHA-256, and 40 the SHA-1 of a Git blob: that of a header with the
size, and the file.
"""

from __future__ import annotations

import hashlib

_KINDS = {32: "MD5", 40: "Git SHA-1", 64: "SHA-256"}


def kind(checksum: str | None) -> str:
    """Return what a checksum is called; without one, an MD5 is computed."""
    return _KINDS[len(checksum)] if checksum else "MD5"


class Hasher:
    """Computes the kind of checksum that is expected of a file.

    Args:
        expected: of which only the length counts; None computes an MD5.
        nbytes: size of the file.
    """

    def __init__(self, expected: str | None, nbytes: int) -> None:
        name = {"MD5": "md5", "Git SHA-1": "sha1", "SHA-256": "sha256"}[kind(expected)]
        self._hash = hashlib.new(name, usedforsecurity=False)
        if name == "sha1":
            self._hash.update(b"blob %d\0" % nbytes)

    def update(self, offset: int, block: memoryview) -> None:  # noqa: ARG002 - sees all, in order
        """Take the next bytes of the file."""
        self._hash.update(block)

    def hexdigest(self) -> str:
        """Return lower-case hex digits."""
        return self._hash.hexdigest()


def checksum_of(data: bytes, expected: str | None) -> str:
    """Return the checksum of data, of the kind that is expected."""
    hasher = Hasher(expected, len(data))
    hasher.update(0, memoryview(data))
    return hasher.hexdigest()
