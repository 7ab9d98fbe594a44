"""Downloads the files of a repository of the Hugging Face hub.

``huggingface_hub`` says which files there are, knows the token, and finds what is in its cache. The
bytes come as from Meta's link: over several connections, resumed, verified, never into that cache.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from llamakit.checkpoint.block_reader import read_blocks
from llamakit.download.checksums import Hasher
from llamakit.download.events import Arrived, Event, Finished, arrived
from llamakit.download.exposure import exposure
from llamakit.download.fetcher import DownloadSettings, Fetcher
from llamakit.download.hub_repo import HubFiles, HubRepo, list_files
from llamakit.download.inventory import RequiredFile, plan_files
from llamakit.download.part_file import partial_paths
from llamakit.download.provenance_record import record_repo
from llamakit.download.retry import retried
from llamakit.download.verified_files import locked
from llamakit.files.disk_errors import disk_errors_explained
from llamakit.files.links import make_folders
from llamakit.files.regular_file import open_own


class HubDownload:
    """Downloads a repository into a folder of its name.

    Args:
        folder: the output folder, created if absent.
        include: patterns of files; none: ``original/*`` where there is such a folder, else all.
    """

    def __init__(
        self, repo: HubRepo, folder: Path, settings: DownloadSettings, include: Sequence[str] = ()
    ) -> None:
        self._repo, self._folder, self._include = repo, folder, include
        self._settings = settings

    def plan(self) -> Iterator[Event]:
        """Compute the plan from the hub's list, and write nothing; ``Planned`` is the last event.

        Raises: as ``run``.
        """
        listed = yield from self._list()
        yield plan_files(self._folder, listed.files, {})

    def run(self) -> Iterator[Event]:
        """Fetch what is missing; ``Finished`` is the last event.

        Raises:
            MissingExtraError: huggingface_hub is not installed.
            DownloadError: there is no such repository, revision or file, or no access to it.
            DamagedFileError, NoSpaceError, DestinationError: as of a download with Meta's link.
        """
        started = time.monotonic()
        listed = yield from self._list()
        with contextlib.suppress(FileExistsError):
            self._folder.mkdir(parents=True)
        fetcher = Fetcher(self._folder, self._settings)
        with locked(self._folder), fetcher.server(listed.link) as server:
            have = partial(self._from_cache, listed.commit)
            yield from fetcher.fetch(server, listed.files, _no_other_checksum, have)
            record_repo(self._folder, self._repo.repo_id, listed.commit, listed.files)
        seconds = round(time.monotonic() - started, 3)
        yield Finished(len(listed.files), fetcher.nbytes_fetched, fetcher.nrequests, seconds)

    def _list(self) -> Generator[Event, None, HubFiles]:
        ask = partial(list_files, self._repo, self._include, self._settings.timeout)
        listed = yield from retried(str(self._repo), ask, self._settings.retry_policy)
        warning = exposure(listed.link, "HF_ENDPOINT", "your token")
        if warning and listed.link.token:
            logging.getLogger(__name__).warning(warning)
        return listed

    def _from_cache(self, commit: str, files: Sequence[RequiredFile]) -> Iterator[Arrived]:
        """Copy what the hub's cache on this machine has."""
        from huggingface_hub import try_to_load_from_cache

        for file in files:
            name = file.path.removeprefix(f"{self._repo.folder}/")
            cached = try_to_load_from_cache(self._repo.repo_id, name, revision=commit)
            if isinstance(cached, str) and self._copy(Path(cached), file):
                yield arrived(file.path, file.nbytes, file.checksum)

    def _copy(self, source: Path, file: RequiredFile) -> bool:
        """Copy a file into place; return whether its checksum is right, else leave nothing."""
        place = PurePosixPath(file.path)
        final = make_folders(self._folder, Path(place.parent)) / place.name
        copy = final.with_name(f"{final.name}.part.copy")
        hasher = Hasher(file.checksum, file.nbytes)
        with disk_errors_explained(copy, kept=True):
            copy.unlink(missing_ok=True)
            descriptor = open_own(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            with os.fdopen(descriptor, "wb") as target:
                for offset, block in read_blocks(source.resolve()):
                    hasher.update(offset, block)
                    target.write(block)
                target.flush()
                os.fsync(target.fileno())
            if hasher.hexdigest() != file.checksum:
                copy.unlink()
                return False
            copy.replace(final)
            for leftover in partial_paths(final):
                leftover.unlink(missing_ok=True)
        return True


def _no_other_checksum(path: str) -> Generator[Event, None, None]:  # noqa: ARG001
    """Do nothing: the hub's list is of this run."""
    yield from ()
