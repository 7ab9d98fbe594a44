"""Writes a destination folder atomically.

A destination that does not exist yet, or is empty, becomes the new folder in one step. One that is
empty and cannot be renamed, as a mount point cannot, is filled instead: what is written below a
hidden name in it moves up when it is complete.

Files are written to a hidden folder next to the destination, ``.NAME.llamakit-XXXXXXXXXXXXXXXX``,
which only the user who runs this can enter, locked for as long as its writer lives. A run that is
killed leaves that folder, and the user's next run to the same destination finds it unlocked and
removes it. The folder above may be one that everybody can write to: what another user puts there
under such a name stays, and a link of another user's is no destination.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from llamakit.checkpoint.teamwork import current_team
from llamakit.errors import DestinationError, NoSpaceError
from llamakit.files.disk_errors import disk_errors_explained
from llamakit.files.links import follow_own_links
from llamakit.files.system_calls import (
    FOLDER,
    OPENS_FOLDERS,
    exchange,
    lock_file,
    sync_path,
    sync_tree,
    user_id,
)

_MARK = ".llamakit-"
_REPLACED = "replaced"
_OF_FILE_SYSTEMS = frozenset({"lost+found"})
"""What the root of a file system has before anybody writes to it."""


def check_destination(destination: Path, *, force: bool, source: Path | None = None) -> None:
    """Check that a folder can be made at ``destination``, or replaced with ``force``.

    Args:
        destination: where a folder is to appear.
        force: whether a folder that is there may go.
        source: a folder that is only read; replacing the destination must not remove it.

    Raises:
        DestinationError: there is something already, no parent, or the source would go; or what is
            there is a link that another user has made.
    """
    if not destination.parent.is_dir():
        raise DestinationError(
            f"{destination.parent} is not a folder, so nothing can be made in it; "
            f"make it first: mkdir -p {destination.parent}"
        )
    if not os.path.lexists(destination) or is_vacant(follow_own_links(destination)):
        return
    if not force:
        raise DestinationError(
            f"{destination} exists already; choose another name, or pass --force to replace it."
        )
    if not destination.is_dir():
        raise DestinationError(
            f"{destination} is not a folder, and only a folder is replaced; choose another name."
        )
    place = follow_own_links(destination).resolve()
    if source is not None and (source.resolve() == place or place in source.resolve().parents):
        raise DestinationError(
            f"replacing {destination} would remove {source}, which is read; choose another name."
        )


def is_vacant(folder: Path) -> bool:
    """Tell whether a folder is there with nothing in it, but for what killed runs to it left."""
    if not folder.is_dir() or folder.is_symlink():
        return False
    pattern = _leftovers(folder)
    names = {path.name for path in folder.iterdir()} - _OF_FILE_SYSTEMS
    return all(pattern.fullmatch(name) for name in names)


def check_space(folder: Path, nbytes: int) -> None:
    """Check that a folder's file system has room.

    Args:
        folder: one that exists, or whose parent does.
        nbytes: how much is about to be written, in bytes.

    Raises:
        NoSpaceError: it has less.
    """
    folder = folder if folder.is_dir() else folder.parent
    free = shutil.disk_usage(folder).free
    if free < nbytes:
        raise NoSpaceError(
            f"{folder} has {free / 1e9:.2f} GB free, and {nbytes / 1e9:.2f} GB are needed: "
            f"{(nbytes - free) / 1e9:.2f} GB more. Free some space, or choose another place."
        )


@contextlib.contextmanager
def atomic_folder(
    destination: Path, *, force: bool = False, source: Path | None = None
) -> Iterator[Path]:
    """Give a path to make a folder at, which becomes ``destination`` when the block ends well.

    When the block ends with an error, or Ctrl-C, everything that was written is removed. A folder
    that is replaced is there until the moment the new one is.

    Where several processes work together (``teamwork``), all of them get the path, below which each
    writes its share; the one that leads makes the folder at it and renames it.

    Args:
        destination: where the folder is to appear.
        force: whether a folder that is there may be replaced.
        source: a folder that is only read.
    Yields:
        A path that does not exist, on the same file system.

    Raises:
        DestinationError: as ``check_destination``.
        NoSpaceError: the file system is full.
    """
    team = current_team()
    if not team.leads:
        with _anothers_workshop(follow_own_links(destination)) as product:
            yield product
        return
    check_destination(destination, force=force, source=source)
    destination = follow_own_links(destination)
    remove_leftovers(destination)
    workshop, lock = _make_workshop(destination)
    try:
        product = workshop / destination.name
        with disk_errors_explained(workshop.parent), naming_instead(product, destination):
            team.gather(os.path.relpath(workshop, destination.parent))
            yield product
            team.gather("written")
            sync_tree(product)
            if workshop.parent == destination:
                _move_up(product, destination, lock)
            else:
                publish(product, destination, lock, force=force)
            sync_path(workshop.parent)
    except BaseException as error:
        team.fail(error)  # nobody writes any more when it is removed
        raise
    finally:
        if _is_still(workshop, lock):
            shutil.rmtree(workshop, ignore_errors=True)  # goes through no link: see shutil
        if lock is not None:
            os.close(lock)


@contextlib.contextmanager
def _anothers_workshop(destination: Path) -> Iterator[Path]:
    """Give the path at which the process that leads makes the folder."""
    team = current_team()
    workshop = destination.parent / team.gather("")[0]
    product = workshop / destination.name
    if not workshop.is_dir():
        raise DestinationError(
            f"{destination} is on no file system that all hosts share: {workshop}, made by rank "
            "0, is not there. Choose a place that all of them see."
        )
    with disk_errors_explained(workshop.parent), naming_instead(product, destination):
        yield product
        team.gather("written")


@contextlib.contextmanager
def naming_instead(product: Path, destination: Path) -> Iterator[None]:
    """Have errors name a file where it was to appear, not where it is written."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str):
            error.filename = error.filename.replace(str(product), str(destination))
        raise


