"""The threads of a download: claim a segment, request it, write what arrives, mark its blocks.

The threads report to one queue, which ``shard_download`` reads.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, field
from functools import partial

from llamakit.download.events import Retrying
from llamakit.download.hash_thread import HashThread
from llamakit.download.http_client import HttpClient
from llamakit.download.part_file import BLOCK_NBYTES, PartFile
from llamakit.download.rate_limit import RateLimit
from llamakit.download.responses import Body, NoRangesError, TransientError
from llamakit.download.retry import RetryPolicy, retry
from llamakit.download.segments import Schedule, Segment
from llamakit.errors import LinkExpiredError
from llamakit.files.disk_errors import disk_errors_explained

SYNC_SECONDS = 15.0
"""How many seconds of downloading a power failure costs at most."""
_WRITE_SECONDS = 0.5
_IDLE_SECONDS = 0.05
_PAUSE_SECONDS = 0.03
_STOP_SECONDS = 2.0
"""For all threads together; a thread that waits for a silent server is abandoned."""
_MAX_REFUSED_RANGES = 3
"""After so many whole files in response to range requests, the server has no ranges."""


@dataclass(eq=False)
class TransferTarget:
    """A file that is being fetched.

    Args:
        checksum: from its checklist or the hub; None if nothing lists it.
        in_one: fetch it with one request, since the server has no ranges.
    """

    path: str
    checksum: str | None
    part: PartFile
    in_one: bool = False
    refused_ranges: int = 0
    restarts: int = 0
    mismatches: int = 0
    hash_thread: HashThread | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Report:
    """What a thread reports about a file.

    Args:
        result: the checksum of the complete file, or the error.
    """

    target: TransferTarget
    part: PartFile
    result: str | Exception


class _StoppedError(Exception):
    """The transfer is being stopped."""


class Transfer:
    """The connections of a download, one thread each.

    Args:
        connections: how many, over all files.
    """

    def __init__(
        self,
        server: HttpClient,
        *,
        connections: int,
        retry_policy: RetryPolicy,
        limit: RateLimit | None = None,
    ) -> None:
        self.reports: queue.SimpleQueue[Report | Retrying] = queue.SimpleQueue()
        self.nbytes_fetched = 0
        """How many bytes of files have been received."""
        self._lock = threading.Lock()
        self._server = server
        self._retry_policy = retry_policy
        self._limit = limit
        self._schedule: Schedule[TransferTarget] = Schedule(connections, BLOCK_NBYTES)
        self._stop = threading.Event()
        self._link_expired = False
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
        """Stop all threads immediately; the marked blocks stay."""
        self._stop.set()
        self._server.abort()
        for part in list(self._open.values()):
            part.close()
        deadline = time.monotonic() + _STOP_SECONDS
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))

    def add(self, target: TransferTarget) -> None:
        """Fetch a file, and compute its checksum meanwhile."""
        part = target.part
        self._open[target] = part
        finish = partial(self._finish, target, part)
        target.hash_thread = HashThread(part, target.checksum, finish)
        target.hash_thread.start()
        self._schedule.add(target, part.identity.nbytes, part.gaps(), in_one=target.in_one)

    def fetch_in_one(self, target: TransferTarget) -> None:
        """Fetch a file with one request, since the server has no ranges."""
        target.in_one = True
        self._schedule.drop(target)
        nbytes = target.part.identity.nbytes
        self._schedule.add(target, nbytes, [(0, nbytes)], in_one=True)

    def drop(self, target: TransferTarget) -> None:
        """Stop fetching a file; its part file is closed and stays."""
        self._schedule.drop(target)
        self._open.pop(target, target.part).close()

    @property
    def is_idle(self) -> bool:
        """Whether nothing more can be fetched, even if something is missing."""
        return self._schedule.is_empty() or (self._link_expired and not self._schedule.is_busy())

    def _finish(self, target: TransferTarget, part: PartFile, result: str | Exception) -> None:
        """Rename a file that is right into place; report its checksum or the error."""
        if isinstance(result, str) and target.checksum in (None, result):
            try:
                part.publish(result)
            except OSError as error:
                result = error
        self.reports.put(Report(target, part, result))

    def _work(self) -> None:
        """Fetch one segment after another."""
        while not self._stop.wait(0):
            segment = None if self._link_expired else self._schedule.claim()
            if segment is None:
                self._stop.wait(_IDLE_SECONDS)
                continue
            target, part = segment.target, segment.target.part
            try:
                self._fetch(segment, part)
            except _StoppedError:
                pass
            except LinkExpiredError as error:
                self._link_expired = True
                self.reports.put(Report(target, part, error))
            except Exception as error:  # noqa: BLE001 - raised by the reader of the report
                self._schedule.drop_with(segment)
                self.reports.put(Report(target, part, error))
            finally:
                self._schedule.release(segment)

    def _fetch(self, segment: Segment[TransferTarget], part: PartFile) -> None:
        """Fetch a segment, with retries."""
        fetch = self._fetch_whole if segment.target.in_one else self._fetch_range
        attempt = partial(fetch, segment, part)
        for failure in retry(attempt, self._retry_policy, lambda: segment.position):
            self.reports.put(Retrying(segment.target.path, failure.reason, failure.seconds))
            if self._stop.wait(failure.seconds) or part.is_closed:
                raise _StoppedError

    def _fetch_range(self, segment: Segment[TransferTarget], part: PartFile) -> None:
        target = segment.target
        try:
            while not segment.is_done:  # another connection may have taken over the rest
                position, stop = segment.position, segment.stop
                with self._server.byte_range(part.identity, position, stop) as body:
                    target.refused_ranges = 0
                    self._write(segment, part, body)
        except NoRangesError:
            target.refused_ranges += 1
            if target.refused_ranges >= _MAX_REFUSED_RANGES:
                raise
            raise TransientError(
                "the server sent the whole file, not the requested range"
            ) from None

    def _fetch_whole(self, segment: Segment[TransferTarget], part: PartFile) -> None:
        segment.position = 0
        with self._server.full_file(part.identity) as body:
            self._write(segment, part, body)

    def _write(self, segment: Segment[TransferTarget], part: PartFile, body: Body) -> None:
        """Write chunks as they arrive, up to the end of the segment, which may move meanwhile.

        The iterator is read to its end: only then can the connection be reused.
        """
        marked = segment.position // BLOCK_NBYTES * BLOCK_NBYTES
        with part.opened() as descriptor, disk_errors_explained(part.path, kept=True):
            for chunk in body.chunks:
                if self._stop.is_set() or part.is_closed:
                    raise _StoppedError
                if segment.is_done:
                    return
                data = memoryview(chunk)[: segment.stop - segment.position]
                part.write(descriptor, data, segment.position)
                segment.position += len(data)
                with self._lock:
                    self.nbytes_fetched += len(data)
                if segment.position - marked >= BLOCK_NBYTES or segment.is_done:
                    marked = part.mark(marked, segment.position)
                    self._wait_for_hash(segment.target)
                if self._limit:
                    self._stop.wait(self._limit.delay(len(data)))
        stop = min(segment.stop, body.stop)
        if segment.position < stop:
            raise TransientError(
                f"the server ended {segment.target.path} at byte {segment.position}, "
                f"{stop - segment.position} before the end that it announced"
            )

    def _wait_for_hash(self, target: TransferTarget) -> None:
        while target.hash_thread and target.hash_thread.is_behind():
            if self._stop.wait(_PAUSE_SECONDS):
                return

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
