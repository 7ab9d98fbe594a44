"""Opens files that somebody else may have put there: regular ones only, and without waiting.

A FIFO waits for a writer that never comes, ``/dev/zero`` never ends, and opening a device may set
it going. Each is refused before it is read, by an ``OSError`` with words of its own, so that
whoever opens a file says it like any other reason why a file cannot be read.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from llamakit.errors import FileFormatError, NotRegularFileError
from llamakit.files import system_calls
from llamakit.files.links import is_trusted

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


MAX_NBYTES = 64 << 20
"""Of a file that is read as a whole: the largest is Llama 4's tokenizer.json, with 28 MB."""


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file, or a link to one, for reading.

    Raises:
        NotRegularFileError: it is a folder, a FIFO, a socket or a device.
        OSError: it cannot be opened.
    """
    return os.fdopen(open_descriptor(path, os.O_RDONLY), "rb")


def read_bytes(path: Path) -> bytes:
    """Read a whole regular file, such as a tokenizer.

    Raises:
        FileFormatError: it has more than ``MAX_NBYTES``.
        NotRegularFileError, OSError: as ``open_regular``.
    """
    with open_regular(path) as file:
        data = file.read(MAX_NBYTES + 1)
    if len(data) > MAX_NBYTES:
        raise FileFormatError(
            f"{path} has {path.stat().st_size} bytes; expected at most {MAX_NBYTES}: copy the file "
            "again"
        )
    return data


def open_descriptor(path: Path, flags: int, mode: int = 0o666) -> int:
    """Open a regular file as ``os.open`` does.

    Args:
        flags: such as ``os.O_RDWR | os.O_CREAT``.
        mode: of a file that is created, less the umask.
    Raises:
        NotRegularFileError: it is a folder, a FIFO, a socket or a device.
        OSError: it cannot be opened.
    """
    # Before, for opening alone sets some devices going; after, for that is what was opened.
    try:
        check_regular(path, path.stat())
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    harmless = system_calls.flags("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC")
    descriptor = os.open(path, flags | harmless, mode)
    try:
        check_regular(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_own(path: Path, flags: int, mode: int = 0o666) -> int:
    """Open a regular file of the user's own, or root's, that is no link.

    Such is a file that llamakit itself has written, and trusts.

    Args: as ``open_descriptor``.
    Raises:
        PermissionError: it is another user's.
        NotRegularFileError, OSError: as ``open_descriptor``.
    """
    descriptor = open_descriptor(path, flags | system_calls.flags("O_NOFOLLOW"), mode)
    owner = os.fstat(descriptor)
    if is_trusted(owner):
        return descriptor
    os.close(descriptor)
    raise PermissionError(
        errno.EPERM, f"it belongs to another user (uid {owner.st_uid})", str(path)
    )


def check_regular(path: Path, status: os.stat_result) -> None:
    """Check that what is at a path is a regular file.

    Raises:
        NotRegularFileError: it is something else.
    """
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for test, name in _KINDS if test(status.st_mode)), "something else")
        reason = f"it is {kind}; expected a regular file"
        raise NotRegularFileError(errno.ENXIO, reason, str(path))
