"""The one sentence that users read of an error."""

from __future__ import annotations

from llamakit.errors import LlamakitError
from llamakit.files.disk_errors import is_full_disk
from llamakit.plugin_manager.failures import is_out_of_memory


def message_of(error: Exception) -> str | None:
    """Return the message for an error; None for a bug, which needs its traceback."""
    if isinstance(error, LlamakitError):
        return error.for_commands
    if is_out_of_memory(error):
        return (
            "out of memory: try a lower --max-batch-size or --max-seq-len, --dtype bfloat16, "
            "or more processes with --model-parallel-size"
        )
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        hint = "; free some space there" if is_full_disk(error) else ""
        return f"{error.strerror}{where}{hint}"
    return None
