"""Writes a destination folder atomically.

Files are written to a hidden folder next to the destination, ``.NAME.llamakit-XXXXXXXXXXXXXXXX``,
which only the user who runs this can enter, locked for as long as its writer lives. A run that is
killed leaves that folder, and the user's next run to the same destination finds it unlocked and
removes it. The folder above may be one that everybody can write to: what another user puts there
under such a name stays, and a link of another user's is no destination.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from llamakit.errors import DestinationError, NoSpaceError
from llamakit.files.atomic_file import sync
from llamakit.files.disk_errors import disk_errors_explained, naming
from llamakit.files.links import follow_own_links

_MARK = ".llamakit-"
_REPLACED = "replaced"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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
    if not os.path.lexists(destination):
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


def check_space(folder: Path, nbytes: int) -> None:
    """Check that a folder's file system has room.

    Args:
        folder: a folder that exists.
        nbytes: how much is about to be written, in bytes.

    Raises:
        NoSpaceError: it has less.
    """
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
    check_destination(destination, force=force, source=source)
    destination = follow_own_links(destination)
    remove_leftovers(destination)
    workshop, lock = _make_workshop(destination)
    try:
        product = workshop / destination.name
        with disk_errors_explained(destination.parent), _naming_instead(product, destination):
            yield product
            _sync_tree(product)
            _publish(product, destination, lock, force=force)
            _sync(destination.parent)
    finally:
        if _is_still(workshop, lock):
            shutil.rmtree(workshop, ignore_errors=True)  # goes through no link: see shutil
        os.close(lock)


@contextlib.contextmanager
def _naming_instead(product: Path, destination: Path) -> Iterator[None]:
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
    pattern = re.compile(re.escape(f".{destination.name}{_MARK}") + "[0-9a-f]{8,16}")
    for leftover in sorted(destination.parent.iterdir()):
        lock = _lock(leftover) if pattern.fullmatch(leftover.name) else None
        if lock is None:
            continue
        try:
            is_ours = _is_private(os.fstat(lock)) and _is_still(leftover, lock)
            # Where all may rename, another user can give any of this user's folders that name.
            if is_ours and {each.name for each in leftover.iterdir()} <= {
                destination.name,
                _REPLACED,
            }:
                _put_back(lock, destination)
                shutil.rmtree(leftover, ignore_errors=True)
        finally:
            os.close(lock)


def _is_private(status: os.stat_result) -> bool:
    """Tell whether only this user can have put into a folder what is in it."""
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _put_back(workshop: int, destination: Path) -> None:
    """Give a folder that was about to be replaced its name again."""
    with contextlib.suppress(FileNotFoundError):
        replaced = os.lstat(_REPLACED, dir_fd=workshop)
        if stat.S_ISDIR(replaced.st_mode) and not os.path.lexists(destination):
            os.rename(_REPLACED, destination, src_dir_fd=workshop)


def _make_workshop(destination: Path) -> tuple[Path, int]:
    """Make a folder to work in that only this user can enter, and lock it."""
    while True:
        workshop = destination.with_name(f".{destination.name}{_MARK}{secrets.token_hex(8)}")
        workshop.mkdir(mode=0o700)
        lock = _lock(workshop)
        # Another run may have taken it for a leftover before it was locked.
        if lock is not None and _is_still(workshop, lock):
            return workshop, lock
        if lock is not None:
            os.close(lock)
        elif workshop.is_dir():
            # A file system without locks: its leftovers stay, for nobody can tell them.
            return workshop, os.open(workshop, _FOLDER)


def _lock(folder: Path) -> int | None:
    """Lock a folder until the descriptor is closed; None if somebody else has it, or it is none."""
    try:
        descriptor = os.open(folder, _FOLDER)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _is_still(folder: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(folder.lstat(), os.fstat(descriptor))
    except OSError:
        return False


def _publish(product: Path, destination: Path, workshop: int, *, force: bool) -> None:
    if not _is_still(product.parent, workshop):
        raise DestinationError(f"{product.parent} has been exchanged while it was written to.")
    if not os.path.lexists(destination):
        product.rename(destination)
        return
    if not force:
        raise DestinationError(f"{destination} has appeared meanwhile; it is left as it is.")
    if not _exchange(product, destination):
        # remove_leftovers puts it back, should this be the last that we do.
        os.rename(destination, _REPLACED, dst_dir_fd=workshop)
        product.rename(destination)


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths swap names in one step, where the system can.

    Source: renameat2(2) of Linux, renamex_np(2) of macOS.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    try:
        if sys.platform == "darwin":
            status = libc.renamex_np(*names, 2)
        else:
            status = libc.renameat2(-100, names[0], -100, names[1], 2)
    except AttributeError:
        return False
    return int(status) == 0


def _sync_tree(folder: Path) -> None:
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            if stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR):
                _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    with naming(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)
