"""Symbolic links: which are followed when something is written, and where those of a source lead.

What is written follows the links of the user who runs llamakit, and root's. Another user may plant
a link in a folder that both can write to, such as /tmp, and have it lead to a file of the user's.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from llamakit.errors import DestinationError
from llamakit.files.system_calls import user_id

_MOST_LINKS = 40
"""As many as Linux follows."""


def follow_own_links(path: Path) -> Path:
    """Return what a path leads to, for writing there.

    Args:
        path: need not exist.
    Raises:
        DestinationError: it is a link that another user has made, or a loop of links.
    """
    for _ in range(_MOST_LINKS):
        try:
            status = path.lstat()
        except OSError:
            return path
        if not stat.S_ISLNK(status.st_mode):
            return path
        if not is_trusted(status):
            raise DestinationError(
                f"{path} is a link that another user (uid {status.st_uid}) has made, to "
                f"{path.readlink()}; nothing is written through it. Choose another name."
            )
        path = path.parent / path.readlink()
    raise DestinationError(f"{path} is a loop of links; choose another name.")


def is_trusted(status: os.stat_result) -> bool:
    """Tell whether something was made by the user who runs this, or by root."""
    return status.st_uid in (user_id(), 0)


def make_folders(root: Path, inside: Path) -> Path:
    """Make the folders of a relative path, and return the last.

    Args:
        root: a folder that exists.
        inside: relative to it; what exists of it is checked, for another user may have made it.
    Raises:
        DestinationError: a part of it is a link that another user has made, or is another user's
            in a folder that everybody can write to.
    """
    folder = root
    for name in inside.parts:
        everybodys = folder.stat().st_mode & stat.S_IWOTH
        folder = follow_own_links(folder / name)
        folder.mkdir(exist_ok=True)
        status = folder.lstat()
        if everybodys and not is_trusted(status):
            raise DestinationError(
                f"{folder} belongs to another user (uid {status.st_uid}), in a folder that "
                "everybody can write to; choose another folder."
            )
    return folder


def leads_outside(file: Path, checkpoint: Path) -> Path | None:
    """Return where a file of a checkpoint leads through links, if that is not the checkpoint's own.

    Its own are the files in its folder, those of the same name in the folder above (Meta's layout
    has the tokenizer there), and the ``blobs`` of a Hugging Face cache for one of its
    ``snapshots``.

    Args:
        file: in the folder of the checkpoint or in the one above.
        checkpoint: that folder.
    """
    folder, real = checkpoint.resolve(), file.resolve()
    own = [folder]
    if folder.parent.name == "snapshots":
        own.append(folder.parents[1] / "blobs")
    if any(real.is_relative_to(place) for place in own) or real == folder.parent / file.name:
        return None
    return real
