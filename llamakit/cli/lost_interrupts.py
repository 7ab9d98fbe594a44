"""Ctrl-C that CPython would drop is repeated.

What a callback of a weak reference or ``__del__`` raises is printed and ignored, KeyboardInterrupt
too. Each import ends with such a callback, so Ctrl-C at the start of a command could be lost.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading

SECONDS = 0.01
"""After which it is repeated; the callback has returned by then, or it is repeated once more."""


def repeat_lost_interrupts() -> None:
    """Have Ctrl-C reach the program, wherever it came; for a process that is ours."""
    others = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            threading.Timer(SECONDS, _interrupt).start()
        else:
            others(unraisable)

    sys.unraisablehook = hook


def _interrupt() -> None:
    if sys.platform == "win32":
        _thread.interrupt_main()
    else:  # a signal ends what the system waits for, too
        main = threading.main_thread().ident
        assert main is not None, "the main thread runs"
        signal.pthread_kill(main, signal.SIGINT)
