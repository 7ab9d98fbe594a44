"""Computes the MD5 of a file while it is downloaded, in order, as far as there is no gap."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable

from llamakit.download.part_file import PartFile
from llamakit.errors import DownloadError

_READ_NBYTES = 1 << 20


class Md5Thread(threading.Thread):
    """Computes the MD5 of a file that is being written.

    Args:
        done: called in this thread with the MD5 when the file is complete, or with the error;
            not called if the file is closed before.
    """

    def __init__(self, part: PartFile, done: Callable[[str | Exception], None]) -> None:
        super().__init__(name="llamakit-md5", daemon=True)
        self._part = part
        self._done = done
        self.nbytes_hashed = 0

    def run(self) -> None:
        """Hash the file to its end."""
        try:
            result: str | Exception | None = self._hash()
        except (OSError, DownloadError) as error:
            result = None if self._part.is_closed else error
        if result is not None:
            self._done(result)

    def _hash(self) -> str | None:
        md5 = hashlib.md5(usedforsecurity=False)
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
                        f"{self._part.path} became shorter while it was written: is another "
                        "program changing it? Run the same command again."
                    )
                md5.update(buffer[:read])
                self.nbytes_hashed += read
        return md5.hexdigest()
