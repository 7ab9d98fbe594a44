"""The machine that reads the pickle inside a .pth: it knows only what a dict of tensors needs.

Python's own unpickler is not used at all: it calls what the file tells it to, and its memo can be
made to take tens of gigabytes. This one knows some thirty operations and some forty names, runs
nothing, and refuses the rest by name.

Source: ``pickletools`` (the operations), torch's ``torch/_weights_only_unpickler.py`` (the idea).
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from llamakit.checkpoint.torch_globals import (
    GLOBALS,
    Buffer,
    Rebuild,
    storage_from_id,
)
from llamakit.errors import UnsafePickleError
from llamakit.printable import printable

MAX_OPERATIONS = 250_000
"""A tensor takes some 30: 405B's 34,000, and this is enough for 8,000 tensors."""
MAX_STACK = 1 << 16
"""Python's own pickles fill a dict a thousand items at a time; others, all at once."""

_OPERATIONS = {ord(operation.code): operation for operation in pickletools.opcodes}


class Machine:
    """A stack, a memo and the operations. Every malformed step is a ``ValueError``."""

    actions: ClassVar[Mapping[str, Callable[[Any, Any], None]]]
    """By the name of the operation: what it does with the machine and its argument."""
    max_operations: int = MAX_OPERATIONS

    def __init__(self, source: str) -> None:
        self.source = source
        self.stack: list[Any] = []
        self.below_marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> object:
        """Return what a pickle describes.

        Raises:
            UnsafePickleError: it asks for something that no tensor needs.
            ValueError: it is malformed.
        """
        stream = io.BytesIO(data)
        for _ in range(self.max_operations):
            code = stream.read(1)
            if not code:
                raise ValueError("it ends too early")
            operation = _OPERATIONS.get(code[0])
            if operation is None:
                raise ValueError(f"byte {code[0]:#04x} is no operation")
            if operation.name == "STOP":
                return self.pop()
            act = self.actions.get(operation.name)
            if act is None:
                raise self.unsafe(f"the pickle operation {operation.name}")
            act(self, _read_argument(operation, stream))
            if len(self.stack) > MAX_STACK:
                raise ValueError(f"over {MAX_STACK} values wait on its stack")
        raise ValueError(f"it has over {self.max_operations} operations")

    def unsafe(self, what: str) -> UnsafePickleError:
        """Return the refusal of something by name."""
        return UnsafePickleError(f"{self.source} asks for {what}, which no tensor needs")

    def pop(self) -> Any:
        """Take the topmost value off the stack."""
        if not self.stack:
            raise ValueError("its stack runs empty")
        return self.stack.pop()

    def pop_many(self, count: int) -> tuple[Any, ...]:
        """Take so many values off the stack, the lowest first."""
        return tuple(reversed([self.pop() for _ in range(count)]))

    def pop_to_mark(self) -> list[Any]:
        """Take off all that is above the last mark, and the mark."""
        if not self.below_marks:
            raise ValueError("a mark is missing")
        items, self.stack = self.stack, self.below_marks.pop()
        return items

    def top(self, kind: type[Any]) -> Any:
        """Return the topmost value, which has to be of a kind."""
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise ValueError(f"there is no {kind.__name__} where one is filled")
        return self.stack[-1]

    def mark(self) -> None:
        """Begin a new stack above this one."""
        self.below_marks.append(self.stack)
        self.stack = []

    def put(self, index: int | None) -> None:
        """Remember the topmost value."""
        self.memo[len(self.memo) if index is None else index] = self.top(object)

    def get(self, index: int) -> None:
        """Put a remembered value on the stack."""
        if index not in self.memo:
            raise ValueError(f"nothing is remembered as {index}")
        self.stack.append(self.memo[index])

    def find(self, name: str) -> None:
        """Put on the stack what a name stands for."""
        if name not in GLOBALS:
            raise self.unsafe(printable(name))
        self.stack.append(GLOBALS[name])

    def find_on_stack(self) -> None:
        """Put on the stack what a module and a name on it stand for."""
        module, name = self.pop_many(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name is not text")
        self.find(f"{module}.{name}")

    def instance(self, name: str) -> None:
        """Refuse to make an instance."""
        raise self.unsafe(f"an instance of {printable(name)}")

    def call(self) -> None:
        """Take apart what a function is called with."""
        self.call_with(*self.pop_many(2))

    def call_with(self, function: object, arguments: object) -> None:
        """Take apart what a function is called with, both given."""
        if not isinstance(function, Rebuild) or not isinstance(arguments, tuple):
            raise ValueError("something is called that is no function")
        try:
            self.stack.append(function.function(*arguments))
        except TypeError:
            raise ValueError("a tensor has too many or too few arguments") from None

    def find_storage(self) -> None:
        """Read a persistent id, which is a storage's."""
        self.stack.append(storage_from_id(self.pop()))

    def new_buffer(self) -> None:
        """Make an empty buffer, which is the only object that is made in this way."""
        arguments = self.pop()
        if self.stack[-1:] != [GLOBALS["_io.BytesIO"]] or arguments != ():
            raise self.unsafe("the pickle operation NEWOBJ")
        self.call_with(self.pop(), arguments)

    def append_items(self, items: list[Any]) -> None:
        """Put items at the end of the topmost list."""
        self.top(list).extend(items)

    def set_items(self, items: list[Any]) -> None:
        """Put keys and values into the topmost dict."""
        target = self.top(dict)
        if len(items) % 2:
            raise ValueError("a key has no value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Numbers are refused because their hashes, unlike those of text, can be made to clash.
            if not isinstance(key, str):
                raise ValueError("a key is not text")
            target[key] = value

    def set_state(self) -> None:
        """Take ``_metadata``, the one attribute that a state dict carries, and drop it."""
        state = self.pop()
        if isinstance(self.top(object), Buffer):
            return  # its bytes, which nothing reads
        self.top(dict)
        if not isinstance(state, dict) or not state.keys() <= {"_metadata"}:
            raise self.unsafe("a state other than _metadata on a dict")


def _read_name(stream: io.BytesIO) -> str:
    """Read a module and a name, each a line; pickletools' own way warns of odd escapes."""
    lines = stream.readline(), stream.readline()
    if not all(line.endswith(b"\n") for line in lines):
        raise ValueError("it ends within a name")
    return ".".join(line[:-1].decode() for line in lines)


def _read_argument(operation: pickletools.OpcodeInfo, stream: io.BytesIO) -> object:
    if operation.name in ("GLOBAL", "INST"):
        return _read_name(stream)
    return operation.arg.reader(stream) if operation.arg else None


def push(machine: Machine, value: object) -> None:
    """Put an argument on the stack."""
    machine.stack.append(value)


Machine.actions = {
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), push),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), push),
    **dict.fromkeys(("PROTO", "FRAME"), lambda _machine, _argument: None),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), Machine.get),
    "MARK": lambda machine, _: machine.mark(),
    "NONE": lambda machine, _: push(machine, None),
    "NEWTRUE": lambda machine, _: push(machine, True),
    "NEWFALSE": lambda machine, _: push(machine, False),
    "EMPTY_DICT": lambda machine, _: push(machine, {}),
    "EMPTY_LIST": lambda machine, _: push(machine, []),
    "EMPTY_TUPLE": lambda machine, _: push(machine, ()),
    "TUPLE": lambda machine, _: push(machine, tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: push(machine, machine.pop_many(1)),
    "TUPLE2": lambda machine, _: push(machine, machine.pop_many(2)),
    "TUPLE3": lambda machine, _: push(machine, machine.pop_many(3)),
    "APPEND": lambda machine, _: machine.append_items([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append_items(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set_items(list(machine.pop_many(2))),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "GLOBAL": lambda machine, name: machine.find(name),
    "STACK_GLOBAL": lambda machine, _: machine.find_on_stack(),
    "INST": lambda machine, name: machine.instance(name),
    "BINPERSID": lambda machine, _: machine.find_storage(),
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.new_buffer(),
    "BUILD": lambda machine, _: machine.set_state(),
}
