"""The checksums of the files of a source, computed on the way where they are read in order.

A plan that reads a file from its beginning to its end gives its MD5 for nothing. Other files are
hashed before anything is written, where they have to be compared with a checklist.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from llamakit.checkpoint.dtypes import Array
from llamakit.checkpoint.hashing import checksum_files, new_hash
from llamakit.convert.batches import CopyBatch, batches
from llamakit.convert.moves import Move
from llamakit.errors import DamagedFileError
from llamakit.files.regular_file import open_regular

_CHUNK = 1 << 20
_THREADS = 2


_REST_NBYTES = 1 << 20
_REST = 0.1
"""How much of a file may be read for its checksum alone: headers, norms that another shard has."""


def read_in_order(moves: Iterable[Move]) -> set[Path]:
    """Say which files are read from their beginning to their end, each byte once at most."""
    return set(_nbytes_in_order(moves))


def read_nearly_whole(moves: Iterable[Move]) -> set[Path]:
    """Say which files are read in order, and so much of them that a checksum costs no reading."""
    sizes = {
        path: (path.stat().st_size, nbytes) for path, nbytes in _nbytes_in_order(moves).items()
    }
    return {
        path
        for path, (size, nbytes) in sizes.items()
        if size - nbytes <= max(_REST_NBYTES, _REST * size)
    }


def _nbytes_in_order(moves: Iterable[Move]) -> dict[Path, int]:
    """Return how many bytes are read of each file that is read in order."""
    ends: dict[Path, int] = {}
    nbytes: Counter[Path] = Counter()
    jumps: set[Path] = set()
    for batch in batches(moves):
        for read in batch.reads:
            path = read.region.path
            if path is None:
                continue
            if read.offset < ends.get(path, 0):
                jumps.add(path)
            ends[path] = read.offset + read.nbytes
            nbytes[path] += read.nbytes
    return {path: nbytes[path] for path in ends if path not in jumps}


class SourceChecksums:
    """The checksums of files that ``execute_moves`` reads in order. Use it as a context manager.

    Args:
        expected: the MD5 or SHA-256 of each, by its path; None: only its MD5 is wanted.
    """

    def __init__(self, expected: Mapping[Path, str | None]) -> None:
        self._expected = expected
        self._lanes = [ThreadPoolExecutor(1, "llamakit-md5") for _ in range(_THREADS)]
        self._checksums = {path: _Checksum(path, it) for path, it in expected.items()}
        self._lane_of = {
            path: self._lanes[index % _THREADS] for index, path in enumerate(self._checksums)
        }

    def __enter__(self) -> SourceChecksums:
        return self

    def __exit__(self, *exception: object) -> None:
        for lane in self._lanes:
            lane.shutdown(cancel_futures=True)

    def update(self, batch: CopyBatch, arrays: Sequence[Array]) -> list[Future[None]]:
        """Take in what a batch has read; the arrays may go when the jobs are done."""
        jobs = []
        for read, array in zip(batch.reads, arrays, strict=True):
            path = read.region.path
            if path is None or path not in self._checksums:
                continue
            jobs.append(
                self._lane_of[path].submit(self._checksums[path].update, read.offset, array)
            )
        return jobs

    def finish(self) -> dict[Path, str]:
        """Return the checksums, when they have been compared.

        Raises:
            DamagedFileError: a file is not what the checklist says.
        """
        computed = {path: total.finish() for path, total in self._checksums.items()}
        for path, checksum in computed.items():
            _compare(path, checksum, self._expected[path] or checksum)
        return computed


class _Checksum:
    """The checksum of one file, some of whose bytes come from elsewhere."""

    def __init__(self, path: Path, expected: str | None) -> None:
        self._path = path
        self._sum = new_hash(expected)
        self._at = 0

    def update(self, offset: int, array: Array) -> None:
        self._read_up_to(offset)
        self._sum.update(array.data)
        self._at += array.nbytes

    def finish(self) -> str:
        self._read_up_to(self._path.stat().st_size)
        return self._sum.hexdigest()

    def _read_up_to(self, stop: int) -> None:
        """Read what nobody else wants: headers, and what other shards hold too."""
        if self._at == stop:
            return
        with open_regular(self._path) as file:
            file.seek(self._at)
            while self._at < stop:
                data = file.read(min(_CHUNK, stop - self._at))
                if not data:
                    raise DamagedFileError(f"{self._path} has become shorter; start again.")
                self._sum.update(data)
                self._at += len(data)


def verify_checksums(expected: Mapping[Path, str | None]) -> dict[Path, str]:
    """Hash files, several at a time, compare, and return the checksums.

    Args:
        expected: the MD5 or SHA-256 of each, by its path; None: only its MD5 is wanted.

    Raises:
        DamagedFileError: one is not what the checklist says, or cannot be read.
    """
    try:
        checksums = checksum_files(expected)
    except OSError as error:
        raise DamagedFileError(
            f"{error.filename} is in the checklist, but cannot be read: {error.strerror}. "
            "Download it again."
        ) from None
    for path, md5 in checksums.items():
        _compare(path, md5, expected[path] or md5)
    return checksums


def _compare(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise DamagedFileError(
            f"{path} is not what its checklist says: its checksum is {found}, expected {expected}. "
            "Download it again."
        )
