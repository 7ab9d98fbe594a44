"""Writes a destination folder atomically.

Files are written to a hidden folder next to the destination, ``.NAME.llamakit-XXXXXXXX``,
locked for as long as its writer lives. A run that is killed leaves that folder, and the next run
to the same destination finds it unlocked and removes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from llamakit.errors import DestinationError, NoSpaceError

_MARK = ".llamakit-"
_REPLACED = "replaced"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_destination(destination: Path, *, force: bool, source: Path | None = None) -> None:
    """Check that a folder can be made at ``destination``, or replaced with ``force``.

    Args:
        destination: where a folder is to appear.
        force: whether a folder that is there may go.
        source: a folder that is only read; replacing the destination must not remove it.

    Raises:
        DestinationError: there is something already, no parent, or the source would go.
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
    place = destination.resolve()
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
    if destination.is_symlink():
        destination = destination.resolve()
    remove_leftovers(destination)
    workshop, lock = _make_workshop(destination)
    try:
        product = workshop / destination.name
        with disk_full_explained(destination.parent):
            yield product
            _sync_tree(product)
            _publish(product, destination, workshop, force=force)
            _sync(destination.parent)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
        os.close(lock)


# Callers outside this package that have not moved to the new name.


@contextlib.contextmanager
def disk_full_explained(folder: Path, *, kept: bool = False) -> Iterator[None]:
    """Turn the errors of a full file system into a sentence.

    Args:
        kept: what was written stays, and the same command resumes from it.

    Raises:
        NoSpaceError: the file system is full, or a quota or limit is reached.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        advice = (
            "What is there is kept: free some space, run the same command again and it resumes."
            if kept
            else "What was written has been removed; free some space, or choose another place."
        )
        raise NoSpaceError(f"{folder}: {error.strerror}. {advice}") from None


def remove_leftovers(destination: Path) -> None:
    """Remove what killed runs to the same destination have left, and nothing else.

    A folder that one of them was about to replace is put back if nothing has its name.
    """
    for leftover in _workshops(destination):
        lock = _lock(leftover)
        if lock is None:
            continue
        try:
            replaced = leftover / _REPLACED
            if replaced.is_dir() and not os.path.lexists(destination):
                replaced.rename(destination)
            shutil.rmtree(leftover, ignore_errors=True)
        finally:
            os.close(lock)


def _workshops(destination: Path) -> list[Path]:
    prefix = f".{destination.name}{_MARK}"
    suffixes = {
        path: path.name.removeprefix(prefix)
        for path in destination.parent.iterdir()
        if path.name.startswith(prefix) and not path.is_symlink() and path.is_dir()
    }
    return [
        path
        for path, suffix in sorted(suffixes.items())
        if len(suffix) == 8 and set(suffix) <= set("0123456789abcdef")
    ]


def _make_workshop(destination: Path) -> tuple[Path, int]:
    """Make a folder to work in, and lock it."""
    while True:
        workshop = destination.with_name(f".{destination.name}{_MARK}{secrets.token_hex(4)}")
        workshop.mkdir()
        lock = _lock(workshop)
        # Another run may have taken it for a leftover before it was locked.
        if lock is not None and _is_still(workshop, lock):
            return workshop, lock
        if lock is None and workshop.is_dir():
            # A file system without locks: its leftovers stay, for nobody can tell them.
            return workshop, os.open(workshop, os.O_RDONLY)
        if lock is not None:
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """Lock a folder until the descriptor is closed; None if somebody else has it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
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
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _publish(product: Path, destination: Path, workshop: Path, *, force: bool) -> None:
    if not os.path.lexists(destination):
        product.rename(destination)
        return
    if not force:
        raise DestinationError(f"{destination} has appeared meanwhile; it is left as it is.")
    if not _exchange(product, destination):
        # remove_leftovers puts it back, should this be the last that we do.
        destination.rename(workshop / _REPLACED)
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
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # folders, on some file systems
            raise
    finally:
        os.close(descriptor)
