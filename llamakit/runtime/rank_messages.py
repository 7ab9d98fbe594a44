"""What ranks say to one another, as JSON: a closed set of kinds, and nothing that is ever executed.

Under torchrun the messages travel over a network, so what arrives is data only: numbers, strings,
lists, and the few dataclasses named here. An error arrives as its class's name and its message.
"""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from typing import Any

from llamakit import errors
from llamakit.errors import LlamakitError, ParallelError
from llamakit.runtime.model import Batch
from llamakit.runtime.requests import Event, Scores

CALLS = frozenset(
    (
        *("open_cache", "close_cache", "resize_cache", "copy", "swap", "release"),
        *("save_page", "load_page", "drop_page"),
        *("forward", "forward_observed", "logits_of", "drop_states", "first_nonfinite"),
    )
)
"""The methods of ``Executor`` that rank 0 may call on the others."""
KINDS = frozenset(("load", "bye", "item", "error", "end"))
"""The messages that are no calls."""

_TYPES: dict[str, type[Any]] = {"Batch": Batch, "Event": Event, "Scores": Scores}
_PLAIN_ERRORS: dict[str, type[Exception]] = {
    known.__name__: known
    for known in (ValueError, TypeError, KeyError, RuntimeError, OSError, MemoryError)
}
_TYPE, _ERROR = "type", "error"
_ADVICE = "do all ranks run the same llamakit, and does nobody else reach their ports?"


def encode(message: tuple[Any, ...]) -> bytes:
    """Write a message: ``(kind, payload)``, or ``(executor, method, arguments)`` for a call."""
    return json.dumps(_plain(message)).encode()


def decode(data: bytes) -> tuple[Any, ...]:
    """Read a message.

    Raises:
        ParallelError: it is none.
    """
    try:
        message = _restored(json.loads(data))  # noqa: TID251 - NaN is a value here
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ParallelError(f"a rank sent what is no message ({error}): {_ADVICE}") from error
    if not (_is_call(message) or _is_kind(message)):
        raise ParallelError(f"a rank sent an unknown message ({message!r:.80}): {_ADVICE}")
    assert isinstance(message, tuple)
    return message


def _is_call(message: object) -> bool:
    return (
        isinstance(message, tuple)
        and len(message) == 3
        and type(message[0]) is int
        and message[0] >= 0
        and isinstance(message[1], str)
        and message[1] in CALLS
        and isinstance(message[2], tuple)
    )


def _is_kind(message: object) -> bool:
    return (
        isinstance(message, tuple)
        and len(message) == 2
        and isinstance(message[0], str)
        and message[0] in KINDS
    )


def _plain(value: Any) -> Any:
    """Turn a value into what JSON has; a dataclass becomes an object that names its type."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, BaseException):
        return {_TYPE: _ERROR, "name": type(value).__name__, "message": str(value)}
    if isinstance(value, Scores):
        return {_TYPE: "Scores", **{name: _plain(item) for name, item in value._asdict().items()}}
    if is_dataclass(value) and type(value).__name__ in _TYPES:
        values = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return {_TYPE: type(value).__name__, **values}
    if isinstance(value, dict):
        return {_TYPE: "dict", "items": [[_plain(k), _plain(v)] for k, v in value.items()]}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    raise TypeError(f"ranks cannot send {type(value).__name__}")


def _restored(value: Any) -> Any:
    """Turn what JSON has into a value; lists become tuples."""
    if isinstance(value, list):
        nested = any(isinstance(item, list | dict) for item in value)
        return tuple(map(_restored, value)) if nested else tuple(value)
    if not isinstance(value, dict):
        return value
    values = dict(value)
    kind = values.pop(_TYPE)
    if kind == _ERROR:
        return _error(str(values["name"]), str(values["message"]))
    if kind == "dict":
        return dict(_restored(values["items"]))
    return _TYPES[kind](**{name: _restored(item) for name, item in values.items()})


def _error(name: str, message: str) -> Exception:
    """Make an error of llamakit's or a plain one of Python's; of another class, a ParallelError."""
    if name in _PLAIN_ERRORS:
        return _PLAIN_ERRORS[name](message)
    known = getattr(errors, name, None)
    if not (isinstance(known, type) and issubclass(known, LlamakitError)):
        return ParallelError(f"rank 0: {name}: {message}")
    error = known.__new__(known)  # some build their message from other arguments
    Exception.__init__(error, message)
    return error
