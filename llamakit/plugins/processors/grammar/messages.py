"""Errors of the engine as ours, and strings as short as a message can repeat them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from llamakit.errors import LlamakitError, OptionError
from llamakit.printable import printable

MAX_LENGTH = 160
"""Characters of a string that a message repeats."""


@contextlib.contextmanager
def engine_errors(name: str) -> Iterator[None]:
    """Refuse what the engine refuses, in whatever way it does: its panics are no ``Exception``.

    Args:
        name: of what it is given, as the subject of a sentence.
    Raises:
        OptionError: the engine raised something.
    """
    try:
        yield
    except LlamakitError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise OptionError(f"{name} cannot be used: {engine_message(str(error))}") from error


def engine_message(text: str) -> str:
    """Return an error message of the engine on one line, without its backtrace and prefix."""
    text = text.partition("<backtrace>")[0].partition("<state>")[0]
    _, is_about_json, rest = text.partition("failed to compile JSON schema: ")
    return shortened(" ".join((rest.splitlines()[0] if is_about_json and rest else text).split()))


def shortened(text: str) -> str:
    """Return a string on one line, or its beginning if it is long."""
    return printable(text, MAX_LENGTH)
