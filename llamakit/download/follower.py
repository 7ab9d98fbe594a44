"""The md5 of a file while it arrives: in order, close behind what is there without a hole."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable

from llamakit.download.part_file import PartFile
from llamakit.errors import DownloadError

_READ_NBYTES = 1 << 20


class Follower(threading.Thread):
    """Computes the md5 of a file that is being written, in a thread of its own.

    Args:
        done: is called in this thread with the md5 when the file is whole, or with what went
            wrong; not at all if the file is closed before.
    """

    def __init__(self, part: PartFile, done: Callable[[str | Exception], None]) -> None:
        super().__init__(name="llamakit-md5", daemon=True)
        self._part = part
        self._done = done
        self.nbytes_hashed = 0

    def run(self) -> None:
        """Follow the file to its end."""
        try:
            found: str | Exception | None = self._follow()
        except (OSError, DownloadError) as error:
            found = None if self._part.is_closed else error
        if found is not None:
            self._done(found)

    def _follow(self) -> str | None:
        total = hashlib.md5(usedforsecurity=False)
        buffer = memoryview(bytearray(_READ_NBYTES))
        with self._part.opened() as descriptor:
            while self.nbytes_hashed < self._part.identity.nbytes:
                ready = self._part.wait_for_more(self.nbytes_hashed)
                if ready is None:
                    return None
                size = min(ready - self.nbytes_hashed, _READ_NBYTES)
                read = os.preadv(descriptor, [buffer[:size]], self.nbytes_hashed)
                if not read:
                    raise DownloadError(
                        f"{self._part.path} became shorter while it was written: does another "
                        "program work on it? Run the same command again."
                    )
                total.update(buffer[:read])
                self.nbytes_hashed += read
        return total.hexdigest()
