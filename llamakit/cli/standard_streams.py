"""Standard input, output and error: usable whatever the shell has closed or pipes in."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

from llamakit.printable import printable

if TYPE_CHECKING:
    import logging

LONGEST_WARNING = 2000
"""Characters of a warning that are printed."""


def prepare() -> None:
    """Replace what is closed (``<&-``, ``>&-``) by the null device, and let no character fail.

    Bytes that are not UTF-8 arrive as surrogates, which prompts refuse in a sentence; characters
    that the terminal's encoding lacks leave as escapes.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest free descriptor is the closed one, so no later file can take its place.
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: PTH123, SIM115
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


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
