"""A download from beginning to end: verify what is on disk, fetch what is missing.

``Download.run`` yields events and may be called again with another link: what has arrived is not
requested again.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Protocol

from llamakit.download.catalog import Model, choose, read_catalog
from llamakit.download.events import Event, Finished
from llamakit.download.exposure import exposure
from llamakit.download.fetcher import DownloadSettings, Fetcher, wrong_on_disk
from llamakit.download.http_client import HttpClient
from llamakit.download.inventory import (
    RequiredFile,
    checklist_paths,
    plan_files,
    required_files,
)
from llamakit.download.link import Link, read_link
from llamakit.download.provenance_record import record_models
from llamakit.download.small_files import ChecklistChangedError, Checklists
from llamakit.download.verified_files import VerifiedFiles, locked
from llamakit.plugin_manager.registry import Entry


class Session(Protocol):
    """What fetches models, such as a ``Download``."""

    def run(self, link: Link) -> Iterator[Event]:
        """Fetch what is missing; ``Finished`` is the last event."""
        ...

    def verify_local(self) -> Generator[Event, None, bool]:
        """Tell whether nothing is missing, without a request."""
        ...


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
        self._fetcher = Fetcher(folder, self._settings)  # of this run

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
            remote_files = yield from self._fetcher.probe(server, missing)
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
        right, wrong = yield from self._fetcher.check(files, verified)
        if len(right) + len(wrong) < len(files):
            return False
        if wrong:
            raise wrong_on_disk(wrong)
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
        fetcher = self._fetcher = Fetcher(self._folder, self._settings)
        with locked(self._folder):
            while True:
                try:
                    nfiles = yield from self._fetch(link, lists)
                    break
                except ChecklistChangedError:  # at most once per checklist
                    continue
        seconds = round(time.monotonic() - started, 3)
        yield Finished(nfiles, fetcher.nbytes_fetched, fetcher.nrequests, seconds)

    def _fetch(self, link: Link, lists: Checklists) -> Generator[Event, None, int]:
        """Fetch what is missing; return the number of files."""
        with self._server(link) as server:
            files = required_files(self._models, (yield from lists.get(server)))
            yield from self._fetcher.fetch(server, files, partial(lists.compare, server))
        record_models(self._folder, self._models, files)
        return len(files)

    def _checklists(self) -> Checklists:
        settings = self._settings
        return Checklists(self._models, self._folder, settings.retry_policy, repair=settings.repair)

    def _server(self, link: Link) -> contextlib.AbstractContextManager[HttpClient]:
        folders = {model.folder: model.server_folders for model in self._models}
        return self._fetcher.server(link, folders)


def _check_time(link: Link) -> None:
    if link.policy is not None:
        link.policy.check_time()


def fetch_models(
    names: Sequence[str],
    entries: Iterable[Entry],
    link: str,
    sessions: Callable[[Sequence[Model]], Sequence[Session]],
    on_event: Callable[[Event], None] | None,
) -> Finished:
    """Fetch models; ``llamakit.download_models`` explains the arguments.

    Args:
        entries: of the catalog, as plugins have registered them.
        sessions: makes what fetches the chosen models, one after the other.
    Returns:
        How much all of them have fetched.
    """
    parsed = read_link(link)
    if warning := exposure(parsed):
        logging.getLogger(__name__).warning(warning)
    total = Finished(0, 0, 0, 0.0)
    for session in sessions(choose(names, read_catalog(entries), parsed)):
        for event in session.run(parsed):
            if on_event is not None:
                on_event(event)
            if isinstance(event, Finished):
                total = Finished(*map(sum, zip(astuple(total), astuple(event), strict=True)))
    return total
