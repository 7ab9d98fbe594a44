"""The settings that ``/set`` changes: how the next answer is generated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from llamakit.cli.number_types import MOST
from llamakit.errors import OptionError, UnknownNameError
from llamakit.llama.options import SamplingOptions
from llamakit.llama.seeds import check_seed
from llamakit.plugin_manager.option_types import number, whole_number

N = TypeVar("N", int, float)
UNSET = ("none", "default")


@dataclass(frozen=True)
class AnswerSettings(SamplingOptions):
    """How an answer is generated; None leaves it to the default."""

    max_new_tokens: int | None = None
    seed: int | None = None

    def changed(self, name: str, values: list[str]) -> AnswerSettings:
        """Return the settings with one of them changed.

        Args:
            values: one; several for ``processors`` and ``sampler-options``; ``none`` unsets.
        Raises:
            UnknownNameError: no such setting.
            OptionError: not a value for it.
        """
        field = name.replace("-", "_")
        field = {"processor": "processors", "sampler_option": "sampler_options"}.get(field, field)
        if field not in _READERS:
            raise UnknownNameError("setting", name, (known.replace("_", "-") for known in _READERS))
        if not values:
            raise OptionError(f"/set {name} wants a value, or none to go back to the default")
        change: dict[str, Any] = {field: _READERS[field](name, values)}
        if field == "sampler":
            change["sampler_options"] = ()  # they were the other sampler's
        return replace(self, **change)

    def lines(self) -> list[str]:
        """Describe every setting, a line each."""
        shown = []
        for field in _READERS:
            value = getattr(self, field)
            text = " ".join(map(str, value)) if isinstance(value, tuple) else value
            shown.append(f"{field.replace('_', '-')} {'default' if text in (None, '') else text}")
        return shown


def _one(name: str, values: list[str]) -> str | None:
    if len(values) > 1:
        options = " ".join(values[1:])
        hint = f"; /set {name}-options {options} comes next" if "=" in options else ""
        raise OptionError(f"/set {name} takes one value, not {len(values)}{hint}")
    return None if values[0] in UNSET else values[0]


def _several(_name: str, values: list[str]) -> tuple[str, ...]:
    return () if values[0] in UNSET else tuple(values)


def _number(name: str, values: list[str]) -> float | None:
    return _bounded(name, _read(name, values, number))


def _whole_number(name: str, values: list[str]) -> int | None:
    return _bounded(name, _read(name, values, whole_number))


def _read(name: str, values: list[str], read: Callable[[str], N]) -> N | None:
    text = _one(name, values)
    try:
        return None if text is None else read(text)
    except ValueError as error:
        raise OptionError(f"/set {name}: {error}") from error


def _bounded(name: str, value: N | None) -> N | None:
    if value is not None and value > MOST:
        raise OptionError(f"/set {name}: {value} is too large a number: {MOST} at most")
    return value


def _count(name: str, values: list[str]) -> int | None:
    value = _whole_number(name, values)
    if value is not None and value < 1:
        raise OptionError(f"/set {name}: {value} is not a number of tokens, 1 or more")
    return value


def _seed(name: str, values: list[str]) -> int | None:
    value = _read(name, values, whole_number)
    return None if value is None else check_seed(value)


_READERS: dict[str, Any] = {
    "sampler": _one,
    "sampler_options": _several,
    "processors": _several,
    "temperature": _number,
    "top_p": _number,
    "max_new_tokens": _count,
    "seed": _seed,
}
