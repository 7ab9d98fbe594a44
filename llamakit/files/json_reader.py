"""JSON of others, read in one place: bounded in size and depth, and refused in one sentence.

``json.loads`` alone raises a RecursionError at 100,000 brackets, takes NaN, 1e999 and lone
surrogates, keeps the last of two equal keys, and needs gigabytes for a file of 64 MB.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from llamakit.errors import InvalidJSONError
from llamakit.files.regular_file import open_regular
from llamakit.files.text import as_utf8
from llamakit.printable import printable

MAX_NBYTES = 8 << 20
"""The index of a checkpoint of 405B has 0.1 MB and a tokenizer_config.json 0.05 MB. Values take up
to 25 times the bytes of their text, so this much needs 230 MB at worst."""
MAX_CONTAINERS = 1_000_000
"""Brackets and braces, those in strings too: an empty list is 2 bytes of text, 88 of memory."""
MAX_DEPTH = 64
"""How deep lists and objects may be nested. A chat or a config has 5 levels, a schema some 20."""
MAX_DIGITS = 100
"""Of a whole number: what is longer fits no float, and takes quadratic time to parse."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json_file(path: Path, *, max_nbytes: int = MAX_NBYTES) -> Any:
    """Read a file that holds one JSON value.

    Args:
        max_nbytes: how large the file may be.

    Raises:
        InvalidJSONError: it is not JSON; as ``parse_json``.
        OSError: it cannot be read, or is no regular file.
    """
    with open_regular(path) as file:
        data = file.read(max_nbytes + 1)
    return parse_json(data, str(path), max_nbytes=max_nbytes)


def parse_json(
    data: bytes | str,
    source: str,
    *,
    max_nbytes: int = MAX_NBYTES,
    whole_floats: bool = False,
) -> Any:
    """Parse JSON as RFC 8259 has it: no NaN, no key twice, UTF-8, or what a byte-order mark says.

    Args:
        data: the JSON. A string may hold what was no UTF-8 as surrogates (``surrogateescape``).
        source: what it is from, as the subject of a sentence: ``models/params.json, line 3``.
        max_nbytes: how long it may be.
        whole_floats: read 2.0 as 2, since JSON has one kind of number.

    Raises:
        InvalidJSONError: it is not JSON, too large, nested too deep, or holds a value that other
            readers would see differently. The message names the source and the place.
    """
    try:
        text = _decoded(data, max_nbytes)
        if (containers := text.count("[") + text.count("{")) > MAX_CONTAINERS:
            raise ValueError(f"it has {containers} lists and objects")
        value = json.loads(  # noqa: TID251 - the one place
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_whole_float if whole_floats else _float,
            parse_int=_integer,
        )
        _check(value, has_surrogates=_SURROGATE.search(text) is not None)
    except RecursionError:
        raise InvalidJSONError(source, _TOO_DEEP) from None
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise InvalidJSONError(source, reason if text.strip() else "it is empty") from None
    except ValueError as error:
        raise InvalidJSONError(source, str(error)) from None
    return value


def parse_json_again(data: bytes) -> Any:
    """Parse JSON that was written from what ``parse_json`` has returned, without its checks.

    Raises:
        InvalidJSONError: it is not JSON.
    """
    try:
        return json.loads(data)  # noqa: TID251 - the other place, for what passed the first one
    except ValueError as error:
        raise InvalidJSONError("the copy", str(error)) from None


_TOO_DEEP = f"its lists and objects are nested more than {MAX_DEPTH} deep"


def _decoded(data: bytes | str, max_nbytes: int) -> str:
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    if len(data) > max_nbytes:
        raise ValueError(f"it has over {max_nbytes} bytes")
    try:
        return as_utf8(data).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not {error.encoding.upper()} text") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"the key {twice!r:.60} is there twice")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{printable(text, 60)} is too large a number")
    return number


def _whole_float(text: str) -> float:
    number = _float(text)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _check(value: object, *, has_surrogates: bool) -> None:
    """Refuse what is nested too deep, and lone surrogates, which UTF-8 cannot write."""
    values: list[object] = [value]
    for _ in range(MAX_DEPTH + 1):
        if has_surrogates:
            _check_unicode(values)
        parents = [item for item in values if isinstance(item, dict | list)]
        if not parents:
            return
        values = [
            item
            for parent in parents
            for item in (chain(parent, parent.values()) if isinstance(parent, dict) else parent)
        ]
    raise ValueError(_TOO_DEEP)


def _check_unicode(values: list[object]) -> None:
    try:
        for item in values:
            if isinstance(item, str):
                item.encode()
    except UnicodeEncodeError:
        raise ValueError(r"a string has a lone surrogate, such as \ud800") from None
