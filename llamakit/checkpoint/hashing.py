"""Files read once, on all cores, each block passed to everything that reads it.

Computing a checksum releases Python's lock, so threads are enough.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llamakit.checkpoint.block_reader import read_blocks
from llamakit.cores import available_cores
from llamakit.errors import DamagedFileError

_SHA256_DIGITS = 64
_MOST_FILES = 16
"""More at the same time are no quicker, and each takes two blocks of memory."""


class Consumer(Protocol):
    """Wants to see a file, block by block and in order."""

    def update(self, offset: int, block: memoryview) -> None:
        """Take the bytes of the file from ``offset`` on; they are gone afterwards."""
        ...


class Checksum:
    """The checksum of a file.

    Args:
        expected: of which only the length counts: that of an MD5 or a SHA-256; None is an MD5.
    """

    def __init__(self, expected: str | None = None) -> None:
        self._sum = new_hash(expected)

    def update(self, offset: int, block: memoryview) -> None:  # noqa: ARG002 - sees all, in order
        """Take the next block."""
        self._sum.update(block)

    def hexdigest(self) -> str:
        """Return lower-case hex digits."""
        return self._sum.hexdigest()


@dataclass(frozen=True)
class FilePass:
    """One file to be read, and who is to see it."""

    path: Path
    consumers: Sequence[Consumer]


@dataclass(frozen=True)
class BlockRead:
    """So much more of a file has been read, and seen by all."""

    path: Path
    nbytes: int


@dataclass(frozen=True)
class FileRead:
    """A file has been read to its end, or could not be."""

    path: Path
    error: OSError | DamagedFileError | None = None


def read_files(
    passes: Sequence[FilePass], workers: int | None = None
) -> Iterator[BlockRead | FileRead]:
    """Read files, several at the same time, the largest first.

    Args:
        workers: how many at the same time; None: two for each core, so that one waits for the disk
            while the other hashes; 16 at most.
    Yields:
        What happens, as it does: blocks in no order between files, and once for each pass that
        its file is done. Whoever stops asking stops the reading.
    """
    cores = available_cores()
    happened: queue.SimpleQueue[BlockRead | FileRead | BaseException] = queue.SimpleQueue()
    stop = threading.Event()
    files = ThreadPoolExecutor(workers or min(2 * cores, _MOST_FILES), "llamakit-file")
    helpers = ThreadPoolExecutor(cores, "llamakit-md5")
    try:
        for one in sorted(passes, key=_nbytes, reverse=True):
            files.submit(_read_file, one, helpers, happened, stop)
        waiting = len(passes)
        while waiting:
            event = happened.get()
            if isinstance(event, BaseException):
                raise event
            waiting -= isinstance(event, FileRead)
            yield event
    finally:
        stop.set()
        files.shutdown(cancel_futures=True)
        helpers.shutdown()


def new_hash(expected: str | None) -> hashlib._Hash:
    """Begin a checksum of the kind that is expected: by its length an MD5 or a SHA-256."""
    name = "sha256" if expected and len(expected) == _SHA256_DIGITS else "md5"
    return hashlib.new(name, usedforsecurity=False)


def md5_files(paths: Sequence[Path], workers: int | None = None) -> dict[Path, str]:
    """Return the md5 of each file.

    Args and Raises: as ``checksum_files``.
    """
    return checksum_files(dict.fromkeys(paths), workers)


def checksum_files(
    expected: Mapping[Path, str | None], workers: int | None = None
) -> dict[Path, str]:
    """Return the checksum of each file, of the kind that is expected of it.

    Args:
        expected: as ``Checksum``, by path.
        workers: how many files at the same time; None: as ``read_files``.

    Raises:
        OSError: one cannot be read.
        DamagedFileError: one has changed while it was read.
    """
    hashes = {path: Checksum(it) for path, it in expected.items()}
    for event in read_files([FilePass(path, [one]) for path, one in hashes.items()], workers):
        if isinstance(event, FileRead) and event.error is not None:
            raise event.error
    return {path: one.hexdigest() for path, one in hashes.items()}


def _read_file(
    one: FilePass,
    helpers: ThreadPoolExecutor,
    happened: queue.SimpleQueue[BlockRead | FileRead | BaseException],
    stop: threading.Event,
) -> None:
    first, *others = one.consumers
    try:
        for offset, block in read_blocks(one.path):
            started = [helpers.submit(other.update, offset, block) for other in others]
            first.update(offset, block)
            for other in started:
                other.result()
            happened.put(BlockRead(one.path, len(block)))
            if stop.is_set():
                return
    except (OSError, DamagedFileError) as error:
        happened.put(FileRead(one.path, error))
    except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
        happened.put(error)
    else:
        happened.put(FileRead(one.path))


def _nbytes(one: FilePass) -> int:
    try:
        return one.path.stat().st_size
    except OSError:
        return 0
