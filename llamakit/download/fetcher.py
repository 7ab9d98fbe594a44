"""Fetches a list of files: verifies what is on disk, fetches and verifies what is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from llamakit.checkpoint.atomic_folder import check_space
from llamakit.download.checksums import checksum_of, kind
from llamakit.download.events import Arrived, Checked, Event, arrived
from llamakit.download.http_client import HttpClient
from llamakit.download.inventory import RequiredFile, check, plan_files
from llamakit.download.link import Link
from llamakit.download.part_file import Identity, PartFile
from llamakit.download.rate_limit import RateLimit
from llamakit.download.responses import RemoteFile
from llamakit.download.retry import RetryPolicy, retried
from llamakit.download.shard_download import Compare, fetch_shards
from llamakit.download.small_files import WRONG_TWICE, keep_small
from llamakit.download.transfer import Transfer, TransferTarget
from llamakit.download.verified_files import VerifiedFiles
from llamakit.errors import DamagedFileError
from llamakit.files.links import make_folders


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


Have = Callable[[Sequence[RequiredFile]], Iterator[Arrived]]


class Fetcher:
    """Fetches files from one server into a folder.

    Args:
        folder: the output folder.
    """

    def __init__(self, folder: Path, settings: DownloadSettings) -> None:
        self.folder, self.settings = folder, settings
        self.nbytes_fetched = self.nrequests = 0

    @contextlib.contextmanager
    def server(
        self, link: Link, folders: Mapping[str, Sequence[str]] | None = None
    ) -> Iterator[HttpClient]:
        """Connect to the server of a link.

        Args:
            folders: what folders may be called there, by their names on disk.
        """
        settings = self.settings
        server = HttpClient(
            link, timeout=settings.timeout, connections=settings.connections, folders=folders
        )
        try:
            yield server
        finally:
            server.close()
            self.nrequests += server.nrequests

    def fetch(
        self,
        server: HttpClient,
        files: Sequence[RequiredFile],
        compare: Compare,
        have: Have = lambda _: iter(()),
    ) -> Iterator[Event]:
        """Fetch the files that are missing.

        Args:
            compare: called when a checksum is wrong.
            have: called with the missing files; yields ``Arrived`` for those that need no server.

        Raises:
            DamagedFileError: some are wrong on disk and ``repair`` is off; the others are there.
            DownloadError, NoSpaceError: they cannot be fetched.
        """
        verified = VerifiedFiles(self.folder)
        right, wrong = yield from self.check(files, verified)
        missing = [file for file in files if file not in right and file.path not in wrong]
        for event in have(missing):
            yield event
            missing = [file for file in missing if file.path != event.path]
        large = [file for file in missing if not file.is_small]
        remote_files = yield from self.probe(server, large)
        plan = plan_files(self.folder, files, remote_files, missing=missing, wrong=wrong)
        yield plan
        check_space(self.folder, plan.nbytes_missing)
        for file in missing:
            if file.is_small:
                yield from self._fetch_small(server, file, verified, compare)
        yield from self._fetch_large(server, remote_files, verified, compare)
        if wrong:
            raise wrong_on_disk(wrong)
        verified.remove()

    def check(
        self, files: Sequence[RequiredFile], verified: VerifiedFiles
    ) -> Generator[Event, None, tuple[set[RequiredFile], dict[str, str]]]:
        """Verify the files on disk; return the right ones, and the wrong ones to leave alone."""
        by_path = {file.path: file for file in files}
        right: set[RequiredFile] = set()
        wrong: dict[str, str] = {}
        for event in check(self.folder, files, verified):
            if isinstance(event, Checked) and event.good:
                right.add(by_path[event.path])
            elif isinstance(event, Checked) and not (self.settings.repair or event.is_page):
                wrong[event.path] = event.note
            yield event
        return right, wrong

    def probe(
        self, server: HttpClient, files: Sequence[RequiredFile]
    ) -> Generator[Event, None, dict[RequiredFile, RemoteFile]]:
        """Ask the server for the sizes of large files, as far as they are not known."""
        remote_files = {}
        for file in files:
            if not file.is_small and file.is_exact:
                remote_files[file] = RemoteFile(Identity(file.path, file.nbytes, ""), True)
            elif not file.is_small:
                ask = partial(server.probe, file.path)
                remote_files[file] = yield from retried(file.path, ask, self.settings.retry_policy)
        return remote_files

    def _fetch_small(
        self, server: HttpClient, file: RequiredFile, verified: VerifiedFiles, compare: Compare
    ) -> Iterator[Event]:
        """Fetch a small file, a second time if its checksum is wrong."""
        for _ in range(2):
            ask = partial(server.small_file, file.path, file.checksum)
            data = yield from retried(file.path, ask, self.settings.retry_policy)
            if file.checksum in (None, actual := checksum_of(data, file.checksum)):
                keep_small(self.folder, file.path, data)
                if file.checksum:
                    verified.add(file.path, file.checksum)
                yield arrived(file.path, len(data), file.checksum)
                return
            yield from compare(file.path)
        raise DamagedFileError(
            f"{file.path}: expected {kind(file.checksum)} {file.checksum}, fetched {len(data)} "
            f"bytes with {actual}, twice: {WRONG_TWICE}"
        )

    def _fetch_large(
        self,
        server: HttpClient,
        remote_files: Mapping[RequiredFile, RemoteFile],
        verified: VerifiedFiles,
        compare: Compare,
    ) -> Iterator[Event]:
        """Fetch the shards."""
        targets = [self._target(file, probe) for file, probe in remote_files.items()]
        for event in self.fetch_targets(server, targets, compare):
            if isinstance(event, Arrived) and (checksum := event.md5 or event.sha256):
                verified.add(event.path, checksum)
            yield event

    def fetch_targets(
        self, server: HttpClient, targets: Sequence[TransferTarget], compare: Compare
    ) -> Iterator[Event]:
        """Fetch files with all connections; raises as ``fetch_shards``."""
        settings = self.settings
        transfer = Transfer(
            server,
            connections=settings.connections,
            retry_policy=settings.retry_policy,
            limit=RateLimit(settings.limit_rate) if settings.limit_rate else None,
        )
        try:
            yield from fetch_shards(transfer, targets, self._probe_again(server), compare)
        finally:
            self.nbytes_fetched += transfer.nbytes_fetched

    def _target(self, file: RequiredFile, probe: RemoteFile) -> TransferTarget:
        place = PurePosixPath(file.path)
        final = make_folders(self.folder, Path(place.parent)) / place.name
        part = PartFile(final, probe.identity)
        return TransferTarget(file.path, file.checksum, part, in_one=not probe.accepts_ranges)

    def _probe_again(
        self, server: HttpClient
    ) -> Callable[[str], Generator[Event, None, RemoteFile]]:
        retry_policy = self.settings.retry_policy
        return lambda path: retried(path, partial(server.probe, path), retry_policy)


def wrong_on_disk(files: Mapping[str, str]) -> DamagedFileError:
    """Return the error for files that are wrong and were left alone."""
    listed = "; ".join(f"{path}: {note}" for path, note in files.items())
    return DamagedFileError(
        f"files on disk are wrong and were left alone: {listed}. Run the same command with "
        "--repair to fetch them again. Everything else is there."
    )
