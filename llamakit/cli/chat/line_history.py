"""The lines typed in chats, in a file that only the user can read."""

from __future__ import annotations

import datetime
import errno
import os
from collections.abc import Iterable
from pathlib import Path

from platformdirs import user_state_path
from prompt_toolkit.history import FileHistory

from llamakit.errors import DestinationError
from llamakit.files.disk_errors import naming
from llamakit.files.links import follow_own_links
from llamakit.files.regular_file import open_descriptor
from llamakit.printable import printable

FILE = "chat_history"


def state_folder() -> Path:
    """Return where chats keep what is the user's; it need not exist."""
    return user_state_path("llamakit")


class PrivateHistory(FileHistory):
    """A history file of mode 0600; where it cannot be used, the lines stay in memory.

    Args:
        path: the file, which several chats may append to.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path
        self._is_usable = True
        self._problem = ""
        self._earlier = self._read()

    def load_history_strings(self) -> Iterable[str]:
        """Return the lines of earlier chats, the latest first."""
        return self._earlier

    def store_string(self, string: str) -> None:
        """Append a line, with one write, so that the entries of two chats do not mix."""
        if not self._is_usable:
            return
        lines = [f"\n# {datetime.datetime.now()}", *(f"+{it}" for it in string.split("\n")), ""]
        try:
            with os.fdopen(self._open(), "ab", buffering=0) as file, naming(self.path):
                file.write("\n".join(lines).encode("utf-8", "surrogateescape"))
        except (OSError, DestinationError) as error:
            self._give_up(error)

    def take_problem(self) -> str:
        """Return once why the file cannot be used; empty: it can, or that was returned before."""
        problem, self._problem = self._problem, ""
        return problem

    def _read(self) -> list[str]:
        try:
            os.close(self._open())
            return list(super().load_history_strings())
        except (OSError, DestinationError) as error:
            self._give_up(error)
            return []

    def _open(self) -> int:
        """Open the file, and make it the user's alone if an earlier llamakit did not."""
        if not self.path.is_absolute():  # a user without a home, as in some containers
            raise OSError(errno.ENOENT, "the user has no home folder", str(self.path))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        descriptor = open_descriptor(follow_own_links(self.path), flags, 0o600)
        try:
            if hasattr(os, "fchmod") and os.fstat(descriptor).st_mode & 0o077:
                os.fchmod(descriptor, 0o600)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _give_up(self, error: OSError | DestinationError) -> None:
        reason = str(error)
        if isinstance(error, OSError):
            reason = f"{printable(error.filename or self.path)}: {error.strerror}"
        self._is_usable = False
        self._problem = f"what you type is not kept for later chats: {reason}"
