"""Checks an engine to export for."""

from __future__ import annotations

from llamakit.plugin_manager.contracts.engines import engine_fault
from llamakit.protocols import Engine
from llamakit.testing.process_state import check_fault


def check_engine(engine: Engine) -> None:
    """Check that an engine says what ``llamakit export --for`` needs to know.

    Args:
        engine: what the plugin registers.

    Raises:
        AssertionError: a key is missing, unknown or of a wrong type; the sentence says which.
    """
    __tracebackhide__ = True
    check_fault("the engine", engine_fault(engine))
