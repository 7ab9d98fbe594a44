"""What is known of each installed plugin, and what users read when one is broken."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Literal

import pluggy

from llamakit._distribution import __version__, install_command
from llamakit.errors import PluginError
from llamakit.plugin_manager.moved import where_it_is_now
from llamakit.plugin_manager.registry import Entry, Source, in_one_line

SLOW_VARIABLE = "LLAMAKIT_SLOW_PLUGIN"
SLOW = 2.0
"""Seconds that a plugin may take at every start without being named."""


class PluginRecord:
    """One installed plugin: where it is from, what it registered, and whether it works."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.status: Literal["ok", "broken", "disabled"] = "ok"
        self.reason = ""
        self.registered: list[Entry] = []
        """What it registered and kept the name of."""
        self.hooks: list[str] = []
        """The hooks that it implements."""
        self.seconds = 0.0
        """How long it took to be imported and to register."""

    def __repr__(self) -> str:
        return f"<{self.source}: {self.status}>"

    def skip(self, reason: str, error: BaseException) -> None:
        """Mark it as broken, of no use, and tell the user in one line what can be done."""
        self.note(reason)
        hint = "" if os.environ.get("LLAMAKIT_DEBUG") else ", LLAMAKIT_DEBUG=1 shows where"
        say(
            f"{self.source} is broken and skipped: {reason} "
            f"(LLAMAKIT_DISABLE_PLUGINS={self.source.name} silences this{hint})"
        )
        if not hint:
            import traceback

            traceback.print_exception(error)

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Count what a block takes to the time that the plugin took."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - start

    def say_if_slow(self) -> None:
        """Tell the user that each start waits for it, if that is long."""
        if self.seconds > _slow() and not self.source.builtin:
            say(
                f"{self.source} took {self.seconds:.1f} s to load, as at every start; its author "
                "can import what takes long where it is used; "
                f"LLAMAKIT_DISABLE_PLUGINS={self.source.name} leaves it out"
            )

    def lose_names(self, reasons: list[str]) -> None:
        """Mark it as broken because others have its names, and tell the user in one line."""
        self.note("; ".join(reasons))
        say(f"{self.source} is broken: {self.reason}")

    def say_interrupted(self) -> None:
        """Tell the user who stopped the loading of plugins which one it was at."""
        if sys.stderr.isatty():
            sys.stderr.write("\n")  # the terminal has written ^C
        say(
            f"interrupted while {self.source} was being loaded; "
            f"LLAMAKIT_DISABLE_PLUGINS={self.source.name} leaves it out"
        )

    def note(self, reason: str) -> None:
        """Mark it as broken; of several reasons each is kept."""
        self.status = "broken"
        self.reason = f"{self.reason}; {reason}" if self.reason else reason


def _slow() -> float:
    with contextlib.suppress(ValueError):
        return float(os.environ.get(SLOW_VARIABLE) or SLOW)
    return SLOW


def why_not_loaded(error: BaseException, source: Source) -> str:
    """Say in one line why a plugin could not be loaded, and what to do."""
    line = in_one_line(error)
    if isinstance(error, PluginError):
        return error.for_commands
    if isinstance(error, ImportError) and not where_it_is_now(error):
        if (error.name or "").partition(".")[0] == "llamakit" and not source.builtin:
            return f"{line}: {maybe_newer(source)}"
        return f"{line}; {_how_to_import(error, source)}"
    if isinstance(error, SystemExit):
        return f"{line} while it was loaded"
    if isinstance(error, pluggy.PluginValidationError):
        return f"it may be for another llamakit than {__version__}: {line}"
    return line


def _how_to_import(error: ImportError, source: Source) -> str:
    """Say what to do where a plugin imports what is not there."""
    tell = f"{source.package} should declare what it needs: tell its author"
    module = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or not module:
        return tell
    return f"pip install {module} may help; {tell}"


def maybe_newer(source: Source) -> str:
    """Say what to do with a plugin that asks for what this llamakit does not have."""
    return (
        f"it may be for a newer llamakit than {__version__}; "
        f"{install_command(upgrade=True)} && pip install --upgrade {source.package} brings both up "
        "to date"
    )


def say(line: str) -> None:
    """Tell the user something while plugins are loaded, unless it is the shell that asks (Tab)."""
    if "_LLAMAKIT_COMPLETE" in os.environ:
        return
    sys.stderr.write(f"llamakit: {line}\n")
