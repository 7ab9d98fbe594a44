"""Reads a pickle of somebody's classes as plain records, without those classes and without running.

For formats whose index is a pickle, such as the ``.metadata`` of torch's distributed checkpoints:
the reader names the classes and functions that may be in it. Each becomes a ``Record`` of what it
is called with; any other name is refused.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from llamakit.checkpoint.pickle_machine import MAX_OPERATIONS, Machine
from llamakit.errors import DamagedFileError
from llamakit.printable import printable

MAX_NBYTES = 64 << 20


@dataclass(frozen=True)
class Name:
    """A class or a function that is in a pickle by its name, such as ``torch.bfloat16``."""

    name: str


@dataclass(eq=False)  # equal if it is the same: as a key of a dict its hash cannot be chosen
class Record:
    """An object, or the result of a function, that nothing has made."""

    name: str
    """Module and name of the class or function, with a dot between."""
    arguments: tuple[Any, ...]
    """What it is called with: values of Python, names and records."""
    state: Any = None
    """What its attributes would be set from: for most objects a dict of them."""


def read_records(
    data: bytes,
    source: str,
    names: Collection[str],
    *,
    extra_operations: int = 0,
) -> Any:
    """Read a pickle in which some classes and functions may be named, and call none of them.

    Args:
        data: the pickle. Bytes after its end are ignored.
        source: what it is from, for messages.
        names: of classes and functions that may be in it, each as ``module.name``.
        extra_operations: how many more than the index of a .pth it may have. Each takes some 2
            bytes of the file, up to 100 bytes of memory and a microsecond.
    Returns:
        Numbers, strings, bools, None, lists, tuples, dicts, and for everything else ``Name`` and
        ``Record``. Keys of dicts are strings and records. One value may be in several places, or
        inside itself: whoever goes through it goes to a depth that he knows.

    Raises:
        UnsafePickleError: it asks for a name that is not in ``names``, or has an operation that
            plain values do not need; nothing was run.
        DamagedFileError: it is malformed, truncated or too large.
    """
    if len(data) > MAX_NBYTES:
        raise DamagedFileError(
            f"{source} has {len(data)} bytes; expected at most {MAX_NBYTES}. Check what it is."
        )
    try:
        return _Machine(source, names, MAX_OPERATIONS + extra_operations).run(data)
    except ValueError as error:
        raise DamagedFileError(f"{source} is damaged: {error}. Copy it again.") from None


class _Machine(Machine):
    """Knows the names that it is given, and makes records of them."""

    def __init__(self, source: str, names: Collection[str], max_operations: int) -> None:
        super().__init__(source)
        self.max_operations = max_operations
        self._names = {name: Name(name) for name in names}

    def find(self, name: str) -> None:
        if name not in self._names:
            raise self.unsafe(printable(name))
        self.stack.append(self._names[name])

    def find_storage(self) -> None:
        raise self.unsafe("the pickle operation BINPERSID")

    def call_with(self, function: object, arguments: object) -> None:
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise ValueError("something is called that is no function")
        self.stack.append(Record(function.name, arguments))

    def new_buffer(self) -> None:
        self.call()

    def set_items(self, items: list[Any]) -> None:
        target = self.top(dict)
        if len(items) % 2:
            raise ValueError("a key has no value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | Record):
                raise ValueError("a key is neither text nor an object")
            target[key] = value

    def set_state(self) -> None:
        state = self.pop()
        self.top(Record).state = state
