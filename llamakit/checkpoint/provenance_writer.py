"""Writes ``llamakit.json`` for what was written otherwise than by a plan: a plugin's exporter."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from llamakit.checkpoint.hashing import checksum_files
from llamakit.checkpoint.provenance import (
    PROVENANCE,
    SMALL_NBYTES,
    RecordedFile,
    format_steps,
    provenance_path,
)
from llamakit.checkpoint.provenance_sources import read_sources, steps_of
from llamakit.files.atomic_file import write_atomically
from llamakit.printable import printable
from llamakit.protocols import Checkpoint, ToolCommand

NOT_RECORDED = "(not recorded)"
_CHECKSUM = re.compile("[0-9a-f]{32}|[0-9a-f]{64}")
_PLAIN = re.compile(r"[\w.:=+*-]{1,24}")
"""Options that say how a model is written are short words; tokens and signed links are not."""
_SECRET = re.compile(
    r"(?:^|[_-])(token|key|secret|password|passwd|auth|credentials?|cookie)s?$", re.IGNORECASE
)


def record_provenance(
    product: Path,
    command: ToolCommand,
    sources: Sequence[Checkpoint],
    checksums: Mapping[str, str] | None = None,
) -> None:
    """Write down what a folder, or a file, was made from.

    Args:
        product: what was written: a folder, which gets a ``llamakit.json``, or one file, which
            gets ``FILE.llamakit.json`` next to it.
        command: what made it.
        sources: the checkpoints that it was made from.
        checksums: MD5 or SHA-256 of files of the product, by their names, as they were computed
            when they were written. Without one, a file of up to 32 MB is read again, and of a
            larger one none is recorded.
    """
    read = [source for one in sources for source in read_sources(one)]
    files = list(_files(product, checksums or {}))
    content = format_steps(steps_of(command, read, files))
    write_atomically(provenance_path(product), content)


def recorded_options(options: Mapping[str, Any]) -> dict[str, object]:
    """Return the options of a third-party exporter that may be recorded.

    Checkpoints are passed on with their record, so of a path the last name is kept, and what may
    be a token, a password or a link is left out.
    """
    return {printable(name, 60): _recorded(name, value) for name, value in options.items()}


def reported_checksums(report: Mapping[str, Any]) -> dict[str, str]:
    """Return the checksums that an exporter reports of its files, where they are such."""
    files = report.get("files")
    checksums = {}
    for file in files if isinstance(files, list | tuple) else ():
        if isinstance(file, Mapping) and isinstance(file.get("name"), str):
            digits = file.get("sha256") or file.get("md5")
            if isinstance(digits, str) and _CHECKSUM.fullmatch(digits):
                checksums[file["name"]] = digits
    return checksums


def _recorded(name: str, value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    if _SECRET.search(name) or "://" in text:
        return NOT_RECORDED
    if isinstance(value, PurePath) or "/" in text or "\\" in text:
        text = re.split(r"[/\\]", text.rstrip("/\\"))[-1]
        return printable(text) if re.fullmatch(r"[\w. -]{1,100}", text) else NOT_RECORDED
    return text if _PLAIN.fullmatch(text) else NOT_RECORDED


def _files(product: Path, checksums: Mapping[str, str]) -> Iterator[RecordedFile]:
    if product.is_dir():
        paths = {path.relative_to(product).as_posix(): path for path in _regular(product)}
    else:
        paths = {product.name: product}
    small = {
        path: None
        for name, path in paths.items()
        if name not in checksums and path.stat().st_size <= SMALL_NBYTES
    }
    computed = checksum_files(small)
    for name, path in paths.items():
        checksum = checksums.get(name) or computed.get(path)
        yield RecordedFile(printable(name, 1000), path.stat().st_size, checksum)


def _regular(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != PROVENANCE)
