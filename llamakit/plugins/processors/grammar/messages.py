"""Errors of the engine as ours, and strings as short as a message can repeat them."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from llamakit.errors import LlamakitError, OptionError
from llamakit.printable import printable

T = TypeVar("T")

_PATTERN_ERROR = re.compile(
    r"regex parse error:\n(?P<shown>.*?)^error: (?P<reason>[^\n]+)", re.M | re.S
)
_SHOWN_PATTERN = re.compile(r"\A    (?P<line>[^\n]*)\n    (?P<before> *)\^+\s*\Z")
STACK_NBYTES = 256 << 20
"""Of address space: memory is taken as it is used."""
MAX_LENGTH = 160
"""Characters of a string that a message repeats."""
MAX_MESSAGE = 300
"""Characters of a reason, which is not cut before it ends."""
NEAR = 20
"""Characters of a pattern that show where it is wrong."""

MAX_SCHEMA_LENGTH = 1 << 16
MAX_GRAMMAR_LENGTH = 1 << 18
"""Characters: the calls of 128 tools of MCP servers have half as many."""
MAX_GBNF_LENGTH = 1 << 15
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
    """Return an error message of the engine on one line, without its backtrace and prefix.

    Of an error in a regular expression, which the engine repeats over several lines, the reason and
    the place are what helps.
    """
    text = text.partition("<backtrace>")[0].partition("<state>")[0]
    if pattern_error := _PATTERN_ERROR.search(text):
        return f"regex parse error: {_pattern_message(pattern_error)}"
    _, is_about_json, rest = text.partition("failed to compile JSON schema: ")
    message = " ".join((rest.splitlines()[0] if is_about_json and rest else text).split())
    return printable(message, MAX_MESSAGE)


def _pattern_message(error: re.Match[str]) -> str:
    """Return the reason of an error in a pattern, and the place if the pattern is one line."""
    reason = printable(error["reason"], MAX_MESSAGE)
    shown = _SHOWN_PATTERN.search(error["shown"])
    if shown is None:
        return reason
    place = len(shown["before"])
    near = shown["line"][place : place + NEAR]
    return f"{reason}, at character {place + 1}: {printable(near)!r}"


def shortened(text: str) -> str:
    """Return a string on one line, or its beginning if it is long."""
    return printable(text, MAX_LENGTH)
