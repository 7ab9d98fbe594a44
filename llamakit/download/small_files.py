"""Fetches the small files: licenses, the tokenizer, params.json, and the checklists."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from llamakit.checkpoint.checklist import Checklist, parse_checklist, read_checklist
from llamakit.download.catalog import Model
from llamakit.download.events import Arrived, Event, Restarted
from llamakit.download.http_client import HttpClient
from llamakit.download.inventory import checklist_paths
from llamakit.download.retry import RetryPolicy, retried
from llamakit.errors import DamagedFileError, DownloadError, LinkExpiredError
from llamakit.files.atomic_file import write_atomically
from llamakit.files.disk_errors import disk_errors_explained
from llamakit.files.links import make_folders

WRONG_TWICE = (
    "the server's file is damaged, or has just changed. It was discarded; run the same command "
    "later."
)


class ChecklistChangedError(Exception):
    """The checklist on disk was out of date and has been replaced by the server's."""


class Checklists:
    """The checklists that models need.

    Args:
        folder: the output folder.
        repair: replace a checklist on disk that differs from the server's.
    """

    def __init__(
        self,
        models: Sequence[Model],
        folder: Path,
        retry_policy: RetryPolicy,
        *,
        repair: bool = False,
    ) -> None:
        self._paths = checklist_paths(models)
        self._folder = folder
        self._retry_policy = retry_policy
        self._repair = repair
        self._theirs: dict[str, Checklist | None] = {}

    def on_disk(self) -> dict[str, Checklist]:
        """Return the readable checklists on disk, by path."""
        lists = {path: checklist_on_disk(self._folder / path) for path in self._paths}
        return {path: checklist for path, checklist in lists.items() if checklist is not None}

    def are_on_disk(self) -> bool:
        """Tell whether none is missing."""
        return len(self.on_disk()) == len(self._paths)

    def get(
        self, server: HttpClient, *, keep: bool = True
    ) -> Generator[Event, None, dict[str, Checklist]]:
        """Return every checklist: the one on disk, else the server's.

        Args:
            keep: write fetched ones to the output folder.
        """
        lists = self.on_disk()
        for path in self._paths:
            if path not in lists:
                lists[path] = yield from self._fetch(server, path, keep=keep)
                self._theirs[path] = lists[path]
        return lists

    def compare(self, server: HttpClient, path: str) -> Generator[Event, None, None]:
        """Check whether a file is wrong because the checklist on disk is out of date.

        Raises:
            ChecklistChangedError: it was, and has been replaced by the server's.
            DamagedFileError: it is, and stays, because ``repair`` is off.
            LinkExpiredError: the link has expired.
        """
        name = PurePosixPath(path).name
        for listed, ours in self.on_disk().items():
            if PurePosixPath(listed).parent != PurePosixPath(path).parent:
                continue
            theirs = yield from self._of_server(server, listed)
            if theirs is None or theirs.entries.get(name) == ours.entries.get(name):
                continue
            if not self._repair:
                raise DamagedFileError(
                    f"{path}: the server has another version than {listed} on disk, which is of an "
                    "earlier download, and the server's checklist has changed too. Run the same "
                    "command with --repair to use the server's checklist; what is on disk is kept."
                )
            yield Restarted(listed, "the server has another version of it now")
            self._theirs[listed] = yield from self._fetch(server, listed, keep=True)
            raise ChecklistChangedError

    def _of_server(self, server: HttpClient, path: str) -> Generator[Event, None, Checklist | None]:
        """Return the server's checklist, requested once; None if it cannot be fetched."""
        if path not in self._theirs:
            try:
                self._theirs[path] = yield from self._fetch(server, path, keep=False)
            except LinkExpiredError:
                raise
            except (DownloadError, DamagedFileError):
                self._theirs[path] = None
        return self._theirs[path]

    def _fetch(
        self, server: HttpClient, path: str, *, keep: bool
    ) -> Generator[Event, None, Checklist]:
        """Fetch a checklist, a second time if the first response is none."""
        sent = Path(f"{PurePosixPath(path).name} as the server sent it")
        ask = partial(server.small_file, path)
        data = yield from retried(path, ask, self._retry_policy)
        try:
            checklist = parse_checklist(data, sent)
        except DamagedFileError as error:
            yield Restarted(path, error.for_commands)
            data = yield from retried(path, ask, self._retry_policy)
            checklist = parse_checklist(data, sent)
        if keep:
            keep_small(self._folder, path, data)
            yield Arrived(path, len(data), None)
        return replace(checklist, path=self._folder / path)


def checklist_on_disk(path: Path) -> Checklist | None:
    """Return a checklist; None if it is absent or cannot be read."""
    try:
        return read_checklist(path)
    except DamagedFileError:
        return None


def keep_small(folder: Path, path: str, data: bytes) -> None:
    """Write a fetched and verified small file atomically.

    Args:
        folder: the output folder.
        path: relative to it.
    Raises:
        DestinationError: another user has put a link or a folder there.
        NoSpaceError: the disk is full.
    """
    place = PurePosixPath(path)
    with disk_errors_explained(folder / path, kept=True):
        write_atomically(make_folders(folder, Path(place.parent)) / place.name, data)
