"""One download from beginning to end: what is there, what is missing, the transfer, the names.

``Download.run`` yields what happens and may be called again with another link: what has arrived
is not asked for again.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from llamakit.checkpoint.atomic_folder import check_space
from llamakit.download.catalog import Model, choose, read_catalogue
from llamakit.download.events import Arrived, Checked, Event, Finished
from llamakit.download.http_client import HttpClient, Probe
from llamakit.download.inventory import Wanted, check, list_paths, plan_files, wanted_files
from llamakit.download.journal import Journal, locked
from llamakit.download.link import Link, read_link
from llamakit.download.part_file import PartFile
from llamakit.download.rate import RateLimit
from llamakit.download.retry import Patience, patiently
from llamakit.download.shard_download import Compare, fetch_shards
from llamakit.download.small_files import (
    WRONG_TWICE,
    ListChangedError,
    Lists,
    keep_small,
    md5_of,
)
from llamakit.download.transfer import Transfer, TransferTarget
from llamakit.errors import DamagedFileError
from llamakit.plugin_manager.registry import Entry


@dataclass(frozen=True)
class DownloadSettings:
    """How to download.

    Args:
        connections: how many at the same time, over all files.
        timeout: how long a server may be silent, in seconds.
        limit_rate: bytes a second, over all connections; None is no limit.
        repair: replace files that are there but wrong.
    """

    connections: int = 8
    patience: Patience = field(default_factory=Patience)
    timeout: float = 30.0
    limit_rate: float | None = None
    repair: bool = False


class Download:
    """Some models of the catalogue, on their way into a folder.

    Args:
        folder: the output folder, made if it is absent; Meta's layout appears in it.
    """

    def __init__(
        self, models: Sequence[Model], folder: Path, settings: DownloadSettings | None = None
    ) -> None:
        self._models = models
        self._folder = folder
        self._settings = settings or DownloadSettings()
        self._nbytes = self._nrequests = 0  # of this run

    def plan(self, link: Link | None) -> Iterator[Event]:
        """Say what would be done, and write nothing.

        Args:
            link: whom to ask for lists and sizes; None: the catalogue's sizes, and no request.
        Yields:
            Trouble on the way, and at last ``Planned``.

        Raises:
            As ``run``.
        """
        listed = [Wanted(path) for path in list_paths(self._models)]
        if link is None:
            files = wanted_files(self._models, self._lists().on_disk())
            yield plan_files(self._folder, [*listed, *files], {})
            return
        _check_time(link)
        with tempfile.TemporaryDirectory(prefix="llamakit-") as name, self._server(link) as server:
            lists = yield from self._lists().get(server, Path(name))
            files = wanted_files(self._models, lists)
            missing = [file for file in files if not (self._folder / file.path).exists()]
            probes = yield from self._probe(server, missing)
        yield plan_files(self._folder, [*listed, *files], probes)

    def look(self) -> Generator[Event, None, bool]:
        """Check what is there without asking anybody; return whether nothing is to be fetched.

        Raises:
            DamagedFileError: everything is there but for what is wrong, and ``repair`` is off.
        """
        started = time.monotonic()
        lists = self._lists()
        if not lists.are_here():
            return False
        journal = Journal(self._folder)
        files = wanted_files(self._models, lists.on_disk())
        right, wrong = yield from self._check(files, journal)
        if len(right) + len(wrong) < len(files):
            return False
        if wrong:
            raise _wrong(wrong)
        journal.remove()
        yield Finished(len(files), 0, 0, round(time.monotonic() - started, 3))
        return True

    def run(self, link: Link) -> Iterator[Event]:
        """Fetch what is missing.

        Yields:
            What happens, as it does; ``Finished`` is the last.

        Raises:
            LinkEndedError: the link has ended; ``run`` with a new one goes on.
            DownloadError: the server did not give what it should, or could not be reached.
            DamagedFileError: a file is wrong twice, or was there, wrong, and ``repair`` is off.
            NoSpaceError: there is no room.
            DestinationError: another llamakit downloads into the folder at this moment.
        """
        _check_time(link)
        started = time.monotonic()
        with contextlib.suppress(FileExistsError):
            self._folder.mkdir(parents=True)
        lists = self._lists()
        self._nbytes = self._nrequests = 0
        with locked(self._folder):
            while True:
                try:
                    nfiles = yield from self._fetch(link, lists)
                    break
                except ListChangedError:  # of each list once at most
                    continue
        seconds = round(time.monotonic() - started, 3)
        yield Finished(nfiles, self._nbytes, self._nrequests, seconds)

    def _fetch(self, link: Link, lists: Lists) -> Generator[Event, None, int]:
        """Fetch what is missing; return how many files are there then."""
        journal = Journal(self._folder)
        with self._server(link) as server:
            files = wanted_files(self._models, (yield from lists.get(server)))
            right, wrong = yield from self._check(files, journal)
            missing = [file for file in files if file not in right and file.path not in wrong]
            small = [file for file in missing if file.is_small]
            large = [file for file in missing if not file.is_small]
            probes = yield from self._probe(server, large)
            plan = plan_files(self._folder, files, probes, missing=missing, wrong=wrong)
            yield plan
            check_space(self._folder, plan.nbytes_missing)
            compare = partial(lists.compare, server)
            for file in small:
                yield from self._fetch_small(server, file, journal, compare)
            yield from self._fetch_large(server, probes, journal, compare)
        if wrong:
            raise _wrong(wrong)
        journal.remove()
        return len(files)

    def _lists(self) -> Lists:
        settings = self._settings
        return Lists(self._models, self._folder, settings.patience, repair=settings.repair)

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
        self, files: Sequence[Wanted], journal: Journal
    ) -> Generator[Event, None, tuple[set[Wanted], dict[str, str]]]:
        """Sort the files that are there into right ones and wrong ones that are left alone."""
        by_path = {file.path: file for file in files}
        right: set[Wanted] = set()
        wrong: dict[str, str] = {}
        for event in check(self._folder, files, journal):
            if isinstance(event, Checked) and event.good:
                right.add(by_path[event.path])
            elif isinstance(event, Checked) and not (self._settings.repair or event.is_page):
                wrong[event.path] = event.note
            yield event
        return right, wrong

    def _probe(
        self, server: HttpClient, files: Sequence[Wanted]
    ) -> Generator[Event, None, dict[Wanted, Probe]]:
        """Ask the server for the sizes of large files."""
        probes = {}
        for file in files:
            if not file.is_small:
                ask = partial(server.probe, file.path)
                probes[file] = yield from patiently(file.path, ask, self._settings.patience)
        return probes

    def _fetch_small(
        self, server: HttpClient, file: Wanted, journal: Journal, compare: Compare
    ) -> Iterator[Event]:
        """Fetch a small file, once more if its md5 is not what its list says."""
        final = self._folder / file.path
        final.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            ask = partial(server.small_file, file.path)
            data = yield from patiently(file.path, ask, self._settings.patience)
            if file.md5 in (None, md5_of(data)):
                keep_small(final, data)
                if file.md5:
                    journal.add(file.path, file.md5)
                yield Arrived(file.path, len(data), file.md5)
                return
            yield from compare(file.path)
        raise DamagedFileError(
            f"{file.path}: expected md5 {file.md5}, fetched {len(data)} bytes with md5 "
            f"{md5_of(data)}, twice: {WRONG_TWICE}"
        )

    def _fetch_large(
        self, server: HttpClient, probes: Mapping[Wanted, Probe], journal: Journal, compare: Compare
    ) -> Iterator[Event]:
        """Fetch the shards."""
        settings = self._settings
        targets = [self._target(file, probe) for file, probe in probes.items()]
        transfer = Transfer(
            server,
            connections=settings.connections,
            patience=settings.patience,
            limit=RateLimit(settings.limit_rate) if settings.limit_rate else None,
        )
        try:
            for event in fetch_shards(transfer, targets, self._probe_again(server), compare):
                if isinstance(event, Arrived) and event.md5:
                    journal.add(event.path, event.md5)
                yield event
        finally:
            self._nbytes += transfer.nbytes_fetched

    def _target(self, file: Wanted, probe: Probe) -> TransferTarget:
        final = self._folder / PurePosixPath(file.path)
        final.parent.mkdir(parents=True, exist_ok=True)
        part = PartFile(final, probe.identity)
        return TransferTarget(file.path, final, file.md5, part, in_one=not probe.accepts_ranges)

    def _probe_again(self, server: HttpClient) -> Callable[[str], Generator[Event, None, Probe]]:
        patience = self._settings.patience
        return lambda path: patiently(path, partial(server.probe, path), patience)


def _check_time(link: Link) -> None:
    if link.policy is not None:
        link.policy.check_time()


def _wrong(files: Mapping[str, str]) -> DamagedFileError:
    listed = "; ".join(f"{path}: {note}" for path, note in files.items())
    return DamagedFileError(
        f"what was here already and is wrong was left alone: {listed}. Run the same command with "
        "--repair to fetch it again. Everything else is there."
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
        entries: the catalogue, as plugins have registered it.
    """
    found = read_link(link)
    models = choose(names, read_catalogue(entries), found)
    settings = DownloadSettings(connections=connections, limit_rate=limit_rate, repair=repair)
    for event in Download(models, folder, settings).run(found):
        if on_event is not None:
            on_event(event)
        if isinstance(event, Finished):
            return event
    raise AssertionError("the last event is Finished")
