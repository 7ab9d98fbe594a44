"""Standard input, output and error: usable whatever the shell has closed or pipes in."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TYPE_CHECKING

from llamakit.printable import printable

if TYPE_CHECKING:
    import logging

_ESCAPES = "llamakit.escapes"
"""The name of ``_escaped`` among Python's error handlers."""
LONGEST_WARNING = 2000
"""Characters of a warning that are printed."""


def prepare() -> None:
    """Replace what is closed (``<&-``, ``>&-``) by the null device, and let no character fail.

    Bytes that are not UTF-8 arrive as surrogates, which prompts refuse in a sentence; characters
    that the terminal's encoding lacks leave as escapes, which JSON has too.
    """
    codecs.register_error(_ESCAPES, _escaped)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest free descriptor is the closed one, so no later file can take its place.
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: PTH123, SIM115
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
    if isinstance(sys.stdin, io.TextIOWrapper):
        # Where the locale has ASCII alone, other bytes are UTF-8 nearly always.
        encoding = "utf-8" if codecs.lookup(sys.stdin.encoding).name == "ascii" else None
        sys.stdin.reconfigure(encoding=encoding, errors="surrogateescape")
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors=_ESCAPES)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Write what an encoding lacks as JSON does: ``\\uXXXX``, twice beyond the first 65,536."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = zip(units[::2], units[1::2], strict=True)
    return "".join(f"\\u{high:02x}{low:02x}" for high, low in pairs), error.end


def silence_errors() -> None:
    """Discard what is written to standard error."""
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115


def keep_warnings_on_one_line() -> None:
    """Print each warning on one line; for commands, since ``--help`` would wait for ``logging``."""
    import logging

    logging.getLogger("llamakit").addFilter(_on_one_line)


def _on_one_line(record: logging.LogRecord) -> bool:
    record.msg, record.args = printable(record.getMessage(), LONGEST_WARNING), ()
    return True
