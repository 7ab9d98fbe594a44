"""What ranks have written to the store of torchrun, which others on its network can write to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llamakit.errors import ParallelError
from llamakit.files.json_reader import parse_json
from llamakit.printable import printable


def read_values(store: Any, keys: Sequence[str], fits: Callable[[Any], bool]) -> list[Any]:
    """Return the JSON of some keys that are there, by key.

    Args:
        store: torch's.
        fits: whether a value is one that a rank of llamakit writes.
    Raises:
        ParallelError: one is not.
        InvalidJSONError: one is no JSON.
    """
    values = []
    for key in keys:
        value = parse_json(bytes(store.get(key)), f"{key} in the store of torchrun")
        if not fits(value):
            raise ParallelError(
                f"the store of torchrun has {printable(repr(value), 60)} as {key}, which no rank "
                "of llamakit writes: another program is connected to it; start again on a port and "
                "a network of your own"
            )
        values.append(value)
    return values
