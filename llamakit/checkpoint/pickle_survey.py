"""What a pickle holds that is more than a dict of tensors: for messages, and for ``--key``.

The same machine as ``pickle_machine``, and it runs as little: what is no tensor becomes its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llamakit.checkpoint.pickle_machine import Machine, push
from llamakit.checkpoint.torch_globals import GLOBALS, Buffer, DType, TensorRecord
from llamakit.errors import CheckpointError
from llamakit.printable import printable

_SHOWN = 6
_WORDS = {TensorRecord: "tensor", Buffer: "bytes", DType: "torch dtype"}
_FOREIGN_WORDS = {".multiarray.scalar": "numpy number", ".multiarray._reconstruct": "numpy array"}
_DEEPEST, _WIDEST = 3, 200
"""How far a dict of weights is searched for: training checkpoints have tens of keys, few deep."""
MOST_DOTS = 100
"""How deep a key may lead; each level is a call."""


@dataclass(frozen=True)
class Foreign:
    """Something that is no tensor and no plain value, by the name of its class or function."""

    name: str


@dataclass(frozen=True)
class Key:
    """A key of a dict that is no text, such as a number in an optimizer's state."""

    text: str


@dataclass(frozen=True)
class Survey:
    """What a pickle describes, with names in the place of objects."""

    value: object
    foreign: tuple[str, ...]
    """The names that it asks for and that no tensor needs."""


def survey(data: bytes, source: str) -> Survey | None:
    """Read a pickle as far as it can be read without running anything; None if it cannot."""
    machine = _Surveyor(source)
    try:
        return Survey(machine.run(data), tuple(machine.foreign))
    except (ValueError, CheckpointError):
        return None


def find_key(value: object, key: str) -> object | None:
    """Return what is under a key; dots lead into dicts where no key is called so."""
    if not isinstance(value, dict) or key.count(".") > MOST_DOTS:
        return None
    if key in value:
        found: object = value[key]
        return found
    heads = (head for head in value if isinstance(head, str) and key.startswith(f"{head}."))
    found_inside = (find_key(value[head], key[len(head) + 1 :]) for head in heads)
    return next((it for it in found_inside if it is not None), None)


def keys_of_weights(value: object) -> list[str]:
    """Return the keys under which there are dicts of tensors alone, the largest first."""
    found = sorted(_state_dicts(value, (), set()), key=lambda item: -item[1])
    return [".".join(path) for path, _ in found]


def _state_dicts(
    value: object, path: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], int]]:
    if not isinstance(value, dict) or id(value) in seen:
        return
    seen.add(id(value))  # one object may be there as often as the pickle likes
    tensors = sum(isinstance(it, TensorRecord) for it in value.values())
    if path and tensors and is_state_dict(value):
        yield path, tensors
    elif len(path) < _DEEPEST and len(value) <= _WIDEST:
        for key, inside in value.items():
            if isinstance(key, str):
                yield from _state_dicts(inside, (*path, key), seen)


def is_state_dict(value: Mapping[Any, object]) -> bool:
    """Tell whether a dict has tensors alone, by names."""
    return all(
        isinstance(key, str) and isinstance(it, TensorRecord | Buffer) for key, it in value.items()
    )


def describe_contents(value: object) -> str:
    """List what a dict holds, its tensors counted: ``'model' (a dict of 30), 'step' (an int)``."""
    if not isinstance(value, dict):
        return describe_value(value)
    others = {key: it for key, it in value.items() if not isinstance(it, TensorRecord | Buffer)}
    listed = [f"{_key(key)} ({describe_value(it)})" for key, it in list(others.items())[:_SHOWN]]
    if tensors := len(value) - len(others):
        listed.insert(0, _tensors(tensors))
    if len(others) > _SHOWN:
        listed.append(f"{len(others) - _SHOWN} things more")
    return ", ".join(listed) or "nothing"


def describe_value(value: object) -> str:
    """Say what a value is, as ``an int`` or ``an argparse.Namespace``."""
    if isinstance(value, dict) and value and is_state_dict(value):
        return _tensors(len(value))
    if isinstance(value, dict | list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    name = _WORDS.get(type(value), type(value).__name__)
    if isinstance(value, Foreign):
        ends = (words for end, words in _FOREIGN_WORDS.items() if value.name.endswith(end))
        name = next(ends, printable(value.name, 80))
    return "None" if value is None else f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _tensors(count: int) -> str:
    return "1 tensor" if count == 1 else f"{count} tensors"


def _key(key: object) -> str:
    return repr(printable(key, 60)) if isinstance(key, str) else getattr(key, "text", "?")


class _Surveyor(Machine):
    """Knows more operations, and puts a name where something would be called."""

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self.foreign: dict[str, None] = {}

    def find(self, name: str) -> None:
        if name in GLOBALS:
            self.stack.append(GLOBALS[name])
            return
        self.foreign[name] = None
        self.stack.append(Foreign(name))

    def find_storage(self) -> None:
        identity = self.pop()
        self.stack.append(identity)
        if any(isinstance(it, Foreign) for it in _items(identity)):
            self.stack[-1] = Foreign("a storage")
        else:
            super().find_storage()

    def instance(self, name: str) -> None:
        self.pop_to_mark()
        self.find(name)

    def call_with(self, function: object, arguments: object) -> None:
        if isinstance(function, Foreign):
            self.stack.append(function)
            return
        if any(isinstance(it, Foreign) for it in _items(arguments)):
            self.stack.append(Foreign("tensor that is not read here"))
        else:
            super().call_with(function, arguments)

    def new_buffer(self) -> None:
        arguments, made = self.pop(), self.pop()
        if isinstance(made, Foreign):
            self.stack.append(made)
            return
        self.stack += [made, arguments]
        super().new_buffer()

    def new_with_keywords(self) -> None:
        self.pop_many(2)
        self.stack.append(Foreign(getattr(self.pop(), "name", "object")))

    def append_items(self, items: list[Any]) -> None:
        if not isinstance(self.top(object), Foreign):
            super().append_items(items)

    def set_items(self, items: list[Any]) -> None:
        if isinstance(self.top(object), Foreign):
            return
        keys = [key if isinstance(key, str) else _as_key(key) for key in items[::2]]
        self.top(dict).update(zip(keys, items[1::2], strict=False))

    def set_state(self) -> None:
        self.pop()  # of an object that is a name here, or attributes of a dict

    def leave_out(self) -> None:
        self.pop_to_mark()

    actions: ClassVar[Mapping[str, Callable[[Any, Any], None]]] = {
        **Machine.actions,
        **dict.fromkeys(("LONG4", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), push),
        **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), push),
        "EMPTY_SET": lambda machine, _: machine.stack.append(Foreign("set")),
        "ADDITEMS": lambda machine, _: machine.leave_out(),
        "POP_MARK": lambda machine, _: machine.leave_out(),
        "POP": lambda machine, _: machine.pop(),
        "DUP": lambda machine, _: machine.stack.append(machine.top(object)),
        "NEWOBJ_EX": lambda machine, _: machine.new_with_keywords(),
    }


def _items(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else ()


def _as_key(key: object) -> Key:
    """Return a key that hashes as text does: the hashes of numbers can be made to clash."""
    is_short = isinstance(key, int | float) and abs(key) < 1 << 62
    return Key(str(key) if is_short else f"a {type(key).__name__}")
