"""Errors of the engine as ours, and strings as short as a message can repeat them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from llamakit.errors import LlamakitError, OptionError
from llamakit.printable import printable

T = TypeVar("T")
STACK_NBYTES = 256 << 20
"""Of address space: memory is taken as it is used."""
MAX_LENGTH = 160
"""Characters of a string that a message repeats."""

MAX_SCHEMA_LENGTH = 1 << 16
MAX_GRAMMAR_LENGTH = 1 << 15
"""Characters; the longest of llama.cpp's grammars have 20,000."""
MAX_PATTERN_LENGTH = 4096
"""Characters of a regular expression, by which its time grows quadratically."""


def check_length(text: str, name: str, most: int) -> None:
    """Refuse what would take the engine minutes, or more stack than ``on_large_stack`` gives.

    Args:
        name: of the string, as the subject of a sentence.
    Raises:
        OptionError: it is too long.
    """
    if len(text) > most:
        raise OptionError(f"{name} cannot be used: it has {len(text)} characters, over {most}")


def on_large_stack(work: Callable[[], T]) -> T:
    """Do some work on a thread with a stack that no grammar of ``MAX_SCHEMA_LENGTH`` fills.

    The engine follows rules and references by recursion: 1000 of them would end the process.
    """
    before = threading.stack_size(STACK_NBYTES)
    try:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(work).result()
    finally:
        threading.stack_size(before)


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
    head, is_about_regex, reason = rest.rpartition("\nerror: ")
    if is_about_json and is_about_regex:
        rest = f"{head.splitlines()[0]} {reason}"
    return shortened(" ".join((rest.splitlines()[0] if is_about_json and rest else text).split()))


def shortened(text: str) -> str:
    """Return a string on one line, or its beginning if it is long."""
    return printable(text, MAX_LENGTH)
