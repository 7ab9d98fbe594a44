"""One download from beginning to end: what is there, what is missing, the transfer, the names.

``Download.run`` yields what happens and may be called again with another link: what has arrived
is not asked for again.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

from llamakit.checkpoint.checklist import Checklist
from llamakit.checkpoint.staging import check_space
from llamakit.download.catalogue import Model
from llamakit.download.events import Arrived, Checked, Event, Finished, Restarted, Retrying
from llamakit.download.inventory import Wanted, check, list_paths, plan_files, wanted_files
from llamakit.download.journal import Journal
from llamakit.download.link import Link
from llamakit.download.lock import locked
from llamakit.download.part_file import PartFile
from llamakit.download.rate import RateLimit
from llamakit.download.retry import Patience, persist
from llamakit.download.server import Probe, Server
from llamakit.download.shards import fetch_shards
from llamakit.download.small_files import (
    WRONG_TWICE,
    checklist_on_disk,
    keep_checklist,
    keep_small,
    md5_of,
)
from llamakit.download.transfer import Target, Transfer
from llamakit.errors import DamagedFileError

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
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
        self, models: Sequence[Model], folder: Path, settings: Settings | None = None
    ) -> None:
        self._models = models
        self._folder = folder
        self._settings = settings or Settings()

    def plan(self, link: Link | None) -> Iterator[Event]:
        """Say what would be done, and write nothing.

        Args:
            link: whom to ask for lists and sizes; None: the catalogue's sizes, and no request.
        Yields:
            Trouble on the way, and at last ``Planned``.

        Raises:
            As ``run``.
        """
        with tempfile.TemporaryDirectory(prefix="llamakit-") as name:
            if link is None:
                files = wanted_files(self._models, self._lists_on_disk())
                yield plan_files(self._folder, files, {})
                return
            _check_time(link)
            with self._server(link) as server:
                lists = yield from self._lists(server, Path(name))
                files = wanted_files(self._models, lists)
                missing = [file for file in files if not (self._folder / file.path).exists()]
                probes = yield from self._probe(server, missing)
            yield plan_files(self._folder, files, probes)

    def look(self) -> Generator[Event, None, bool]:
        """Check what is there without asking anybody; return whether nothing is to be fetched.

        Raises:
            DamagedFileError: everything is there but for what is wrong, and ``repair`` is off.
        """
        started = time.monotonic()
        lists = self._lists_on_disk()
        if len(lists) < len(list_paths(self._models)):
            return False
        journal = Journal(self._folder)
        files = wanted_files(self._models, lists)
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
        with locked(self._folder), self._server(link) as server:
            journal = Journal(self._folder)
            files = wanted_files(self._models, (yield from self._lists(server, self._folder)))
            right, wrong = yield from self._check(files, journal)
            missing = [file for file in files if file not in right and file.path not in wrong]
            small = [file for file in missing if file.is_small]
            large = [file for file in missing if not file.is_small]
            probes = yield from self._probe(server, large)
            plan = plan_files(self._folder, files, probes, missing=missing, wrong=wrong)
            yield plan
            check_space(self._folder, plan.nbytes_missing)
            for file in small:
                yield from self._fetch_small(server, file, journal)
            nbytes = yield from self._fetch_large(server, probes, journal)
            if wrong:
                raise _wrong(wrong)
            journal.remove()
            seconds = time.monotonic() - started
            yield Finished(len(files), nbytes, server.nrequests, round(seconds, 3))

    @contextlib.contextmanager
    def _server(self, link: Link) -> Iterator[Server]:
        settings = self._settings
        server = Server(link, timeout=settings.timeout, connections=settings.connections)
        try:
            yield server
        finally:
            server.close()

    def _lists_on_disk(self) -> dict[str, Checklist]:
        found = {path: checklist_on_disk(self._folder / path) for path in list_paths(self._models)}
        return {path: checklist for path, checklist in found.items() if checklist is not None}

    def _lists(self, server: Server, folder: Path) -> Generator[Event, None, dict[str, Checklist]]:
        """Return every checklist: the one that is there, else the server's, kept in ``folder``."""
        lists = self._lists_on_disk()
        for path in list_paths(self._models):
            if path not in lists:
                lists[path] = yield from self._fetch_list(server, path, folder)
        return lists

    def _fetch_list(
        self, server: Server, path: str, folder: Path
    ) -> Generator[Event, None, Checklist]:
        """Fetch a checklist, once more if what came is none."""
        final = folder / path
        final.parent.mkdir(parents=True, exist_ok=True)
        ask = partial(server.small_file, path)
        data = yield from self._patiently(path, ask)
        try:
            checklist = keep_checklist(final, data)
        except DamagedFileError as error:
            yield Restarted(path, str(error))
            data = yield from self._patiently(path, ask)
            checklist = keep_checklist(final, data)
        if folder == self._folder:
            yield Arrived(path, len(data), None)
        return checklist

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
        self, server: Server, files: Sequence[Wanted]
    ) -> Generator[Event, None, dict[Wanted, Probe]]:
        """Ask the server for the sizes of large files."""
        probes = {}
        for file in files:
            if not file.is_small:
                ask = partial(server.probe, file.path)
                probes[file] = yield from self._patiently(file.path, ask)
        return probes

    def _fetch_small(self, server: Server, file: Wanted, journal: Journal) -> Iterator[Event]:
        """Fetch a small file, once more if its md5 is not what its list says."""
        final = self._folder / file.path
        final.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            data = yield from self._patiently(file.path, lambda: server.small_file(file.path))
            if file.md5 in (None, md5_of(data)):
                keep_small(final, data)
                if file.md5:
                    journal.add(file.path, file.md5)
                yield Arrived(file.path, len(data), file.md5)
                return
        raise DamagedFileError(
            f"{file.path}: expected md5 {file.md5}, fetched {len(data)} bytes with md5 "
            f"{md5_of(data)}, twice: {WRONG_TWICE}"
        )

    def _fetch_large(
        self, server: Server, probes: Mapping[Wanted, Probe], journal: Journal
    ) -> Generator[Event, None, int]:
        """Fetch the shards; return how many bytes came."""
        settings = self._settings
        targets = [self._target(file, probe) for file, probe in probes.items()]
        transfer = Transfer(
            server,
            connections=settings.connections,
            patience=settings.patience,
            limit=RateLimit(settings.limit_rate) if settings.limit_rate else None,
        )
        for event in fetch_shards(transfer, targets, self._probe_again(server)):
            if isinstance(event, Arrived) and event.md5:
                journal.add(event.path, event.md5)
            yield event
        return transfer.nbytes_fetched

    def _target(self, file: Wanted, probe: Probe) -> Target:
        final = self._folder / PurePosixPath(file.path)
        final.parent.mkdir(parents=True, exist_ok=True)
        part = PartFile(final, probe.identity)
        return Target(file.path, final, file.md5, part, in_one=not probe.accepts_ranges)

    def _probe_again(self, server: Server) -> Callable[[str], Generator[Event, None, Probe]]:
        return lambda path: self._patiently(path, lambda: server.probe(path))

    def _patiently(self, path: str, attempt: Callable[[], T]) -> Generator[Event, None, T]:
        """Try until it works or patience is over, saying so."""
        steps = persist(attempt, self._settings.patience)
        while True:
            try:
                trouble = next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
            yield Retrying(path, trouble.reason, trouble.seconds)
            time.sleep(trouble.seconds)


def _check_time(link: Link) -> None:
    if link.policy is not None:
        link.policy.check_time()


def _wrong(files: Mapping[str, str]) -> DamagedFileError:
    listed = "; ".join(f"{path}: {note}" for path, note in files.items())
    return DamagedFileError(
        f"what was here already and is wrong was left alone: {listed}. Run the same command with "
        "--repair to fetch it again. Everything else is there."
    )
