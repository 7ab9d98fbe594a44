"""Runs llamakit as if it were not on Linux: ``python elsewhere.py COMMAND + COMMAND …``.

What is deleted here is what Windows has not got, macOS included. It also refuses what Windows
refuses: to open a folder, to rename over a file with ``rename``, to rename or remove an open file.
"""

# ruff: noqa: PTH112, PTH116, PGH003 - what is replaced here are functions of os

from __future__ import annotations

import mmap
import os
import shutil
import signal
import socket
import sys

for name in (
    *("pread", "preadv", "pwrite", "pwritev", "posix_fadvise", "posix_fallocate", "sendfile"),
    *("copy_file_range", "memfd_create", "sched_getaffinity", "fork", "forkpty", "killpg"),
    *("geteuid", "getuid", "getegid", "getgid", "fchmod", "fchown", "chown", "mkfifo"),
    *("sync", "fdatasync", "setsid", "getpgid", "umask", "splice", "getloadavg"),
    *("O_DIRECT", "O_TMPFILE", "O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY"),
):
    if hasattr(os, name):
        delattr(os, name)
for name in ("MAP_PRIVATE", "MAP_ANONYMOUS", "MAP_SHARED", "MADV_WILLNEED", "MADV_SEQUENTIAL"):
    if hasattr(mmap, name):
        delattr(mmap, name)
for name in ("SIGKILL", "SIGHUP", "SIGPIPE", "SIGWINCH", "SIGUSR1", "SIGCHLD", "SIGALRM"):
    delattr(signal, name)
for name in ("fcntl", "termios", "tty", "pty", "pwd", "grp", "resource", "readline"):
    sys.modules[name] = None  # type: ignore[assignment]
for name in ("supports_dir_fd", "supports_fd", "supports_follow_symlinks"):
    setattr(os, name, set())

_open, _replace, _rename, _unlink = os.open, os.replace, os.rename, os.unlink


def _is_open(path: object) -> bool:
    """Tell whether this process has a file open."""
    try:
        status = os.stat(path)  # type: ignore[arg-type]
    except OSError:
        return False
    for number in range(3, 256):
        try:
            if os.path.samestat(os.fstat(number), status):
                return True
        except OSError:
            continue
    return False


def _refuse(function: str, place: object, *descriptors: int | None) -> None:
    if any(it is not None for it in descriptors):
        raise NotImplementedError(f"{function}: dir_fd unavailable on this platform")
    if not isinstance(place, int) and str(place).startswith("/proc"):
        raise FileNotFoundError(2, "No such file or directory", str(place))


def open_as_there(path, flags, mode=0o777, *, dir_fd=None):
    _refuse("open", path, dir_fd)
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return _open(path, flags, mode)


def replace_as_there(src, dst, *, src_dir_fd=None, dst_dir_fd=None):
    _refuse("replace", src, src_dir_fd, dst_dir_fd)
    if os.path.isdir(dst) or _is_open(src) or _is_open(dst):
        raise PermissionError(13, "Permission denied", str(src))
    return _replace(src, dst)


def rename_as_there(src, dst, *, src_dir_fd=None, dst_dir_fd=None):
    if os.path.lexists(dst):
        raise FileExistsError(17, "File exists", str(src))
    return replace_as_there(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)


def unlink_as_there(path, *, dir_fd=None):
    _refuse("unlink", path, dir_fd)
    if _is_open(path):
        raise PermissionError(13, "Permission denied", str(path))
    return _unlink(path)


def library_as_there(name, *arguments, **named):
    if name is None:
        raise TypeError("expected str, bytes or os.PathLike object, not NoneType")
    return _library(name, *arguments, **named)


if __name__ == "__main__":
    import ctypes

    _library = ctypes.CDLL
    ctypes.CDLL = library_as_there  # type: ignore[assignment, misc]
    os.open, os.replace, os.rename = open_as_there, replace_as_there, rename_as_there  # type: ignore
    os.unlink = os.remove = unlink_as_there  # type: ignore[assignment]
    shutil._use_fd_functions = False  # type: ignore[attr-defined]
    del socket.AF_UNIX
    from llamakit.cli.main import run

    commands = " ".join(sys.argv[1:]).split(" + ")
    sys.exit(next(filter(None, (run(command.split()) for command in commands)), 0))
