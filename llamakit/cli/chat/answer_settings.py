"""What ``/set`` changes: how the next answer is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llamakit.errors import OptionError, UnknownNameError
from llamakit.llama.sampler_choice import choose_sampling

if TYPE_CHECKING:
    from llamakit.plugin_manager.factories import Choice
    from llamakit.plugin_manager.toolkit import Toolkit
    from llamakit.protocols import Tokenizer
    from llamakit.runtime.sampling_pipeline import Sampling

UNSET = ("none", "default")


@dataclass(frozen=True)
class Settings:
    """How an answer is written; None leaves it to the default.

    Args:
        sampler_options: ``k=v`` each.
        processors: ``NAME`` or ``NAME:k=v,k=v`` each, in order.
    """

    sampler: str | None = None
    sampler_options: tuple[str, ...] = ()
    processors: tuple[str | Choice, ...] = ()
    temperature: float | None = None
    top_p: float | None = None
    max_new_tokens: int | None = None
    seed: int | None = None

    def changed(self, name: str, words: list[str]) -> Settings:
        """Return the settings with one of them changed.

        Args:
            words: the value; several for ``processors`` and ``sampler-options``; ``none`` unsets.
        Raises:
            UnknownNameError: no such setting.
            OptionError: not a value for it.
        """
        field = name.replace("-", "_")
        field = {"processor": "processors", "sampler_option": "sampler_options"}.get(field, field)
        if field not in _READERS:
            raise UnknownNameError("setting", name, (known.replace("_", "-") for known in _READERS))
        if not words:
            raise OptionError(f"/set {name} wants a value, or none to go back to the default")
        change: dict[str, Any] = {field: _READERS[field](name, words)}
        if field == "sampler":
            change["sampler_options"] = ()  # they were the other sampler's
        return replace(self, **change)

    def sampling(self, toolkit: Toolkit, tokenizer: Tokenizer | None) -> Sampling:
        """Build the sampler and the processors. Raises as ``choose_sampling``."""
        return choose_sampling(
            sampler=self.sampler,
            sampler_options=self.sampler_options,
            processors=self.processors,
            temperature=self.temperature,
            top_p=self.top_p,
            toolkit=toolkit,
            tokenizer=tokenizer,
        )

    def lines(self) -> list[str]:
        """Describe every setting, a line each."""
        shown = []
        for field in _READERS:
            value = getattr(self, field)
            text = " ".join(map(str, value)) if isinstance(value, tuple) else value
            shown.append(f"{field.replace('_', '-')} {'default' if text in (None, '') else text}")
        return shown


def _one(name: str, words: list[str]) -> str | None:
    if len(words) > 1:
        options = " ".join(words[1:])
        hint = f"; /set {name}-options {options} comes next" if "=" in options else ""
        raise OptionError(f"/set {name} takes one value, not {len(words)}{hint}")
    return None if words[0] in UNSET else words[0]


def _several(_name: str, words: list[str]) -> tuple[str, ...]:
    return () if words[0] in UNSET else tuple(words)


def _number(name: str, words: list[str]) -> float | None:
    text = _one(name, words)
    try:
        return None if text is None else float(text)
    except ValueError as error:
        raise OptionError(f"/set {name}: {text!r} is not a number") from error


def _whole(name: str, words: list[str]) -> int | None:
    text = _one(name, words)
    try:
        return None if text is None else int(text)
    except ValueError as error:
        raise OptionError(f"/set {name}: {text!r} is not a whole number") from error


def _count(name: str, words: list[str]) -> int | None:
    value = _whole(name, words)
    if value is not None and value < 1:
        raise OptionError(f"/set {name}: {value} is not a number of ids, 1 or more")
    return value


_READERS: dict[str, Any] = {
    "sampler": _one,
    "sampler_options": _several,
    "processors": _several,
    "temperature": _number,
    "top_p": _number,
    "max_new_tokens": _count,
    "seed": _whole,
}
