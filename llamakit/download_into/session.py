"""A download into another format with a signed link, from beginning to end."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

from llamakit.checkpoint.provenance_reader import read_steps
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
from llamakit.download_into.conversion import described, discard_unused
from llamakit.download_into.run import IntoRun, OpenCheckpoint
from llamakit.download_into.target_format import TargetFormat
from llamakit.errors import LlamakitError
from llamakit.files.links import is_trusted


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

    def is_done(self) -> bool:
        """Tell whether an earlier run has written the result: it says that it is of this model.

        Raises:
            DestinationError: something else is there, or ``repair`` is on.
        """
        if not self._settings.repair and self._is_recorded():
            return True
        check_absent(self.destination)
        return False

    def run(self, link: Link) -> Iterator[Event]:
        """Fetch and convert what is missing; ``Converted`` and ``Finished`` are the last events.

        If an earlier run has done so, ``Finished`` is the only one.
        It may be called again with another link: what has arrived is not requested again.

        Raises:
            LinkExpiredError: the link has expired; ``run`` with a new one resumes.
            DestinationError: there is something already, or another run is at it.
            DownloadError, DamagedFileError, NoSpaceError: as of a download.
            CheckpointError, UnsupportedModelError: the model cannot be written in this format.
        """
        if self.is_done():
            yield Finished(0, 0, 0, 0.0)
            return
        _check_time(link)
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
                except LlamakitError:
                    discard_unused(work)
                    raise
        fetcher, seconds = run.fetcher, round(time.monotonic() - started, 3)
        yield Finished(nfiles, fetcher.nbytes_fetched, fetcher.nrequests, seconds)

    def verify_local(self) -> Generator[Event, None, bool]:
        """Complete the result without a request; return whether all shards had been fetched.

        Raises: as ``run``.
        """
        if self.is_done():
            yield Finished(0, 0, 0, 0.0)
            return True
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

    def _is_recorded(self) -> bool:
        """Tell whether what is at the destination says that it was made of this model."""
        try:
            if not is_trusted(self.destination.stat()):
                return False
            steps = read_steps(self.destination)
        except (OSError, LlamakitError):
            return False
        name = Path(self._model.folder).name
        return bool(steps) and [source.name for source in steps[-1].sources] == [name]

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
