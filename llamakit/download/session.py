"""A download from beginning to end: verify what is on disk, fetch what is missing.

``Download.run`` yields events and may be called again with another link: what has arrived is not
requested again.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from llamakit.checkpoint.atomic_folder import check_space
from llamakit.download.catalog import Model, choose, read_catalog
from llamakit.download.events import Arrived, Checked, Event, Finished
from llamakit.download.exposure import exposure
from llamakit.download.http_client import HttpClient, RemoteFile
from llamakit.download.inventory import (
    RequiredFile,
    check,
    checklist_paths,
    plan_files,
    required_files,
)
from llamakit.download.link import Link, read_link
from llamakit.download.part_file import PartFile
from llamakit.download.rate_limit import RateLimit
from llamakit.download.retry import RetryPolicy, retried
from llamakit.download.shard_download import Compare, fetch_shards
from llamakit.download.small_files import (
    WRONG_TWICE,
    ChecklistChangedError,
    Checklists,
    keep_small,
    md5_of,
)
from llamakit.download.transfer import Transfer, TransferTarget
from llamakit.download.verified_files import VerifiedFiles, locked
from llamakit.errors import DamagedFileError
from llamakit.files.links import make_folders
from llamakit.plugin_manager.registry import Entry


@dataclass(frozen=True)
class DownloadSettings:
    """How to download.

    Args:
        connections: how many at the same time, over all files.
        timeout: how long to wait for the next byte, in seconds.
        limit_rate: bytes per second, over all connections; None is no limit.
        repair: replace files that are on disk but wrong.
    """

    connections: int = 8
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: float = 30.0
    limit_rate: float | None = None
    repair: bool = False


class Download:
    """Downloads models of the catalog into a folder.

    Args:
        folder: the output folder, created if absent; its layout is Meta's.
    """

    def __init__(
        self, models: Sequence[Model], folder: Path, settings: DownloadSettings | None = None
    ) -> None:
        self._models = models
        self._folder = folder
        self._settings = settings or DownloadSettings()
        self._nbytes = self._nrequests = 0  # of this run

    def plan(self, link: Link | None) -> Iterator[Event]:
        """Compute the plan, and write nothing.

        Args:
            link: to request checklists and sizes; None: the catalog's sizes, without a request.
        Yields:
            Events, ``Planned`` as the last.

        Raises:
            As ``run``.
        """
        listed = [RequiredFile(path) for path in checklist_paths(self._models)]
        if link is None:
            files = required_files(self._models, self._checklists().on_disk())
            yield plan_files(self._folder, [*listed, *files], {})
            return
        _check_time(link)
        with self._server(link) as server:
            lists = yield from self._checklists().get(server, keep=False)
            files = required_files(self._models, lists)
            missing = [file for file in files if not (self._folder / file.path).exists()]
            remote_files = yield from self._probe(server, missing)
        yield plan_files(self._folder, [*listed, *files], remote_files)

    def verify_local(self) -> Generator[Event, None, bool]:
        """Verify the files on disk without a request; return whether all are there and right.

        Raises:
            DamagedFileError: no file is missing, some are wrong, and ``repair`` is off.
        """
        started = time.monotonic()
        lists = self._checklists()
        if not lists.are_on_disk():
            return False
        verified = VerifiedFiles(self._folder)
        files = required_files(self._models, lists.on_disk())
        right, wrong = yield from self._check(files, verified)
        if len(right) + len(wrong) < len(files):
            return False
        if wrong:
            raise _wrong(wrong)
        verified.remove()
        yield Finished(len(files), 0, 0, round(time.monotonic() - started, 3))
        return True

    def run(self, link: Link) -> Iterator[Event]:
        """Fetch what is missing.

        Yields:
            Events, ``Finished`` as the last.

        Raises:
            LinkExpiredError: the link has expired; ``run`` with a new one resumes.
            DownloadError: the server sent something else, or could not be reached.
            DamagedFileError: a file was wrong twice, or is wrong on disk and ``repair`` is off.
            NoSpaceError: the disk has too little free space.
            DestinationError: another llamakit is downloading into the folder.
        """
        _check_time(link)
        started = time.monotonic()
        with contextlib.suppress(FileExistsError):
            self._folder.mkdir(parents=True)
        lists = self._checklists()
        self._nbytes = self._nrequests = 0
        with locked(self._folder):
            while True:
                try:
                    nfiles = yield from self._fetch(link, lists)
                    break
                except ChecklistChangedError:  # at most once per checklist
                    continue
        seconds = round(time.monotonic() - started, 3)
        yield Finished(nfiles, self._nbytes, self._nrequests, seconds)

    def _fetch(self, link: Link, lists: Checklists) -> Generator[Event, None, int]:
        """Fetch what is missing; return the number of files."""
        verified = VerifiedFiles(self._folder)
        with self._server(link) as server:
            files = required_files(self._models, (yield from lists.get(server)))
            right, wrong = yield from self._check(files, verified)
            missing = [file for file in files if file not in right and file.path not in wrong]
            small = [file for file in missing if file.is_small]
            large = [file for file in missing if not file.is_small]
            remote_files = yield from self._probe(server, large)
            plan = plan_files(self._folder, files, remote_files, missing=missing, wrong=wrong)
            yield plan
            check_space(self._folder, plan.nbytes_missing)
            compare = partial(lists.compare, server)
            for file in small:
                yield from self._fetch_small(server, file, verified, compare)
            yield from self._fetch_large(server, remote_files, verified, compare)
        if wrong:
            raise _wrong(wrong)
        verified.remove()
        return len(files)

    def _checklists(self) -> Checklists:
        settings = self._settings
        return Checklists(self._models, self._folder, settings.retry_policy, repair=settings.repair)

    @contextlib.contextmanager
    def _server(self, link: Link) -> Iterator[HttpClient]:
        settings = self._settings
        server = HttpClient(link, timeout=settings.timeout, connections=settings.connections)
        try:
            yield server
        finally:
            server.close()
            self._nrequests += server.nrequests

    def _check(
        self, files: Sequence[RequiredFile], verified: VerifiedFiles
    ) -> Generator[Event, None, tuple[set[RequiredFile], dict[str, str]]]:
        """Verify the files on disk; return the right ones, and the wrong ones to leave alone."""
        by_path = {file.path: file for file in files}
        right: set[RequiredFile] = set()
        wrong: dict[str, str] = {}
        for event in check(self._folder, files, verified):
            if isinstance(event, Checked) and event.good:
                right.add(by_path[event.path])
            elif isinstance(event, Checked) and not (self._settings.repair or event.is_page):
                wrong[event.path] = event.note
            yield event
        return right, wrong

    def _probe(
        self, server: HttpClient, files: Sequence[RequiredFile]
    ) -> Generator[Event, None, dict[RequiredFile, RemoteFile]]:
        """Ask the server for the sizes of large files."""
        remote_files = {}
        for file in files:
            if not file.is_small:
                ask = partial(server.probe, file.path)
                remote_files[file] = yield from retried(file.path, ask, self._settings.retry_policy)
        return remote_files

    def _fetch_small(
        self, server: HttpClient, file: RequiredFile, verified: VerifiedFiles, compare: Compare
    ) -> Iterator[Event]:
        """Fetch a small file, a second time if its MD5 is not the checklist's."""
        for _ in range(2):
            ask = partial(server.small_file, file.path)
            data = yield from retried(file.path, ask, self._settings.retry_policy)
            if file.md5 in (None, md5_of(data)):
                keep_small(self._folder, file.path, data)
                if file.md5:
                    verified.add(file.path, file.md5)
                yield Arrived(file.path, len(data), file.md5)
                return
            yield from compare(file.path)
        raise DamagedFileError(
            f"{file.path}: expected MD5 {file.md5}, fetched {len(data)} bytes with MD5 "
            f"{md5_of(data)}, twice: {WRONG_TWICE}"
        )

    def _fetch_large(
        self,
        server: HttpClient,
        remote_files: Mapping[RequiredFile, RemoteFile],
        verified: VerifiedFiles,
        compare: Compare,
    ) -> Iterator[Event]:
        """Fetch the shards."""
        settings = self._settings
        targets = [self._target(file, probe) for file, probe in remote_files.items()]
        transfer = Transfer(
            server,
            connections=settings.connections,
            retry_policy=settings.retry_policy,
            limit=RateLimit(settings.limit_rate) if settings.limit_rate else None,
        )
        try:
            for event in fetch_shards(transfer, targets, self._probe_again(server), compare):
                if isinstance(event, Arrived) and event.md5:
                    verified.add(event.path, event.md5)
                yield event
        finally:
            self._nbytes += transfer.nbytes_fetched

    def _target(self, file: RequiredFile, probe: RemoteFile) -> TransferTarget:
        place = PurePosixPath(file.path)
        final = make_folders(self._folder, Path(place.parent)) / place.name
        part = PartFile(final, probe.identity)
        return TransferTarget(file.path, final, file.md5, part, in_one=not probe.accepts_ranges)

    def _probe_again(
        self, server: HttpClient
    ) -> Callable[[str], Generator[Event, None, RemoteFile]]:
        retry_policy = self._settings.retry_policy
        return lambda path: retried(path, partial(server.probe, path), retry_policy)


def _check_time(link: Link) -> None:
    if link.policy is not None:
        link.policy.check_time()


def _wrong(files: Mapping[str, str]) -> DamagedFileError:
    listed = "; ".join(f"{path}: {note}" for path, note in files.items())
    return DamagedFileError(
        f"files on disk are wrong and were left alone: {listed}. Run the same command with "
        "--repair to fetch them again. Everything else is there."
    )


def fetch_models(
    names: Sequence[str],
    entries: Iterable[Entry],
    link: str,
    folder: Path,
    *,
    connections: int,
    limit_rate: float | None,
    repair: bool,
    on_event: Callable[[Event], None] | None,
) -> Finished:
    """Fetch models; ``llamakit.download_models`` explains the arguments.

    Args:
        entries: of the catalog, as plugins have registered them.
    """
    parsed = read_link(link)
    if warning := exposure(parsed):
        logging.getLogger(__name__).warning(warning)
    models = choose(names, read_catalog(entries), parsed)
    settings = DownloadSettings(connections=connections, limit_rate=limit_rate, repair=repair)
    for event in Download(models, folder, settings).run(parsed):
        if on_event is not None:
            on_event(event)
        if isinstance(event, Finished):
            return event
    raise AssertionError("the last event is Finished")
