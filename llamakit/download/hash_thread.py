"""Computes the checksum of a file while it is downloaded, in order, as far as there is no gap."""

from __future__ import annotations

import threading
from collections.abc import Callable

from llamakit.download.checksums import Hasher
from llamakit.download.part_file import PartFile
from llamakit.errors import DownloadError

READ_NBYTES = 1 << 20
"""Of memory, for each file that is hashed."""
MAX_BEHIND_NBYTES = 64 << 20
"""Downloading pauses where hashing is further behind: the processor time is needed for that, and
what was just written is still in the kernel's cache."""


class HashThread(threading.Thread):
    """Computes the checksum of a file that is being written.

    Args:
        expected: the checksum; another of its kind is computed.
        done: called in this thread with the checksum when the file is complete, or with the error;
            not called if the file is closed before.
    """

    def __init__(
        self, part: PartFile, expected: str | None, done: Callable[[str | Exception], None]
    ) -> None:
        super().__init__(name="llamakit-hash", daemon=True)
        self._part = part
        self._expected = expected
        self._done = done
        self.nbytes_hashed = 0
        self._is_done = False
        self._nbytes_before = part.nbytes_there

    def is_behind(self) -> bool:
        """Tell whether there is so much to hash that downloading should pause.

        What an earlier run has downloaded does not count, nor what comes after a gap.
        """
        if self._is_done or self._part.is_closed:
            return False
        arrived = self._part.nbytes_there - self._nbytes_before
        ready = min(arrived, self._part.nbytes_in_order)
        return ready - self.nbytes_hashed > MAX_BEHIND_NBYTES

    def run(self) -> None:
        """Hash the file to its end."""
        try:
            result: str | Exception | None = self._hash()
        except (OSError, DownloadError) as error:
            result = None if self._part.is_closed else error
        self._is_done = True
        if result is not None:
            self._done(result)

    def _hash(self) -> str | None:
        hasher = Hasher(self._expected, self._part.identity.nbytes)
        buffer = memoryview(bytearray(READ_NBYTES))
        with self._part.opened() as descriptor:
            while self.nbytes_hashed < self._part.identity.nbytes:
                ready = self._part.wait_for_more(self.nbytes_hashed)
                if ready is None:
                    return None
                size = min(ready - self.nbytes_hashed, READ_NBYTES)
                read = self._part.read(descriptor, buffer[:size], self.nbytes_hashed)
                if not read:
                    raise DownloadError(
                        f"{self._part.path} became shorter while it was written: is another "
                        "program changing it? Run the same command again."
                    )
                hasher.update(self.nbytes_hashed, buffer[:read])
                self.nbytes_hashed += read
        return hasher.hexdigest()
