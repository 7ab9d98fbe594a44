"""Writes a small file atomically and durably: after any stop it is complete, or the old one.

The bytes are written to a file without a name (``O_TMPFILE``), which a kill leaves nothing of.
Only when they are on the disk does the file get a name: its own if that is free, else one next to
it that is renamed at once. Where the file system has no such files, or the kill falls between
these two steps, ``.NAME.llamakit-XXXXXXXXXXXXXXXX`` is left; the next write of NAME removes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from llamakit.files.links import follow_own_links
from llamakit.files.regular_file import check_regular
from llamakit.files.system_calls import (
    OPENS_FOLDERS,
    Folder,
    change_group,
    change_mode,
    flags,
    lock_file,
    user_id,
)

_MARK = ".llamakit-"
_NEW = flags("O_WRONLY", "O_CLOEXEC")
_NO_UNNAMED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
"""What ``O_TMPFILE`` fails with on file systems and kernels that do not have it."""


def write_atomically(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file, or replace one, so that it is never seen in part. Raises: as ``replacing``.

    Args:
        path: in a folder that exists.
        data: all of it.
        mode: of a file that is not there yet, less the umask.
    """
    with replacing(path, mode=mode) as write:
        write(data)


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o666) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that appends to a file, which has its name only when the block has ended.

    A link that the user made stays, and the file that it leads to is written. A file that is there
    keeps its mode and its group, less what it gives to others where ``mode`` gives them nothing.

    Args:
        path: in a folder that exists.
        mode: of a file that is not there yet, less the umask.

    Raises:
        DestinationError: it is a link that another user has made.
        NotRegularFileError: it is a folder, a FIFO, a socket or a device.
        OSError: it cannot be written; the error names it.
    """
    file = _NewFile(follow_own_links(path))
    try:
        file.create(mode)
        yield file.append
        file.publish()
    finally:
        file.discard()


class _NewFile:
    """A file that is being written; errors name it, and not what it is called meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._naming():
            self._folder = Folder(path.parent)
        self._descriptor = -1
        self._name = ""

    def create(self, mode: int) -> None:
        """Open it, after removing what killed runs have left."""
        with self._naming():
            _remove_leftovers(self._folder, self._path.name)
            self._descriptor, self._name = _create(self._folder, self._path.name, mode)
            _take_over_mode(self._path, self._descriptor, mode)

    def append(self, data: bytes) -> None:
        """Write all of it."""
        view = memoryview(data)
        with self._naming():
            while view:
                view = view[os.write(self._descriptor, view) :]

    def publish(self) -> None:
        """Give it its name, when the disk has it."""
        wanted = self._path.name
        with self._naming():
            os.fsync(self._descriptor)
            self._name = _link(self._folder, self._descriptor, self._name, wanted)
            if self._name != wanted:
                if not OPENS_FOLDERS:  # Windows renames no open file; elsewhere it stays locked
                    self._close()
                self._folder.replace(wanted, self._name)
                self._name = wanted
            self._folder.sync()

    def discard(self) -> None:
        """Close it, and remove it unless it has its name."""
        self._close()
        if self._name not in ("", self._path.name):
            self._folder.unlink(self._name)
        self._folder.close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            error.filename, error.filename2 = str(self._path), None
            raise


def _create(folder: Folder, name: str, mode: int) -> tuple[int, str]:
    """Open a new file, locked; return it with its name, which is empty if it has none."""
    unnamed = getattr(os, "O_TMPFILE", 0)
    if unnamed and os.access("/proc/self/fd", os.X_OK):  # without /proc, it would get no name
        try:
            return _locked(folder.open(".", unnamed | _NEW, mode)), ""
        except OSError as error:
            if error.errno not in _NO_UNNAMED:
                raise
    name = f".{name}{_MARK}{secrets.token_hex(8)}"
    return _locked(folder.open(name, _NEW | flags("O_CREAT", "O_EXCL", "O_NOFOLLOW"), mode)), name


def _link(folder: Folder, descriptor: int, name: str, wanted: str) -> str:
    """Give a file without a name the wanted one, or another if there is a file of that name."""
    if name:
        return name
    # With a dir_fd, os.link follows the link that /proc/self/fd has.
    source = f"/proc/self/fd/{descriptor}"
    try:
        folder.link(source, wanted)
    except FileExistsError:
        wanted = f".{wanted}{_MARK}{secrets.token_hex(8)}"
        folder.link(source, wanted)
    return wanted


def _take_over_mode(path: Path, descriptor: int, wanted: int) -> None:
    """Give a new file the mode and the group of the one that it replaces."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    check_regular(path, status)
    mode = stat.S_IMODE(status.st_mode) & (0o777 if wanted & 0o077 else 0o700)
    if status.st_gid != os.fstat(descriptor).st_gid:
        try:
            change_group(descriptor, status.st_gid)
        except PermissionError:
            mode &= ~0o070  # what the old group may do is not for another one
    change_mode(descriptor, mode)


def _locked(descriptor: int) -> int:
    """Lock a file for as long as its writer lives: only unlocked ones are leftovers."""
    with contextlib.suppress(BlockingIOError):
        lock_file(descriptor)
    return descriptor


def _remove_leftovers(folder: Folder, name: str) -> None:
    """Remove what killed runs of this user have left of a file."""
    pattern = re.compile(re.escape(f".{name}{_MARK}") + "[0-9a-f]{16}")
    for left in filter(pattern.fullmatch, folder.names()):
        with contextlib.suppress(OSError):  # it stays: somebody else's, or still being written
            _remove_leftover(folder, left)


def _remove_leftover(folder: Folder, name: str) -> None:
    descriptor = folder.open(name, flags("O_RDONLY", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != user_id():
            return
        lock_file(descriptor)
        if OPENS_FOLDERS:
            folder.unlink(name)
    finally:
        os.close(descriptor)
    if not OPENS_FOLDERS:  # Windows removes no open file, and so none that is being written
        folder.unlink(name)
