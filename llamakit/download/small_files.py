"""The files around the shards: licenses, the tokenizer, params.json, and the checklists."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from llamakit.checkpoint.atomic_folder import told_when_full
from llamakit.checkpoint.checklist import Checklist, read_checklist
from llamakit.download.catalog import Model
from llamakit.download.events import Arrived, Event, Restarted
from llamakit.download.http_client import HttpClient
from llamakit.download.inventory import list_paths
from llamakit.download.part_file import sync_folder
from llamakit.download.retry import Patience, patiently
from llamakit.errors import DamagedFileError, DownloadError, LinkEndedError

WRONG_TWICE = (
    "the server's file is damaged, or changed a moment ago. What came was not kept; run the same "
    "command later."
)


class ListChangedError(Exception):
    """The server has another list than an earlier run had left; the new one is kept now."""


class Lists:
    """The checklists that models need.

    Args:
        folder: the output folder.
        repair: take the server's list where it says something else of a file that has come.
    """

    def __init__(
        self, models: Sequence[Model], folder: Path, patience: Patience, *, repair: bool = False
    ) -> None:
        self._paths = list_paths(models)
        self._folder = folder
        self._patience = patience
        self._repair = repair
        self._theirs: dict[str, Checklist | None] = {}

    def on_disk(self) -> dict[str, Checklist]:
        """Return those that are here and can be read, by path."""
        found = {path: checklist_on_disk(self._folder / path) for path in self._paths}
        return {path: checklist for path, checklist in found.items() if checklist is not None}

    def are_here(self) -> bool:
        """Tell whether none is missing."""
        return len(self.on_disk()) == len(self._paths)

    def get(
        self, server: HttpClient, folder: Path | None = None
    ) -> Generator[Event, None, dict[str, Checklist]]:
        """Return every list: the one that is here, else the server's.

        Args:
            folder: where what is fetched is kept; None: where it belongs.
        """
        lists = self.on_disk()
        for path in self._paths:
            if path not in lists:
                lists[path] = yield from self._fetch(server, path, folder)
                self._theirs[path] = lists[path]
        return lists

    def compare(self, server: HttpClient, path: str) -> Generator[Event, None, None]:
        """Find out whether a file came wrong because the list here is an old one.

        Raises:
            ListChangedError: it was, and the server's is here now.
            DamagedFileError: it is, and stays, for nobody has asked for ``repair``.
            LinkEndedError: the link is no longer good.
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
                    f"{path} came as another version than the {listed} that is here, of an "
                    "earlier download, asks for; the server's list is another one now. Run the "
                    "same command with --repair to take the server's list; what is here is kept."
                )
            yield Restarted(listed, "the server has another version of it now")
            self._theirs[listed] = yield from self._fetch(server, listed)
            raise ListChangedError

    def _of_server(self, server: HttpClient, path: str) -> Generator[Event, None, Checklist | None]:
        """Return a list as the server has it, asked for once; None if it cannot be had."""
        if path not in self._theirs:
            with tempfile.TemporaryDirectory(prefix="llamakit-") as folder:
                try:
                    self._theirs[path] = yield from self._fetch(server, path, Path(folder))
                except LinkEndedError:
                    raise
                except (DownloadError, DamagedFileError):
                    self._theirs[path] = None
        return self._theirs[path]

    def _fetch(
        self, server: HttpClient, path: str, folder: Path | None = None
    ) -> Generator[Event, None, Checklist]:
        """Fetch a checklist, once more if what came is none."""
        final = (folder or self._folder) / path
        final.parent.mkdir(parents=True, exist_ok=True)
        ask = partial(server.small_file, path)
        data = yield from patiently(path, ask, self._patience)
        try:
            checklist = keep_checklist(final, data)
        except DamagedFileError as error:
            yield Restarted(path, str(error))
            data = yield from patiently(path, ask, self._patience)
            checklist = keep_checklist(final, data)
        if folder is None:
            yield Arrived(path, len(data), None)
        return checklist


def checklist_on_disk(path: Path) -> Checklist | None:
    """Return a list that is there and can be read."""
    try:
        return read_checklist(path)
    except DamagedFileError:
        return None


def keep_checklist(final: Path, data: bytes) -> Checklist:
    """Write a list that was fetched; it gets its name only if it can be read.

    Raises:
        DamagedFileError: what the server has is no list.
    """
    new = final.with_name(f".{final.name}.new")
    try:
        _write(new, data)
        read_checklist(new)
        _give_name(new, final)
    except DamagedFileError as error:
        raise DamagedFileError(
            str(error).replace(str(new), f"{final.name} as the server sent it")
        ) from None
    finally:
        new.unlink(missing_ok=True)
    return read_checklist(final)


def keep_small(final: Path, data: bytes) -> None:
    """Write a small file that was fetched and found right, whole or not at all."""
    new = final.with_name(f".{final.name}.new")
    try:
        _write(new, data)
        _give_name(new, final)
    finally:
        new.unlink(missing_ok=True)


def md5_of(data: bytes) -> str:
    """Return 32 lower-case hex digits."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _write(path: Path, data: bytes) -> None:
    with told_when_full(path.parent, kept=True), path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _give_name(new: Path, final: Path) -> None:
    new.replace(final)
    sync_folder(final.parent)
