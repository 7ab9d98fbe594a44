"""Fetches the shards: turns the reports of the transfer's threads into events."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Generator, Iterator, Sequence

from llamakit.download.checksums import kind
from llamakit.download.events import (
    Event,
    Failed,
    FileProgress,
    LinkEnded,
    Progress,
    Restarted,
    Retrying,
    arrived,
)
from llamakit.download.responses import ChangedError, NoRangesError, RemoteFile
from llamakit.download.small_files import WRONG_TWICE
from llamakit.download.transfer import Report, Transfer, TransferTarget
from llamakit.errors import DamagedFileError, DownloadError, LinkExpiredError, for_commands

MAX_RESTARTS = 3
"""A file that changes on the server more often fails."""
_TICK_SECONDS = 0.1

ProbeAgain = Callable[[str], Generator[Event, None, RemoteFile]]


Compare = Callable[[str], Generator[Event, None, None]]
"""Called when the checksum of a file is wrong; raises if the checklist on disk is out of date."""


def fetch_shards(
    transfer: Transfer, targets: Sequence[TransferTarget], probe: ProbeAgain, compare: Compare
) -> Iterator[Event]:
    """Fetch files, and yield events.

    Raises:
        ChecklistChangedError: a file was wrong by a checklist that was out of date.
        LinkExpiredError: the link has expired; what had arrived is on disk.
        DownloadError, DamagedFileError: some files could not be fetched; the others are there.
        OSError, NoSpaceError: a file cannot be written.
    """
    if not targets:
        return
    run = _Run(transfer, targets, probe, compare)
    transfer.start()
    try:
        for target in targets:
            transfer.add(target)
        yield from run.events()
    finally:
        transfer.stop()
    run.raise_failures()


class _Run:
    """The pending files and the failures."""

    def __init__(
        self,
        transfer: Transfer,
        targets: Sequence[TransferTarget],
        probe: ProbeAgain,
        compare: Compare,
    ) -> None:
        self._transfer = transfer
        self._targets = targets
        self._pending = list(targets)
        self._probe = probe
        self._compare = compare
        self._failed: list[Exception] = []
        self._link_error: LinkExpiredError | None = None

    def events(self) -> Iterator[Event]:
        """Yield events until nothing is pending that can still be fetched."""
        last_progress = 0.0
        while self._pending and not self._is_stuck():
            try:
                report = self._transfer.reports.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                pass
            else:
                yield from self._handle(report)
            if time.monotonic() - last_progress >= _TICK_SECONDS:
                last_progress = time.monotonic()
                yield Progress(tuple(map(_progress, self._targets)))

    def raise_failures(self) -> None:
        """Raise an error for the files that could not be fetched."""
        if self._link_error is not None:
            raise self._link_error
        if len(self._failed) == 1:
            raise self._failed[0]
        if self._failed:
            raise DownloadError(
                f"{len(self._failed)} files could not be fetched:\n"
                + "\n".join(sorted(f"  {for_commands(error)}" for error in self._failed))
            )

    def _is_stuck(self) -> bool:
        """Tell whether the link has expired and all pending files need more requests."""
        if self._link_error is None or not self._transfer.is_idle:
            return False
        return all(target.part.gaps() for target in self._pending)

    def _handle(self, report: Report | Retrying) -> Iterator[Event]:
        if isinstance(report, Retrying):
            yield report
            return
        target, result = report.target, report.result
        if target not in self._pending or report.part is not target.part:
            return  # it has been restarted meanwhile, or has failed
        if isinstance(result, str):
            yield from self._complete(target, result)
        elif isinstance(result, ChangedError):
            yield from self._changed(target, result)
        elif isinstance(result, NoRangesError):
            if target.in_one:
                return  # another connection has reported it
            self._transfer.fetch_in_one(target)
            yield Restarted(
                target.path, "the server sends whole files only: it is fetched with one request"
            )
        elif isinstance(result, LinkExpiredError):
            if self._link_error is None:
                self._link_error = result
                yield LinkEnded(str(result))
        elif isinstance(result, DownloadError):
            yield self._fail(target, result)
        else:
            raise result

    def _complete(self, target: TransferTarget, checksum: str) -> Iterator[Event]:
        if target.checksum in (None, checksum):
            self._pending.remove(target)
            self._transfer.drop(target)
            yield arrived(target.path, target.part.identity.nbytes, checksum)
            return
        try:
            yield from self._compare(target.path)
        except DamagedFileError as error:  # what arrived may be right: keep it
            yield self._fail(target, error)
            return
        target.mismatches += 1
        name = kind(target.checksum)
        mismatch = f"expected {name} {target.checksum}, received {checksum}"
        if target.mismatches == 1:
            self._restart(target)
            yield Restarted(target.path, mismatch)
            return
        self._transfer.drop(target)
        target.part.discard()
        yield self._fail(
            target,
            DamagedFileError(f"{target.path}: {mismatch}, twice: {WRONG_TWICE}"),
        )

    def _changed(self, target: TransferTarget, change: ChangedError) -> Iterator[Event]:
        target.restarts += 1
        if target.restarts > MAX_RESTARTS:
            reason = f"{target.path} changes on the server again and again: {change}"
            yield self._fail(target, DownloadError(f"{reason}. Run the same command later."))
            return
        yield Restarted(target.path, str(change))
        remote = yield from self._probe(target.path)
        self._transfer.drop(target)
        target.part = target.part.again(remote.identity)
        target.in_one = not remote.accepts_ranges
        self._transfer.add(target)

    def _restart(self, target: TransferTarget) -> None:
        self._transfer.drop(target)
        target.part.discard()
        target.part = target.part.again(target.part.identity)
        self._transfer.add(target)

    def _fail(self, target: TransferTarget, error: Exception) -> Failed:
        self._transfer.drop(target)
        self._pending.remove(target)
        self._failed.append(error)
        return Failed(target.path, for_commands(error))


def _progress(target: TransferTarget) -> FileProgress:
    part, hash_thread = target.part, target.hash_thread
    hashed = hash_thread.nbytes_hashed if hash_thread else 0
    return FileProgress(target.path, part.identity.nbytes, part.nbytes_there, hashed)
