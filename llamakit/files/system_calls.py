"""System calls that Linux has, with what takes their place where they are absent.

Windows has no ``fcntl``, opens no folder, and knows neither users by number nor places relative to
an open folder; macOS has no direct access. What is lost there is said where it is used.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import stat
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

from llamakit.files.disk_errors import naming

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_MOVING = threading.Lock()
"""Held while a file's position is used, where reading and writing at a place is not one call."""


def flags(*names: str) -> int:
    """Return flags for ``os.open``: those of a name that the system has, and for bytes as they are.

    Args:
        names: such as ``O_NOFOLLOW``.
    """
    value = getattr(os, "O_BINARY", 0)
    for name in names:
        value |= getattr(os, name, 0)
    return int(value)


OPENS_FOLDERS = hasattr(os, "O_DIRECTORY") and os.open in os.supports_dir_fd
"""A folder has a descriptor, which can be locked, flushed, and named as the place of a file."""
FOLDER = flags("O_RDONLY", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC")


def user_id() -> int:
    """Return the number of the user who runs this; 0, as of all files, where users have none."""
    return os.geteuid() if hasattr(os, "geteuid") else 0


def lock_file(descriptor: int, *, shared: bool = False) -> None:
    """Lock a file or a folder until the descriptor is closed, where locks are to be had.

    Args:
        shared: others may have such a lock, too.
    Raises:
        BlockingIOError: another process has the lock.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return  # a file system without locks


def read_at(descriptor: int, memory: memoryview, offset: int) -> int:
    """Read into memory from a place in a file; return how many bytes came."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [memory], offset)
    with _MOVING:
        os.lseek(descriptor, offset, os.SEEK_SET)
        data = os.read(descriptor, len(memory))
    memory[: len(data)] = data
    return len(data)


def write_at(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> int:
    """Write at a place in a file; return how many bytes were written."""
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, offset)
    with _MOVING:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, data)


def write_all(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of ``data`` at a place in a file."""
    while data:
        done = write_at(descriptor, data, offset)
        data, offset = data[done:], offset + done


def stop_direct_access(descriptor: int) -> None:
    """Have a file that was opened with ``O_DIRECT`` go through the kernel's cache."""
    if fcntl is not None and hasattr(os, "O_DIRECT"):
        status = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, status & ~os.O_DIRECT)


def private_memory(nbytes: int, *, reserve: bool = True) -> mmap.mmap:
    """Return zeroed memory that begins at a page.

    Args:
        reserve: False where most of it is never used: Linux reserves none of it then.
    """
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, nbytes)
    kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    no_reserve = 0x4000 if sys.platform == "linux" and not reserve else 0  # MAP_NORESERVE
    return mmap.mmap(-1, nbytes, flags=kind | no_reserve)


def free_pages(address: int, nbytes: int) -> None:
    """Have Linux take back the whole pages of private memory, which read as zeros from then on."""
    if sys.platform != "linux":
        return
    start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (address + nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - start
    if length > 0:
        _libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_DONTNEED)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def sync(descriptor: int) -> None:
    """Wait until the disk has a file, or the entries of a folder."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # folders, on some file systems
            raise


def begin_writing(descriptor: int) -> bool:
    """Start flushing all of a file that is not on disk yet, without waiting; tell if that goes.

    Source: sync_file_range(2) of Linux; 2 is SYNC_FILE_RANGE_WRITE.
    """
    start, length = ctypes.c_int64(0), ctypes.c_int64(0)
    try:
        status = _libc().sync_file_range(descriptor, start, length, 2)
    except (AttributeError, OSError, TypeError):  # another system
        return False
    return int(status) == 0


def allocate(descriptor: int, nbytes: int) -> bool:
    """Reserve the disk's blocks of a file that is going to be written; tell if that goes.

    Source: fallocate(2) of Linux; glibc's ``posix_fallocate`` writes where the system cannot.
    """
    start, length = ctypes.c_int64(0), ctypes.c_int64(nbytes)
    try:
        status = _libc().fallocate(descriptor, 0, start, length)
    except (AttributeError, OSError, TypeError):  # another system
        return False
    return int(status) == 0


def read_ahead_from_disk(descriptor: int) -> None:
    """Prepare to read a file from its beginning to its end, from the disk where that can be asked.

    What the kernel's cache holds of it is dropped, but for mapped pages and unwritten ones.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)


def sync_path(path: Path) -> None:
    """Wait until the disk has a regular file, or a folder's entries where that can be asked."""
    is_folder = stat.S_ISDIR(path.lstat().st_mode)
    if is_folder and not OPENS_FOLDERS:
        return
    access = "O_RDONLY" if OPENS_FOLDERS else "O_RDWR"  # Windows flushes what may be written to
    with naming(path):
        descriptor = os.open(path, flags(access, "O_NOFOLLOW"))
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until the disk has a folder with all that is in it; or a file, if it is one."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            if stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR):
                sync_path(path)
    sync_path(folder)


def exchange(one: Path, other: Path) -> bool:
    """Let two paths swap names in one step, where the system can.

    Source: renameat2(2) of Linux, renamex_np(2) of macOS.
    """
    names = os.fsencode(one), os.fsencode(other)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            status = libc.renamex_np(*names, 2)
        else:
            status = libc.renameat2(-100, names[0], -100, names[1], 2)
    except (AttributeError, OSError, TypeError):  # TypeError: Windows wants a library's name
        return False
    return int(status) == 0


class Folder:
    """A folder in which files are made and renamed.

    Where folders have descriptors it stays the same folder, whoever renames it meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, FOLDER & ~flags("O_NOFOLLOW")) if OPENS_FOLDERS else None

    def names(self) -> list[str]:
        """List what is in it."""
        return os.listdir(self._path if self._descriptor is None else self._descriptor)  # noqa: PTH208

    def open(self, name: str, how: int, mode: int = 0o666) -> int:
        """Open a file in it as ``os.open`` does."""
        return os.open(self._named(name), how, mode, dir_fd=self._descriptor)

    def link(self, source: str, name: str) -> None:
        """Give a file another name, in it."""
        os.link(source, self._named(name), dst_dir_fd=self._descriptor)

    def replace(self, name: str, by: str) -> None:
        """Rename one of its files over another."""
        places = self._named(by), self._named(name)
        os.replace(*places, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def unlink(self, name: str) -> None:
        """Remove a file from it."""
        os.unlink(self._named(name), dir_fd=self._descriptor)

    def sync(self) -> None:
        """Wait until the disk has its entries, where that can be asked."""
        if self._descriptor is not None:
            sync(self._descriptor)

    def close(self) -> None:
        """Close its descriptor."""
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _named(self, name: str) -> str | os.PathLike[str]:
        return self._path / name if self._descriptor is None else name


def change_mode(descriptor: int, mode: int) -> None:
    """Change who may read and write a file, where the system has such modes."""
    if hasattr(os, "fchmod"):
        os.fchmod(descriptor, mode)


def change_group(descriptor: int, group: int) -> None:
    """Change the group of a file, where files have groups. Raises PermissionError."""
    if hasattr(os, "fchown"):
        with contextlib.suppress(NotImplementedError):  # some systems have the name alone
            os.fchown(descriptor, -1, group)
