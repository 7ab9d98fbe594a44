"""The work of the connections: claim a segment, ask for it, write what arrives, mark its blocks.

The threads report to one queue, which the session reads; they touch nothing else of it.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from llamakit.checkpoint.atomic_folder import told_when_full
from llamakit.download.events import Retrying
from llamakit.download.follower import Follower
from llamakit.download.http_client import HttpClient
from llamakit.download.part_file import BLOCK_NBYTES, PartFile
from llamakit.download.rate import RateLimit
from llamakit.download.responses import NoRangesError, TransientError
from llamakit.download.retry import Patience, persist
from llamakit.download.segments import Schedule, Segment
from llamakit.errors import LinkEndedError

SYNC_SECONDS = 15.0
"""What a loss of power costs at most, in seconds of downloading."""
_WRITE_SECONDS = 0.5
_IDLE_SECONDS = 0.05
_STOP_SECONDS = 2.0
"""For all threads together; one that waits for a silent server is left behind."""
_REFUSALS_BELIEVED = 3
"""So many answers in a row without the range that was asked for: the server knows no ranges."""


@dataclass(eq=False)
class TransferTarget:
    """A file that is being fetched.

    Args:
        md5: what its checklist says; None if no list names it.
        in_one: the server knows no ranges.
    """

    path: str
    final: Path
    md5: str | None
    part: PartFile
    in_one: bool = False
    refused_ranges: int = 0
    restarts: int = 0
    mismatches: int = 0
    follower: Follower | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Report:
    """Something a thread has to say of a file.

    Args:
        found: the md5 of the whole file, or what went wrong.
    """

    target: TransferTarget
    part: PartFile
    found: str | Exception


class _StoppedError(Exception):
    """The session wants no more."""


class Transfer:
    """The connections of one run, and the threads behind them.

    Args:
        connections: how many, over all files.
    """

    def __init__(
        self,
        server: HttpClient,
        *,
        connections: int,
        patience: Patience,
        limit: RateLimit | None = None,
    ) -> None:
        self.reports: queue.SimpleQueue[Report | Retrying] = queue.SimpleQueue()
        self.nbytes_fetched = 0
        """How many bytes of files have arrived."""
        self._lock = threading.Lock()
        self._server = server
        self._patience = patience
        self._limit = limit
        self._schedule: Schedule[TransferTarget] = Schedule(connections, BLOCK_NBYTES)
        self._stop = threading.Event()
        self._link_ended = False
        self._open: dict[TransferTarget, PartFile] = {}
        self._threads = [
            threading.Thread(target=self._work, name=f"llamakit-get-{number}", daemon=True)
            for number in range(connections)
        ]
        self._threads.append(threading.Thread(target=self._sync, daemon=True))

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End everything at once; what has been marked stays."""
        self._stop.set()
        self._server.hang_up()
        for part in list(self._open.values()):
            part.close()
        until = time.monotonic() + _STOP_SECONDS
        for thread in self._threads:
            thread.join(timeout=max(0.0, until - time.monotonic()))

    def add(self, target: TransferTarget) -> None:
        """Fetch a file, and follow it with its md5."""
        part = target.part
        self._open[target] = part
        target.follower = Follower(part, partial(self._settle, target, part))
        target.follower.start()
        self._schedule.add(target, part.identity.nbytes, part.gaps(), in_one=target.in_one)

    def fetch_in_one(self, target: TransferTarget) -> None:
        """Fetch a file with one request for all of it; what is there stays."""
        target.in_one = True
        self._schedule.drop(target)
        nbytes = target.part.identity.nbytes
        self._schedule.add(target, nbytes, [(0, nbytes)], in_one=True)

    def drop(self, target: TransferTarget) -> None:
        """Fetch no more of a file; its part is closed and stays."""
        self._schedule.drop(target)
        self._open.pop(target, target.part).close()

    @property
    def is_idle(self) -> bool:
        """Whether nothing can be fetched any more, though something may be missing."""
        return self._schedule.is_empty() or (self._link_ended and not self._schedule.is_busy())

    def _settle(self, target: TransferTarget, part: PartFile, found: str | Exception) -> None:
        """Give a file whose md5 is right its name; report it, or what went wrong."""
        if found == target.md5 or (target.md5 is None and isinstance(found, str)):
            try:
                part.publish()
            except OSError as error:
                found = error
        self.reports.put(Report(target, part, found))

    def _work(self) -> None:
        """Fetch one segment after another."""
        while not self._stop.wait(0):
            segment = None if self._link_ended else self._schedule.claim()
            if segment is None:
                self._stop.wait(_IDLE_SECONDS)
                continue
            target, part = segment.target, segment.target.part
            try:
                self._fetch(segment, part)
            except _StoppedError:
                pass
            except LinkEndedError as error:
                self._link_ended = True
                self.reports.put(Report(target, part, error))
            except Exception as error:  # noqa: BLE001 - the session raises it where it is read
                self._schedule.drop_with(segment)
                self.reports.put(Report(target, part, error))
            finally:
                self._schedule.give_back(segment)

    def _fetch(self, segment: Segment[TransferTarget], part: PartFile) -> None:
        """Fetch a segment, however often that has to be tried."""
        fetch = self._fetch_whole if segment.target.in_one else self._fetch_range
        attempt = partial(fetch, segment, part)
        for trouble in persist(attempt, self._patience, lambda: segment.position):
            self.reports.put(Retrying(segment.target.path, trouble.reason, trouble.seconds))
            if self._stop.wait(trouble.seconds) or part.is_closed:
                raise _StoppedError

    def _fetch_range(self, segment: Segment[TransferTarget], part: PartFile) -> None:
        target = segment.target
        if segment.is_done:  # another connection took the rest over meanwhile
            return
        try:
            with self._server.bytes_of(part.identity, segment.position, segment.stop) as pieces:
                target.refused_ranges = 0
                self._write(segment, part, pieces)
        except NoRangesError:
            target.refused_ranges += 1
            if target.refused_ranges >= _REFUSALS_BELIEVED:
                raise
            raise TransientError(
                "the server sent the whole file, not the range asked for"
            ) from None

    def _fetch_whole(self, segment: Segment[TransferTarget], part: PartFile) -> None:
        segment.position = 0
        with self._server.whole(part.identity) as pieces:
            self._write(segment, part, pieces)

    def _write(
        self, segment: Segment[TransferTarget], part: PartFile, pieces: Iterator[bytes]
    ) -> None:
        """Write pieces as they arrive, up to where the segment ends by then.

        The iterator is asked once more after the last piece: only then can the connection be used
        again.
        """
        marked = segment.position // BLOCK_NBYTES * BLOCK_NBYTES
        with part.opened() as descriptor, told_when_full(part.path.parent, kept=True):
            for piece in pieces:
                if self._stop.is_set() or part.is_closed:
                    raise _StoppedError
                if segment.is_done:
                    return
                data = memoryview(piece)[: segment.stop - segment.position]
                _write_all(descriptor, data, segment.position)
                segment.position += len(data)
                with self._lock:
                    self.nbytes_fetched += len(data)
                if segment.position - marked >= BLOCK_NBYTES or segment.is_done:
                    marked = part.mark(marked, segment.position)
                if self._limit:
                    self._stop.wait(self._limit.delay(len(data)))
        if not segment.is_done:
            raise TransientError(
                f"the server ended {segment.target.path} at byte {segment.position}, "
                f"{segment.stop - segment.position} before the end of what was asked for"
            )

    def _sync(self) -> None:
        due = time.monotonic() + SYNC_SECONDS
        while not self._stop.wait(_WRITE_SECONDS):
            parts = list(self._open.values())
            for part in parts:
                part.begin_writing()
            if time.monotonic() >= due:
                for part in parts:
                    part.sync()
                due = time.monotonic() + SYNC_SECONDS


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        done = os.pwrite(descriptor, data, offset)
        data, offset = data[done:], offset + done