def remove_leftovers(destination: Path) -> None:
    """Remove what killed runs of this user to the same destination have left, and nothing else.

    A folder that one of them was about to replace is put back if nothing has its name.
    """
    pattern = _leftovers(destination)
    inside = destination.iterdir() if destination.is_dir() else ()
    for leftover in sorted((*destination.parent.iterdir(), *inside)):
        lock = lock_folder(leftover) if pattern.fullmatch(leftover.name) else None
        if lock is None:
            continue
        try:
            is_ours = is_private(os.fstat(lock)) and _is_still(leftover, lock)
            # Where all may rename, another user can give any of this user's folders that name.
            if is_ours and {it.name for it in leftover.iterdir()} <= {destination.name, _REPLACED}:
                _put_back(lock, destination)
                shutil.rmtree(leftover, ignore_errors=True)
        finally:
            os.close(lock)


def _leftovers(destination: Path) -> re.Pattern[str]:
    """Return what the names of hidden folders for a destination match."""
    return re.compile(re.escape(f".{destination.name}{_MARK}") + "[0-9a-f]{8,16}")


def is_private(status: os.stat_result) -> bool:
    """Tell whether only this user can have put into a folder what is in it."""
    return status.st_uid == user_id() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _put_back(workshop: int, destination: Path) -> None:
    """Give a folder that was about to be replaced its name again."""
    with contextlib.suppress(FileNotFoundError):
        replaced = os.lstat(_REPLACED, dir_fd=workshop)
        if stat.S_ISDIR(replaced.st_mode) and not os.path.lexists(destination):
            os.rename(_REPLACED, destination, src_dir_fd=workshop)


def _make_workshop(destination: Path) -> tuple[Path, int | None]:
    """Make a folder to work in that only this user can enter, and lock it.

    It is next to the destination, or in it where nothing of it can be renamed to there.

    Returns:
        Its path, and its descriptor where folders have one.
    """
    while True:
        workshop = _workshop_in(destination) or _workshop_next_to(destination)
        lock = lock_folder(workshop)
        # Another run may have taken it for a leftover before it was locked.
        if lock is not None and _is_still(workshop, lock):
            return workshop, lock
        if lock is not None:
            os.close(lock)
        elif workshop.is_dir():  # no locks here: its leftovers stay, for nobody can tell them
            return workshop, os.open(workshop, FOLDER) if OPENS_FOLDERS else None


def _workshop_next_to(destination: Path) -> Path:
    workshop = destination.with_name(f".{destination.name}{_MARK}{secrets.token_hex(8)}")
    workshop.mkdir(mode=0o700)
    return workshop


def _workshop_in(destination: Path) -> Path | None:
    """Make a folder in an empty destination, if it cannot be moved up from there; else None."""
    if not is_vacant(destination):
        return None
    workshop = destination / f".{destination.name}{_MARK}{secrets.token_hex(8)}"
    above = destination.with_name(workshop.name)
    workshop.mkdir(mode=0o700)
    try:
        workshop.rename(above)
    except OSError:  # another file system, or a folder above that the user may not write to
        return workshop
    above.rmdir()
    return None


def lock_folder(folder: Path) -> int | None:
    """Lock a folder until the descriptor is closed; None if somebody else has it, or it is none."""
    if not OPENS_FOLDERS:
        return None
    try:
        descriptor = os.open(folder, FOLDER)
    except OSError:
        return None
    try:
        lock_file(descriptor)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _is_still(folder: Path, descriptor: int | None) -> bool:
    if descriptor is None:
        return folder.is_dir()
    try:
        return os.path.samestat(folder.lstat(), os.fstat(descriptor))
    except OSError:
        return False


def _check_still(workshop: Path, descriptor: int | None) -> None:
    if not _is_still(workshop, descriptor):
        raise DestinationError(f"{workshop} has been exchanged while it was written to.")


def publish(product: Path, destination: Path, workshop: int | None, *, force: bool) -> None:
    """Rename a folder that is complete to its destination.

    Args:
        workshop: the descriptor of the locked folder that it is in, where folders have one.
        force: whether a folder that is there may be replaced.

    Raises:
        DestinationError: there is something already, or the locked folder is another one now.
    """
    _check_still(product.parent, workshop)
    if is_vacant(destination):
        with contextlib.suppress(OSError):  # it may have got a file this moment
            destination.rmdir()
    if not os.path.lexists(destination):
        product.rename(destination)
        return
    if not force:
        raise DestinationError(f"{destination} has appeared meanwhile; it is left as it is.")
    if not exchange(product, destination):
        # remove_leftovers puts it back, should this be the last that we do.
        if workshop is None:
            destination.rename(product.parent / _REPLACED)
        else:
            os.rename(destination, _REPLACED, dst_dir_fd=workshop)
        product.rename(destination)


def _move_up(product: Path, destination: Path, workshop: int | None) -> None:
    """Move what is complete into an empty destination that keeps its place; the smallest last.

    A folder without its params.json or config.json is no checkpoint.
    """
    _check_still(product.parent, workshop)
    if not is_vacant(destination):
        raise DestinationError(f"{destination} is no longer empty; it is left as it is.")
    if not product.is_dir():
        raise DestinationError(
            f"{destination} is a folder, and what is written is one file: name a file."
        )
    for path in sorted(product.iterdir(), key=lambda it: -it.stat().st_size):
        path.rename(destination / path.name)
