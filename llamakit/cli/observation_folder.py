"""The folder of ``generate --observations``: what observers have found, and what they draw."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamakit.cli.terminal import json_text
from llamakit.errors import DestinationError, UsageError
from llamakit.files.atomic_file import write_atomically
from llamakit.files.disk_errors import disk_errors_explained

if TYPE_CHECKING:
    from llamakit.cli.generate_options import GenerateOptions
    from llamakit.protocols import AnswerPiece
    from llamakit.runtime.requests import ChosenObserver


def check_destination(options: GenerateOptions, *, as_json: bool) -> None:
    """Refuse observers whose results would go nowhere, and those of drafted answers.

    Raises:
        UsageError: an option is missing, or one too many.
        DestinationError: a file is in the folder's place.
    """
    if options.observations is not None and not options.observers:
        raise UsageError("--observations needs --observer NAME: what finds something?")
    if options.observers and not (as_json or options.output or options.observations):
        raise UsageError(
            "--observer needs --observations FOLDER, --json or --output FILE: where does what it "
            "finds go?"
        )
    if options.observers and options.draft is not None:
        raise UsageError("--draft and --observer: choose one of the two")
    if options.observations is not None:
        folder = Path(options.observations)
        if folder.exists() and not folder.is_dir():
            raise _no_folder(folder)


def written(
    pieces: Iterable[AnswerPiece], observers: Sequence[ChosenObserver], folder: Path
) -> Iterator[AnswerPiece]:
    """Yield pieces of answers; what observers have found is on disk before an answer's last one.

    Raises:
        DestinationError: the folder is below a file.
        NoSpaceError: the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise _no_folder(folder) from None
    for piece in pieces:
        results = piece.answer["observed"] if piece.answer else {}
        for chosen in observers if results else ():
            for ending, content in _files(chosen, results[chosen.name]):
                name = re.sub(r"[^\w.-]", "_", chosen.name)  # a plugin's, which may hold a slash
                path = folder / f"{piece.index}.{name}.{ending}"
                with disk_errors_explained(path):
                    write_atomically(path, content)
        yield piece


def _no_folder(path: Path) -> DestinationError:
    return DestinationError(f"{path} is no folder: pass another --observations")


def _files(chosen: ChosenObserver, result: Any) -> Iterator[tuple[str, bytes]]:
    yield "json", (json_text(result) + "\n").encode()
    draw = getattr(chosen.observer, "files", None)
    for ending, content in draw(result).items() if draw else ():
        yield ending, content if isinstance(content, bytes) else content.encode()
