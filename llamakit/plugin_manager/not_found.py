"""Says why a path is not what was asked for: what is there, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path

from llamakit.errors import NotACheckpointError, TokenizerError
from llamakit.printable import listed

_SHOWN = 4
"""How many names of files a message shows."""
_MOST_OPENED = 256
"""How many entries of a folder are tried: a checkpoint may be a folder, or a file."""


def not_a_checkpoint(
    path: Path, expected: Sequence[str], is_openable: Callable[[Path], bool]
) -> NotACheckpointError:
    """Explain why ``path`` cannot be opened as a checkpoint.

    Args:
        expected: what each plugin looks for, in a line.
        is_openable: whether a plugin takes a folder for a checkpoint.
    """
    if not path.exists():
        return NotACheckpointError(f"no such folder: {path}{_what_is_there(path)}")
    if not path.is_dir():
        hint = f"; give its folder: {path.parent}" if is_openable(path.parent) else ""
        return NotACheckpointError(f"{path} is a file, but a checkpoint is a folder{hint}")
    names = sorted(child.name for child in path.iterdir())
    if not names:
        return NotACheckpointError(f"{path} is an empty folder{_expectation(expected)}")
    inside = [name for name in names[:_MOST_OPENED] if is_openable(path / name)]
    if inside:
        return NotACheckpointError(
            f"{path} is not a checkpoint itself, but holds {listed(inside, _SHOWN)}: "
            f"give one of them, such as {path / inside[0]}"
        )
    return NotACheckpointError(
        f"{path} is not a checkpoint: found {listed(names, _SHOWN)}{_expectation(expected)}"
    )


def not_a_tokenizer(path: Path, expected: Sequence[str]) -> TokenizerError:
    """Explain why ``path`` cannot be loaded as a tokenizer.

    Args:
        expected: what each plugin looks for, in a line.
    """
    if not path.exists():
        return TokenizerError(f"no such tokenizer file: {path}{_what_is_there(path)}")
    if path.is_dir():
        inside = sorted(child.name for child in path.glob("tokenizer*"))
        hint = f"; it holds {listed(inside, _SHOWN)}" if inside else ""
        return TokenizerError(f"{path} is a folder, but a tokenizer is a file{hint}")
    if not path.is_file():
        return TokenizerError(f"{path} is a FIFO, a socket or a device, but a tokenizer is a file")
    return TokenizerError(f"{path} is not a tokenizer{_expectation(expected)}")


def _what_is_there(path: Path) -> str:
    """End the sentence about a path that does not exist with what does, if that helps."""
    if path.is_symlink():
        return f" (a link to {path.readlink()}, which does not exist)"
    parent = path.parent
    if not parent.is_dir():
        return f"; {parent} does not exist either"
    close = difflib.get_close_matches(path.name, (child.name for child in parent.iterdir()), n=1)
    return f"; did you mean {parent / close[0]}?" if close else ""


def _expectation(expected: Sequence[str]) -> str:
    """End the sentence with what plugins look for (the first lines of their hooks)."""
    return "".join(f"\n  expected: {line.removeprefix('Open ')}" for line in expected)
