"""A partial download that is stored in the files of a conversion.

``NAME.part`` is sparse: it has what no file of the conversion has, such as the headers of a zip.
Every other byte is where the plan wants it, and is read back from there.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llamakit.convert.scatter import FileMap
from llamakit.download.part_file import Identity, PartFile
from llamakit.errors import DownloadError
from llamakit.files.atomic_file import write_atomically
from llamakit.files.disk_errors import naming
from llamakit.files.json_reader import parse_json
from llamakit.files.regular_file import open_own, read_bytes
from llamakit.files.system_calls import read_at, sync_path, write_all

_RECEIVED = "received"


class OutputFiles:
    """The files of a conversion, open for all threads. Use it as a context manager.

    Args:
        paths: as the plan counts them; they exist.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self._lock = threading.Lock()
        self._n_users = 1
        self._descriptors: list[int] = []

    def __enter__(self) -> OutputFiles:
        for path in self.paths:
            self._descriptors.append(open_own(path, os.O_RDWR))
        return self

    def __exit__(self, *exception: object) -> None:
        self._leave()

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Keep the files open: a thread may outlive the download that it is of.

        Raises:
            OSError: they are closed.
        """
        with self._lock:
            if not self._n_users:
                raise OSError(errno.EBADF, "the download is being stopped")
            self._n_users += 1
        try:
            yield
        finally:
            self._leave()

    def write(self, file: int, data: memoryview, offset: int) -> None:
        """Write at a place in a file."""
        try:
            write_all(self._descriptors[file], data, offset)
        except OSError as error:
            error.filename = error.filename or str(self.paths[file])
            raise

    def read(self, file: int, memory: memoryview, offset: int) -> None:
        """Read from a place in a file.

        Raises:
            DownloadError: the file is shorter.
        """
        while memory:
            count = read_at(self._descriptors[file], memory, offset)
            if not count:
                raise DownloadError(
                    f"{self.paths[file]} became shorter while it was written: is another program "
                    "changing it? Run the same command again."
                )
            memory, offset = memory[count:], offset + count

    def flush(self) -> None:
        """Wait until the disk has what is written."""
        for path, descriptor in zip(self.paths, self._descriptors, strict=True):
            with naming(path):
                os.fsync(descriptor)

    def _leave(self) -> None:
        with self._lock:
            self._n_users -= 1
            if not self._n_users:
                while self._descriptors:
                    os.close(self._descriptors.pop())


class ScatteredPart(PartFile):
    """A shard that is fetched into the files of a conversion.

    Args:
        final: the index of the shard, next to which ``NAME.part`` is.
        identity: of the shard.
        checksum: of its checklist, if there is one.
        file_map: where its bytes go.
        outputs: where they are written.
        layout: identifies the plan; what was written by another does not count.
    """

    def __init__(
        self,
        final: Path,
        identity: Identity,
        checksum: str | None,
        file_map: FileMap,
        outputs: OutputFiles,
        layout: str,
    ) -> None:
        self._n_writing = 0
        self._checksum, self._map, self._outputs, self._layout = checksum, file_map, outputs, layout
        super().__init__(final, identity)

    def again(self, identity: Identity) -> ScatteredPart:
        """Return the same shard from its beginning, of this version on the server.

        Raises:
            DownloadError: its size has changed, so the plan is of another file.
        """
        if identity.nbytes != self.identity.nbytes:
            raise DownloadError(
                f"{identity.path} had {self.identity.nbytes} bytes on the server and has "
                f"{identity.nbytes} now: run the same command again with --repair"
            )
        with self._grown:  # what an old thread still writes would be written over the new
            self._grown.wait_for(lambda: not self._n_writing)
        place = (self._checksum, self._map, self._outputs, self._layout)
        return ScatteredPart(self.final, identity, *place)

    @contextlib.contextmanager
    def opened(self, flags: int = 0) -> Iterator[int]:
        """Open it for one thread: see ``PartFile.opened``."""
        with self._outputs.used(), super().opened(flags) as descriptor:
            yield descriptor

    def write(self, descriptor: int, data: memoryview, offset: int) -> None:
        """Write bytes of the shard where they go; once it is closed, nothing."""
        with self._grown:
            if self.is_closed:
                return
            self._n_writing += 1
        try:
            self._write(descriptor, data, offset)
        finally:
            with self._grown:
                self._n_writing -= 1
                self._grown.notify_all()

    def read(self, descriptor: int, memory: memoryview, offset: int) -> int:
        """Read bytes of the shard from where they are."""
        stop = offset + len(memory)
        with naming(self.path):
            for start, file, place, nbytes in self._map.pieces(offset, stop):
                first = start - offset
                self._outputs.read(file, memory[first : first + nbytes], place)
            for start, end in self._map.gaps(offset, stop):
                super().read(descriptor, memory[start - offset : end - offset], start)
        return len(memory)

    def flush(self, descriptor: int) -> None:
        """Wait until the disk has what is written."""
        super().flush(descriptor)
        self._outputs.flush()

    def publish(self, checksum: str) -> None:
        """Record that the shard is complete and verified."""
        with self.opened() as descriptor:
            self.flush(descriptor)
        record = {**_verified(self.identity, self._checksum, self._layout), _RECEIVED: checksum}
        write_atomically(_verified_path(self.final), json.dumps(record).encode(), mode=0o600)
        sync_path(self.final.parent)
        self.close()

    def discard(self) -> None:
        """Forget what is written of it."""
        _verified_path(self.final).unlink(missing_ok=True)
        super().discard()

    def _write(self, descriptor: int, data: memoryview, offset: int) -> None:
        stop = offset + len(data)
        for start, file, place, nbytes in self._map.pieces(offset, stop):
            first = start - offset
            self._outputs.write(file, data[first : first + nbytes], place)
        for start, end in self._map.gaps(offset, stop):
            write_all(descriptor, data[start - offset : end - offset], start)

    def _verified(self) -> dict[str, Any]:
        return {**self._header(), "checksum": self._checksum}

    def _header(self) -> dict[str, Any]:
        return {**super()._header(), "layout": self._layout}


def verified_checksum(
    final: Path, identity: Identity, checksum: str | None, layout: str
) -> str | None:
    """Return the checksum of a shard that is fetched and verified as a whole; else None.

    Args: as ``ScatteredPart``.
    """
    try:
        record = parse_json(read_bytes(_verified_path(final)), "the record")
    except (OSError, ValueError):
        return None
    received = record.pop(_RECEIVED, None) if isinstance(record, dict) else None
    same = record == _verified(identity, checksum, layout)
    return received if same and isinstance(received, str) else None


def _verified_path(final: Path) -> Path:
    return final.with_name(f"{final.name}.part.verified")


def _verified(identity: Identity, checksum: str | None, layout: str) -> dict[str, Any]:
    return {**asdict(identity), "checksum": checksum, "layout": layout}
