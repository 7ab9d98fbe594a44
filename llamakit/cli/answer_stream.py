"""``generate --output`` where that is no file: a pipe, a FIFO, a terminal, ``/dev/null``.

Answers are written to it as they end; nothing can be read back, so nothing is resumed.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llamakit.cli.answer_file import AnswerFile, Asked
from llamakit.errors import DestinationError
from llamakit.files.disk_errors import naming

_OWN = re.compile(r"/dev/(?:fd|stdin|stdout|stderr)(?:/\d+)?|/proc/self/fd/\d+|-")
_NUMBERS = {"-": 1, "/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


class AnswerStream:
    """Answers that are written and not kept. Use it in a ``with`` statement.

    Args:
        path: a FIFO, a device, or an open file of this process, such as ``/dev/stdout``.
    Raises:
        DestinationError: nobody reads the FIFO, or it is a disk, a socket or not open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.earlier: list[Mapping[str, Any]] = []
        self._descriptor = _open(path)

    def __enter__(self) -> AnswerStream:
        """Return the stream itself."""
        return self

    def __exit__(self, *unused: object) -> None:
        """Close it."""
        os.close(self._descriptor)

    def __len__(self) -> int:
        """How many answers are in it that can be read: none."""
        return 0

    def has_answer(self, _name: str | int, _prompt: Asked) -> bool:
        """Tell that no answer is there."""
        return False

    def check_settings(self, _settings: Mapping[str, Any], _others: str = "") -> None:
        """Accept any: there is nothing to mix them with."""

    def append(self, answer: Mapping[str, Any]) -> None:
        """Write one answer."""
        self.write((json.dumps(answer, ensure_ascii=False) + "\n").encode())

    def write(self, data: bytes) -> None:
        """Write one answer's line."""
        line = memoryview(data)
        with naming(self.path):
            while line:
                line = line[os.write(self._descriptor, line) :]


def open_answers(path: Path, *, keep: bool = False) -> AnswerFile | AnswerStream:
    """Open what ``--output`` names: ``-`` is standard output. Args, Raises: as the classes."""
    return AnswerFile(path, keep=keep) if is_file(path) else AnswerStream(path)


def is_file(path: Path) -> bool:
    """Tell whether a path names a regular file, or one to be made; ``-`` is standard output."""
    if _OWN.fullmatch(str(path)):
        return False
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True


def _open(path: Path) -> int:
    try:
        if _OWN.fullmatch(str(path)):
            return os.dup(_NUMBERS.get(str(path), int(path.name) if path.name.isdecimal() else -1))
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise DestinationError(f"{path} is a folder: pass another --output")
        if not stat.S_ISFIFO(mode) and not stat.S_ISCHR(mode):
            raise DestinationError(
                f"{path} is {'a disk' if stat.S_ISBLK(mode) else 'a socket'}, and answers go into "
                "a file, a pipe or a terminal: pass another --output"
            )
        flags = os.O_WRONLY
        for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC"):  # Windows has none of them
            flags |= getattr(os, name, 0)
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ENXIO:
            reason = "nobody reads this FIFO: start its reader first"
        elif error.errno == errno.EBADF:
            reason = "this process has no such open file"
        else:
            raise
        raise DestinationError(f"{path}: {reason}, or pass another --output") from None
    if hasattr(os, "set_blocking"):  # not on Windows before Python 3.12
        os.set_blocking(descriptor, True)
    return descriptor
