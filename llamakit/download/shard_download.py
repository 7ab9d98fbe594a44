"""The transfer of the shards as a run of events: what a report of a thread leads to."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Generator, Iterator, Sequence

from llamakit.download.events import (
    Arrived,
    Event,
    Failed,
    FileProgress,
    LinkEnded,
    Progress,
    Restarted,
    Retrying,
)
from llamakit.download.http_client import Probe
from llamakit.download.part_file import PartFile
from llamakit.download.responses import ChangedError, NoRangesError
from llamakit.download.small_files import WRONG_TWICE
from llamakit.download.transfer import Report, Transfer, TransferTarget
from llamakit.errors import DamagedFileError, DownloadError, LinkEndedError

MAX_RESTARTS = 3
"""A file that changes on the server more often than this is given up."""
_TICK_SECONDS = 0.1

ProbeAgain = Callable[[str], Generator[Event, None, Probe]]


Compare = Callable[[str], Generator[Event, None, None]]
"""Asks, when a file came wrong, whether its checklist is an old one; raises if it is."""


def fetch_shards(
    transfer: Transfer, targets: Sequence[TransferTarget], probe: ProbeAgain, compare: Compare
) -> Iterator[Event]:
    """Fetch files, and yield what happens.

    Raises:
        ListChangedError: a file came wrong by a list that was an old one.
        LinkEndedError: the link has ended, and what it still gave is there.
        DownloadError, DamagedFileError: some files could not be had; the others are there.
        OSError, NoSpaceError: they cannot be written.
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
    run.raise_what_is_left()


class _Run:
    """The files that are pending, and what went wrong."""

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
        self._link_error: LinkEndedError | None = None

    def events(self) -> Iterator[Event]:
        """Yield until nothing is pending that can still be had."""
        told = 0.0
        while self._pending and not self._is_stuck():
            try:
                report = self._transfer.reports.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                pass
            else:
                yield from self._answer(report)
            if time.monotonic() - told >= _TICK_SECONDS:
                told = time.monotonic()
                yield Progress(tuple(map(_progress, self._targets)))

    def raise_what_is_left(self) -> None:
        """Raise for what could not be had."""
        if self._link_error is not None:
            raise self._link_error
        if len(self._failed) == 1:
            raise self._failed[0]
        if self._failed:
            raise DownloadError(
                f"{len(self._failed)} files could not be had:\n"
                + "\n".join(sorted(f"  {error}" for error in self._failed))
            )

    def _is_stuck(self) -> bool:
        """Tell whether the link has ended and only files remain that need more of it."""
        if self._link_error is None or not self._transfer.is_idle:
            return False
        return all(target.part.gaps() for target in self._pending)

    def _answer(self, report: Report | Retrying) -> Iterator[Event]:
        if isinstance(report, Retrying):
            yield report
            return
        target, found = report.target, report.found
        if target not in self._pending or report.part is not target.part:
            return  # it was restarted meanwhile, or has failed
        if isinstance(found, str):
            yield from self._whole(target, found)
        elif isinstance(found, ChangedError):
            yield from self._changed(target, found)
        elif isinstance(found, NoRangesError):
            if target.in_one:
                return  # another connection has said so
            self._transfer.fetch_in_one(target)
            yield Restarted(target.path, "the server sends whole files only: one connection for it")
        elif isinstance(found, LinkEndedError):
            if self._link_error is None:
                self._link_error = found
                yield LinkEnded(str(found))
        elif isinstance(found, DownloadError):
            yield self._fail(target, found)
        else:
            raise found

    def _whole(self, target: TransferTarget, md5: str) -> Iterator[Event]:
        if target.md5 in (None, md5):
            self._pending.remove(target)
            self._transfer.drop(target)
            yield Arrived(target.path, target.part.identity.nbytes, md5)
            return
        try:
            yield from self._compare(target.path)
        except DamagedFileError as error:  # what came may be right: it stays
            yield self._fail(target, error)
            return
        target.mismatches += 1
        what = f"expected md5 {target.md5}, and what came has {md5}"
        if target.mismatches == 1:
            self._start_anew(target)
            yield Restarted(target.path, what)
            return
        self._transfer.drop(target)
        target.part.discard()
        yield self._fail(
            target,
            DamagedFileError(f"{target.path}: {what}, twice: {WRONG_TWICE}"),
        )

    def _changed(self, target: TransferTarget, found: ChangedError) -> Iterator[Event]:
        target.restarts += 1
        if target.restarts > MAX_RESTARTS:
            reason = f"{target.path} changes on the server again and again: {found}"
            yield self._fail(target, DownloadError(f"{reason}. Run the same command later."))
            return
        yield Restarted(target.path, str(found))
        answer = yield from self._probe(target.path)
        self._transfer.drop(target)
        target.part = PartFile(target.final, answer.identity)
        target.in_one = not answer.accepts_ranges
        self._transfer.add(target)

    def _start_anew(self, target: TransferTarget) -> None:
        self._transfer.drop(target)
        target.part.discard()
        target.part = PartFile(target.final, target.part.identity)
        self._transfer.add(target)

    def _fail(self, target: TransferTarget, error: Exception) -> Failed:
        self._transfer.drop(target)
        self._pending.remove(target)
        self._failed.append(error)
        return Failed(target.path, str(error))


def _progress(target: TransferTarget) -> FileProgress:
    part, follower = target.part, target.follower
    hashed = follower.nbytes_hashed if follower else 0
    return FileProgress(target.path, part.identity.nbytes, part.nbytes_there, hashed)
