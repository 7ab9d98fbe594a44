"""How ``llamakit inspect --history`` shows the way from Meta's checklist to a folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from llamakit.printable import printable

if TYPE_CHECKING:
    from llamakit.checkpoint.provenance import RecordedFile, Source, Step
    from llamakit.examine.inspect import Inspection

_DIGITS = {None: "", 32: "md5", 64: "sha256"}


def describe_history(inspection: Inspection) -> str:
    """Return the steps to a checkpoint, the oldest first, with what each read and wrote."""
    lines = [f"wrong: {fault}" for fault in inspection.faults]
    if not inspection.history and not lines:
        lines.append(
            f"{inspection.path} has no llamakit.json: what it was made from is not recorded"
        )
    for number, step in enumerate(inspection.history, 1):
        lines += [f"{number}. {printable(_command(step), 400)}", *_parts(step)]
    if inspection.history:
        lines.append(f"this is what step {len(inspection.history)} wrote: {inspection.path}")
    return "\n".join(lines)


def _command(step: Step) -> str:
    options = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
        for name, given in step.options.items()
        for value in (given if isinstance(given, list | tuple) else [given])
        if value is not False
    ]
    return " ".join([step.command, *options]) + f"  ({step.made_by})"


def _parts(step: Step) -> Iterator[str]:
    for source in step.sources:
        yield f"   read {_source(source)}"
        yield from map(_file, source.files)
    if step.files:
        yield "   wrote"
        yield from map(_file, step.files)


def _source(source: Source) -> str:
    if source.form == "catalog":
        return f"{source.name} of the catalog, by Meta's checklist"
    if source.form == "hub":
        return f"{source.name} of the Hugging Face hub, commit {source.revision}"
    written = "" if source.step is None else f", which step {source.step + 1} wrote"
    return f"{source.name} ({source.form}){written}"


def _file(file: RecordedFile) -> str:
    nbytes = "" if file.nbytes is None else f"{file.nbytes:,}"
    if file.checksum is None:
        checksum = "checksum not known"
    else:
        origin = f", of {file.origin}" if file.origin not in ("", "read") else ""
        checksum = f"{_DIGITS[len(file.checksum)]} {file.checksum}{origin}"
    return f"   {nbytes:>17}  {printable(file.name)}  {checksum}"
