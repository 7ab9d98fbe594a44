"""Writes a destination folder atomically, over several runs.

Everything is in a hidden folder next to the destination, ``.NAME.llamakit-download``, which only
the user who runs this can enter. It is locked while a run lasts, and stays for the next.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llamakit.checkpoint.atomic_folder import (
    is_private,
    is_vacant,
    lock_folder,
    naming_instead,
    publish,
)
from llamakit.errors import DestinationError
from llamakit.files.disk_errors import disk_errors_explained
from llamakit.files.links import follow_own_links
from llamakit.files.system_calls import OPENS_FOLDERS, sync_path, sync_tree

_SUFFIX = ".llamakit-download"


@dataclass(frozen=True)
class ResumableFolder:
    """The hidden folder of a destination, locked by this run.

    Args:
        path: of the hidden folder.
        destination: what ``publish`` makes.
    """

    path: Path
    destination: Path
    _lock: int | None

    @property
    def product(self) -> Path:
        """The folder in it that becomes the destination."""
        return self.path / self.destination.name

    def publish(self) -> None:
        """Rename what is complete to the destination, and remove the rest.

        Raises:
            DestinationError: there is something already.
        """
        place = disk_errors_explained(self.path, kept=True)
        with place, naming_instead(self.product, self.destination):
            sync_tree(self.product)
            publish(self.product, self.destination, self._lock, force=False)
            sync_path(self.destination.parent)
        self.remove()

    def remove(self) -> None:
        """Remove everything that the runs have left."""
        shutil.rmtree(self.path, ignore_errors=True)


def hidden_path(destination: Path) -> Path:
    """Return where the runs to a destination keep what they have."""
    destination = follow_own_links(destination)
    return destination.with_name(f".{destination.name}{_SUFFIX}")


def check_absent(destination: Path) -> None:
    """Check that there is nothing yet.

    Raises:
        DestinationError: there is something, or a link that another user has made.
    """
    if os.path.lexists(destination) and not is_vacant(follow_own_links(destination)):
        raise DestinationError(
            f"{destination} exists already; llamakit verify checks it. To fetch it again, move it "
            "away, or choose another folder with --output-dir."
        )


@contextlib.contextmanager
def resumable_folder(destination: Path) -> Iterator[ResumableFolder]:
    """Make the hidden folder of a destination, or take up that of an earlier run; lock it.

    Raises:
        DestinationError: there is something at the destination, another run works on it, or the
            hidden folder is another user's.
    """
    check_absent(destination)
    path = hidden_path(destination)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    lock = lock_folder(path)
    try:
        if OPENS_FOLDERS:
            _check_ours(path, lock, destination)
        yield ResumableFolder(path, follow_own_links(destination), lock)
    finally:
        if lock is not None:
            os.close(lock)


def _check_ours(path: Path, lock: int | None, destination: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        raise DestinationError(f"{path} is no folder; remove it, or choose another --output-dir.")
    if lock is None:
        raise DestinationError(
            f"another llamakit is downloading into {destination}: wait for it, or choose another "
            "folder with --output-dir"
        )
    if not is_private(os.fstat(lock)):
        raise DestinationError(
            f"{path} can be written to by other users; remove it, or choose another --output-dir."
        )
