"""Home folders in paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path


def expand_home(path: str | Path) -> Path:
    """Put the home folder in the place of ``~`` or ``~user``, as a shell does.

    Where there is no such user, or no home folder, as in a container that runs under any user ID,
    the path stays as it is. ``Path.expanduser`` raises a RuntimeError then.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 - see above
