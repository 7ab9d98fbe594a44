"""Where the folders of models are on the server: for some, several names are tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class ServerFolders:
    """The names that folders may have on the server.

    Args:
        names: by folder on disk, in the order in which they are tried; none: as on disk.
    """

    def __init__(self, names: Mapping[str, Sequence[str]]) -> None:
        self._left = {folder: list(left) for folder, left in names.items() if left}

    def path(self, path: str) -> str:
        """Return the path on the server of a file of the output folder."""
        folder, slash, name = path.rpartition("/")
        return f"{self._left[folder][0]}{slash}{name}" if folder in self._left else path

    def try_next(self, path: str) -> bool:
        """Give up the name that was tried; return whether there is another."""
        left = self._left.get(path.rpartition("/")[0], [])
        if len(left) > 1:
            del left[0]
            return True
        return False

    def confirm(self, path: str) -> None:
        """Keep the name that was tried: the server has a file there."""
        left = self._left.get(path.rpartition("/")[0], [])
        del left[1:]
