"""A download into another format with a signed link, from beginning to end."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

from llamakit.checkpoint.resumable_folder import (
    ResumableFolder,
    check_absent,
    hidden_path,
    resumable_folder,
)
from llamakit.download.catalog import Model
from llamakit.download.events import Event, Finished
from llamakit.download.fetcher import DownloadSettings
from llamakit.download.inventory import required_files
from llamakit.download.link import Link
from llamakit.download.small_files import ChecklistChangedError, Checklists
from llamakit.download_into.conversion import described
from llamakit.download_into.run import IntoRun, OpenCheckpoint
from llamakit.download_into.target_format import TargetFormat


class IntoDownload:
    """Downloads one model, and writes it in another format as it arrives.

    Args:
        folder: the output folder, created if absent.
        target: the format.
        open_checkpoint: opens a folder.
    """

    def __init__(
        self,
        model: Model,
        folder: Path,
        target: TargetFormat,
        open_checkpoint: OpenCheckpoint,
        settings: DownloadSettings | None = None,
    ) -> None:
        self.destination = folder / f"{Path(model.folder).name}{target.suffix}"
        self._model, self._target, self._open = model, target, open_checkpoint
        self._settings = settings or DownloadSettings()

    def run(self, link: Link) -> Iterator[Event]:
        """Fetch and convert what is missing; ``Converted`` and ``Finished`` are the last events.

        It may be called again with another link: what has arrived is not requested again.

        Raises:
            LinkExpiredError: the link has expired; ``run`` with a new one resumes.
            DestinationError: there is something already, or another run is at it.
            DownloadError, DamagedFileError, NoSpaceError: as of a download.
            CheckpointError, UnsupportedModelError: the model cannot be written in this format.
        """
        _check_time(link)
        check_absent(self.destination)
        started = time.monotonic()
        with contextlib.suppress(FileExistsError):
            self.destination.parent.mkdir(parents=True)
        with resumable_folder(self.destination) as work:
            run = self._start(work)
            lists = self._checklists(run.source)
            while True:
                try:
                    nfiles = yield from self._fetch(link, run, lists)
                    break
                except ChecklistChangedError:  # at most once per checklist
                    continue
        fetcher, seconds = run.fetcher, round(time.monotonic() - started, 3)
        yield Finished(nfiles, fetcher.nbytes_fetched, fetcher.nrequests, seconds)

    def verify_local(self) -> Generator[Event, None, bool]:
        """Complete the result without a request; return whether all shards had been fetched.

        Raises: as ``run``.
        """
        check_absent(self.destination)
        if not hidden_path(self.destination).is_dir():
            return False
        started = time.monotonic()
        with resumable_folder(self.destination) as work:
            run = self._start(work)
            lists = self._checklists(run.source)
            if not lists.are_on_disk():
                return False
            files = required_files([self._model], lists.on_disk())
            is_done = yield from run.complete_local(files)
        if is_done:
            yield Finished(len(files), 0, 0, round(time.monotonic() - started, 3))
        return is_done

    def plan(self, link: Link) -> Generator[Event, None, dict[str, object]]:
        """Plan the conversion from the indexes; write nothing that stays.

        Returns:
            As ``ConversionPlan.as_json``, but for the source, which is that of the server.
        Raises: as ``run``, but for what is at the destination, which is among ``refusals``.
        """
        _check_time(link)
        with tempfile.TemporaryDirectory(prefix="llamakit-") as folder:
            work = ResumableFolder(Path(folder), self.destination, None)
            run = self._start(work)
            lists = self._checklists(run.source)
            folders = {self._model.folder: self._model.server_folders}
            with run.fetcher.server(link, folders) as server:
                files = required_files([self._model], (yield from lists.get(server)))
                compare = partial(lists.compare, server)
                conversion = yield from run.preview(server, files, compare)
            return described(conversion, self._model.folder, hidden_path(self.destination))

    def _start(self, work: ResumableFolder) -> IntoRun:
        return IntoRun(work, self._model, self._target, self._open, self._settings)

    def _fetch(self, link: Link, run: IntoRun, lists: Checklists) -> Generator[Event, None, int]:
        """Fetch what is missing; return the number of files."""
        folders = {self._model.folder: self._model.server_folders}
        with run.fetcher.server(link, folders) as server:
            files = required_files([self._model], (yield from lists.get(server)))
            yield from run.fetch(server, files, partial(lists.compare, server))
        return len(files)

    def _checklists(self, folder: Path) -> Checklists:
        settings = self._settings
        return Checklists([self._model], folder, settings.retry_policy, repair=settings.repair)


def _check_time(link: Link) -> None:
    if link.policy is not None:
        link.policy.check_time()
