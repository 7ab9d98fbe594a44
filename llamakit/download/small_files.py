"""The files around the shards: licences, the tokenizer, lists, params.json."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from llamakit.checkpoint.checklist import Checklist, read_checklist
from llamakit.checkpoint.impostors import HEAD_NBYTES, describe_impostor
from llamakit.checkpoint.staging import told_when_full
from llamakit.download.part_file import sync_folder
from llamakit.errors import DamagedFileError

WRONG_TWICE = (
    "the server's file is damaged, or changed a moment ago. What came was not kept; run the same "
    "command later."
)


def checklist_on_disk(path: Path) -> Checklist | None:
    """Return a list that is there and can be read."""
    try:
        return read_checklist(path)
    except DamagedFileError:
        return None


def keep_checklist(final: Path, data: bytes) -> Checklist:
    """Write a list that was fetched; it gets its name only if it can be read.

    Raises:
        DamagedFileError: what the server has is no list.
    """
    new = final.with_name(f".{final.name}.new")
    try:
        _write(new, data)
        read_checklist(new)
        _give_name(new, final)
    except DamagedFileError as error:
        raise DamagedFileError(
            str(error).replace(str(new), f"{final.name} as the server sent it")
        ) from None
    finally:
        new.unlink(missing_ok=True)
    return read_checklist(final)


def keep_small(final: Path, data: bytes) -> None:
    """Write a small file that was fetched and found right, whole or not at all."""
    new = final.with_name(f".{final.name}.new")
    try:
        _write(new, data)
        _give_name(new, final)
    finally:
        new.unlink(missing_ok=True)


def md5_of(data: bytes) -> str:
    """Return 32 lower-case hex digits."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def impostor(path: Path) -> str | None:
    """Say what is under the name of a file instead of it, such as an error page."""
    with path.open("rb") as file:
        head = file.read(HEAD_NBYTES)
    return "an empty file" if not head else describe_impostor(head)


def _write(path: Path, data: bytes) -> None:
    with told_when_full(path.parent, kept=True), path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _give_name(new: Path, final: Path) -> None:
    new.replace(final)
    sync_folder(final.parent)
