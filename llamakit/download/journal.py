"""What an unfinished download has verified already, so that resuming reads nothing twice; its lock.

One hidden file in the output folder, removed when everything is there. A file that has changed
since is read again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from llamakit.errors import DestinationError

NAME = ".llamakit-download.json"


class Journal:
    """The md5 of files that were verified, by path.

    Args:
        folder: the output folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / NAME
        self._new = folder / f"{NAME}.new"
        self._sums: dict[str, list[object]] = {}
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self._path.read_bytes())
            self._sums = found if isinstance(found, dict) else {}

    def knows(self, path: str, md5: str) -> bool:
        """Tell whether a file, as it is now, was found to have an md5."""
        try:
            return self._sums.get(path) == [md5, *self._stamp(path)]
        except OSError:
            return False

    def add(self, path: str, md5: str) -> None:
        """Remember that a file has an md5, if the folder can be written to."""
        self._sums[path] = [md5, *self._stamp(path)]
        with contextlib.suppress(OSError):
            self._new.write_text(json.dumps(self._sums))
            self._new.replace(self._path)

    def remove(self) -> None:
        """Everything is there: nothing is to be remembered."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            self._new.unlink(missing_ok=True)  # of a run that was killed, or met a full disk

    def _stamp(self, path: str) -> tuple[int, int, int]:
        found = (self._folder / path).stat()
        return found.st_size, found.st_mtime_ns, found.st_ctime_ns


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
