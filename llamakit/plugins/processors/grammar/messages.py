"""Shortens the strings that error messages repeat."""

from __future__ import annotations

MAX_LENGTH = 160
"""Characters of a string that a message repeats."""


def engine_message(text: str) -> str:
    """Return an error message of the engine on one line, without its backtrace and prefix."""
    text = text.partition("<backtrace>")[0].partition("<state>")[0]
    _, is_about_json, rest = text.partition("failed to compile JSON schema: ")
    return shortened(" ".join((rest.splitlines()[0] if is_about_json and rest else text).split()))


def shortened(text: str) -> str:
    """Return a string, or its beginning if it is long."""
    return text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]}…"
