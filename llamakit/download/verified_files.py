"""The files that an unfinished download has verified, so that resuming need not read them again.

One hidden file in the output folder, removed when the download is complete. A file that has
changed since is read again. The folder's lock is here too.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from llamakit.errors import DestinationError
from llamakit.files import system_calls
from llamakit.files.atomic_file import write_atomically
from llamakit.files.json_reader import parse_json
from llamakit.files.regular_file import open_own

NAME = ".llamakit-download.json"


class VerifiedFiles:
    """The MD5s of verified files, by path.

    Args:
        folder: the output folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / NAME
        self._entries: dict[str, list[object]] = {}
        with contextlib.suppress(OSError, ValueError):
            entries = parse_json(self._read(), str(self._path))
            self._entries = entries if isinstance(entries, dict) else {}

    def _read(self) -> bytes:
        with os.fdopen(open_own(self._path, os.O_RDONLY), "rb") as file:
            return file.read()

    def contains(self, path: str, md5: str) -> bool:
        """Tell whether a file was verified to have this MD5 and has not changed since."""
        try:
            return self._entries.get(path) == [md5, *self._stamp(path)]
        except OSError:
            return False

    def add(self, path: str, md5: str) -> None:
        """Record the MD5 of a file, if the folder is writable."""
        self._entries[path] = [md5, *self._stamp(path)]
        with contextlib.suppress(OSError):
            write_atomically(self._path, json.dumps(self._entries).encode(), mode=0o600)

    def remove(self) -> None:
        """Delete the record: the download is complete."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _stamp(self, path: str) -> tuple[int, int, int]:
        status = (self._folder / path).stat()
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder against a second llamakit that downloads into it.

    Raises:
        DestinationError: another one has the lock.
    """
    if not system_calls.OPENS_FOLDERS:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            system_calls.lock_file(descriptor)
        except BlockingIOError:
            raise DestinationError(
                f"another llamakit is downloading into {folder}: wait for it, or "
                "choose another folder with --output-dir"
            ) from None
        yield
    finally:
        os.close(descriptor)
