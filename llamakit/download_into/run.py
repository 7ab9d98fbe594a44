"""One run of a download into another format, from whatever server the files are on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

from llamakit.checkpoint.resumable_folder import ResumableFolder
from llamakit.download.catalog import Model
from llamakit.download.events import Checked, Event, FilePlan, Planned, Restarted
from llamakit.download.fetcher import DownloadSettings, Fetcher
from llamakit.download.http_client import HttpClient
from llamakit.download.inventory import RequiredFile, free_nbytes
from llamakit.download.provenance_record import record_models
from llamakit.download.responses import RemoteFile
from llamakit.download.shard_download import Compare
from llamakit.download.transfer import TransferTarget
from llamakit.download_into.conversion import (
    SOURCE,
    Conversion,
    check_room,
    complete,
    plan_conversion,
    prepare,
)
from llamakit.download_into.scattered_part import OutputFiles, ScatteredPart, verified_checksum
from llamakit.download_into.source_index import SourceIndexes
from llamakit.download_into.target_format import TargetFormat
from llamakit.errors import CheckpointError, LlamakitError
from llamakit.protocols import Checkpoint

OpenCheckpoint = Callable[[Path], Checkpoint]
RemoteFiles = dict[RequiredFile, RemoteFile]


class IntoRun:
    """Fetches the files of a model into the files of a conversion.

    Args:
        work: the hidden folder.
        model: of the catalog.
        target: what is to be made.
        open_checkpoint: opens a folder.
    """

    def __init__(
        self,
        work: ResumableFolder,
        model: Model,
        target: TargetFormat,
        open_checkpoint: OpenCheckpoint,
        settings: DownloadSettings,
    ) -> None:
        self.source = work.path / SOURCE
        self.source.mkdir(exist_ok=True)
        self.fetcher = Fetcher(self.source, settings)
        self._work, self._model, self._target = work, model, target
        self._open, self._settings = open_checkpoint, settings
        self._indexes = SourceIndexes(self.source)

    def fetch(
        self, server: HttpClient, files: Sequence[RequiredFile], compare: Compare
    ) -> Iterator[Event]:
        """Fetch and convert what is missing, and rename the result into place.

        Args:
            files: all of the model, but for checklists.
            compare: as of ``Fetcher.fetch``.

        Raises: as ``IntoDownload.run``.
        """
        yield from self._fetch_small(server, files, compare)
        large = [file for file in files if not file.is_small]
        remote_files = yield from self.fetcher.probe(server, large)
        conversion = yield from self._plan_from(server, files, remote_files)
        prepare(conversion, self._target, self._work, restart=self._settings.repair)
        check_room(conversion, self._work.path)
        with OutputFiles([self._work.product / it.name for it in conversion.plan.weights]) as out:
            targets = [
                self._scattered(file, remote, conversion, out)
                for file, remote in remote_files.items()
                if not self._verified(file, remote, conversion)
            ]
            yield Planned(tuple(self._file_plans(files, targets)), free_nbytes(self._work.path))
            yield from self.fetcher.fetch_targets(server, targets, compare)
        yield from self._complete(conversion, remote_files)

    def complete_local(self, files: Sequence[RequiredFile]) -> Generator[Event, None, bool]:
        """Complete the result without a request, if all shards are fetched and verified.

        Returns:
            Whether they are.
        """
        shards = [file for file in files if not file.is_small]
        remote_files = {file: self._indexes.known(file.path) for file in shards}
        found = {file: remote for file, remote in remote_files.items() if remote is not None}
        there = all((self.source / file.path).exists() for file in files)
        if not shards or not there or len(found) < len(shards):
            return False
        conversion = self._plan(files)
        if not all(self._verified(file, it, conversion) for file, it in found.items()):
            return False
        prepare(conversion, self._target, self._work, restart=self._settings.repair)
        if not all(self._verified(file, it, conversion) for file, it in found.items()):
            return False  # the files that they were written to are gone
        yield from self._complete(conversion, found)
        return True

    def preview(
        self, server: HttpClient, files: Sequence[RequiredFile], compare: Compare
    ) -> Generator[Event, None, Conversion]:
        """Plan the conversion, and fetch nothing but small files and indexes."""
        yield from self._fetch_small(server, files, compare)
        large = [file for file in files if not file.is_small]
        remote_files = yield from self.fetcher.probe(server, large)
        return (yield from self._plan_from(server, files, remote_files))

    def _fetch_small(
        self, server: HttpClient, files: Sequence[RequiredFile], compare: Compare
    ) -> Iterator[Event]:
        small = [file for file in files if file.is_small]
        for event in self.fetcher.fetch(server, small, compare):
            if not isinstance(event, Planned | Checked) or not getattr(event, "good", True):
                yield event

    def _plan_from(
        self, server: HttpClient, files: Sequence[RequiredFile], remote_files: RemoteFiles
    ) -> Generator[Event, None, Conversion]:
        """Fetch the indexes and plan; a second time if they are damaged."""
        by_path = {file.path: remote for file, remote in remote_files.items()}
        for is_last in (False, True):
            yield from self._indexes.fetch(server, by_path, self._settings.retry_policy)
            try:
                return self._plan(files)
            except LlamakitError as error:
                self._indexes.forget()
                if is_last or not isinstance(error, CheckpointError):
                    raise
                reason = "its index is damaged, or of another model than the others"
                yield Restarted(self._model.folder, reason)
        raise AssertionError("the last attempt returns or raises")

    def _plan(self, files: Sequence[RequiredFile]) -> Conversion:
        record_models(self.source, [self._model], files)
        place = self.source / self._model.folder
        return plan_conversion(place, self._work.destination, self._target, self._open)

    def _complete(
        self, conversion: Conversion, remote_files: RemoteFiles
    ) -> Generator[Event, None, None]:
        shards = {
            self.source / file.path: self._verified(file, remote, conversion) or ""
            for file, remote in remote_files.items()
        }
        yield from complete(conversion, self._target, self._work, shards, self._open)

    def _verified(
        self, file: RequiredFile, remote: RemoteFile, conversion: Conversion
    ) -> str | None:
        """Return the checksum of a shard that an earlier run has fetched and verified."""
        final = self.source / file.path
        return verified_checksum(final, remote.identity, file.checksum, conversion.layout)

    def _scattered(
        self, file: RequiredFile, remote: RemoteFile, conversion: Conversion, outputs: OutputFiles
    ) -> TransferTarget:
        final = self.source / file.path
        place = (conversion.map_of(final), outputs, conversion.layout)
        part = ScatteredPart(final, remote.identity, file.checksum, *place)
        return TransferTarget(file.path, file.checksum, part)

    def _file_plans(
        self, files: Sequence[RequiredFile], targets: Sequence[TransferTarget]
    ) -> Iterator[FilePlan]:
        parts = {target.path: target.part for target in targets}
        for file in files:
            part = parts.get(file.path)
            if part is None:
                nbytes = (self.source / file.path).stat().st_size
                yield FilePlan(file.path, nbytes, "there", nbytes)
            else:
                there, nbytes = part.nbytes_there, part.identity.nbytes
                yield FilePlan(file.path, nbytes, "part" if there else "missing", there)
