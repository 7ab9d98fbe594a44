"""JSON objects that people edit by hand, read with errors that name the file and the key."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from pathlib import Path

from llamakit.checkpoint.misnamed_files import hint_at_misnamed
from llamakit.checkpoint.not_weights import HEAD_NBYTES, describe_not_weights, remedy
from llamakit.errors import InvalidJSONError, ParamsError
from llamakit.files.json_reader import MAX_NBYTES, parse_json
from llamakit.files.regular_file import open_regular

MAX_COUNT = 1 << 31


def read_json(path: Path) -> dict[str, object]:
    """Read a file that holds one JSON object.

    Raises:
        ParamsError: it is absent, an error page, not JSON or not an object.
    """
    try:
        with open_regular(path) as file:
            data = file.read(MAX_NBYTES + 1)
    except FileNotFoundError:
        advice = hint_at_misnamed(path) or " Copy it from where the weights are."
        raise ParamsError(f"{path} does not exist.{advice}") from None
    except OSError as error:
        raise ParamsError(f"{path} cannot be read: {error.strerror}.") from None
    if problem := describe_not_weights(data[:HEAD_NBYTES]):
        raise ParamsError(f"{path} is {problem}; expected JSON. {remedy(problem)}")
    try:
        value = parse_json(data, str(path))
    except InvalidJSONError as error:
        raise ParamsError(f"{error}; download it again.") from None
    if not isinstance(value, dict):
        raise ParamsError(f"{path} holds a JSON {type(value).__name__}; expected an object.")
    return value


class Fields:
    """The values of a JSON object, each checked when it is asked for. A null counts as absent."""

    def __init__(self, values: Mapping[str, object], path: Path) -> None:
        self._values = values
        self._path = path

    def count(self, key: str) -> int:
        """Return a positive integer that has to be there."""
        value = self.optional_count(key)
        if value is None:
            raise ParamsError(f"{self._path} has no {key!r}; expected a positive integer.")
        return value

    def optional_count(self, key: str) -> int | None:
        """Return a positive integer, or None if it is absent."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < MAX_COUNT:
            raise self._wrong(key, value, "a positive integer")
        return value

    def optional_number(self, key: str) -> float | None:
        """Return a positive finite number, or None if it is absent."""
        value = self._values.get(key)
        if value is None:
            return None
        # The bound keeps an integer of hundreds of digits out of float().
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e300:
            raise self._wrong(key, value, "a positive number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false."""
        value = self._values.get(key, default)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def optional_mapping(self, key: str) -> Mapping[str, object] | None:
        """Return an object, or None if it is absent."""
        value = self._values.get(key)
        if value is not None and not isinstance(value, dict):
            raise self._wrong(key, value, "an object")
        return value

    def _wrong(self, key: str, value: object, expected: str) -> ParamsError:
        if isinstance(value, float) and math.isnan(value):
            expected += ", and NaN is none"
        return ParamsError(
            f"{self._path}: {key!r} is {reprlib.repr(value)}; expected {expected}. "
            "Correct it, or copy the file again from where the weights are."
        )
