"""Options of factories: what they are, reading them from the command line, building with them.

Every annotated parameter of a factory that has a default is an option, typed by the annotation
and explained by the ``Args:`` section of the docstring.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from llamakit.errors import LlamakitError, OptionError, suggestion
from llamakit.plugin_manager.contracts.returned_objects import factory_result_fault
from llamakit.plugin_manager.docstrings import section
from llamakit.plugin_manager.failures import attributed, guarded
from llamakit.plugin_manager.option_types import WORDS, LiteralValue, members, read, spell
from llamakit.plugin_manager.registry import Entry

_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "string"}
_FILES = ("file", "path", "folder", "directory")


class Option(NamedTuple):
    """One option of a factory."""

    name: str
    """As users type it, with hyphens."""
    type: Any
    """The annotation, such as ``int`` or ``Literal["a", "b"] | None``."""
    default: object
    help: str

    @property
    def type_name(self) -> str:
        """The type in words for a table, such as ``int`` or ``a | b | none``."""
        return " | ".join(spell(member) for member in members(self.type))

    @property
    def can_be_typed(self) -> bool:
        """Whether a string becomes its value, so that the command line and requests can give it."""
        fitting = members(self.type)
        return any(member in WORDS or isinstance(member, LiteralValue) for member in fitting)

    @property
    def names_a_file(self) -> bool:
        """Whether its value is a path: such an option is not for requests from a network."""
        return Path in members(self.type) or self.name.rpartition("-")[2] in _FILES

    def schema(self) -> dict[str, Any]:
        """Return its type, default and help as a JSON schema, for programs that make forms."""
        fitting = members(self.type)
        kinds = [_JSON_TYPES[member] for member in fitting if member in _JSON_TYPES]
        choices = [member.value for member in fitting if isinstance(member, LiteralValue)]
        schema: dict[str, Any] = {}
        if choices and not kinds:
            schema["enum"] = [*choices, None] if None in fitting else choices
        elif kinds and not choices:
            kinds += ["null"] if None in fitting else []
            schema["type"] = kinds[0] if len(kinds) == 1 else kinds
        if isinstance(self.default, (bool, int, float, str, type(None))):
            schema["default"] = self.default
        return {**schema, "description": self.help}


class Choice(NamedTuple):
    """What ``NAME`` or ``NAME:k=v,k=v`` asks for."""

    name: str
    options: dict[str, Any]

    def __str__(self) -> str:
        options = ",".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.name}:{options}" if options else self.name


def options_of(factory: Callable[..., Any]) -> list[Option]:
    """List the options of a factory, in the order of its parameters.

    Args:
        factory: anything callable; its docstring may explain the options under ``Args:``.
    """
    helps = section(factory, "Args:", "Arguments:")
    return [
        Option(
            parameter.name.replace("_", "-"),
            _annotation(parameter.annotation, factory),
            parameter.default,
            helps.get(parameter.name, ""),
        )
        for parameter in _parameters(factory)
    ]


def takes_tokenizer(factory: Callable[..., Any]) -> bool:
    """Tell whether a factory has a required parameter called ``tokenizer``."""
    parameter = _signature(factory).parameters.get("tokenizer")
    return (
        parameter is not None
        and parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    )


def parse_choice(text: str | Choice) -> Choice:
    """Read ``NAME`` or ``NAME:k=v,k=v``; a comma inside a value stays part of it.

    Args:
        text: or what has been read already, with any value.
    Raises:
        OptionError: something between the commas is not ``k=v``.
    """
    if isinstance(text, Choice):
        return text
    name, _, rest = text.partition(":")
    pairs: list[str] = []
    for piece in rest.split(",") if rest else ():
        if pairs and not _starts_an_option(piece):
            pairs[-1] += f",{piece}"
        else:
            pairs.append(piece)
    return Choice(name.strip(), parse_options(pairs))


def parse_options(pairs: Iterable[str]) -> dict[str, str]:
    """Read ``k=v`` strings, such as those of ``--sampler-option``.

    Raises:
        OptionError: one has no ``=``, or an option is given twice.
    """
    options: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise OptionError(f"an option is written NAME=VALUE, such as p=0.9, not {pair!r}")
        name = _hyphened(name)
        if name in options:
            raise OptionError(f"the option {name} is given twice: {options[name]!r} and {value!r}")
        options[name] = value.strip()
    return options


def build(
    entry: Entry,
    options: Mapping[str, object] | Iterable[str] = (),
    *positional: object,
    **named: object,
) -> Any:
    """Call a registered factory with checked options.

    Args:
        entry: what a registry holds under the name.
        options: values by name, or ``k=v`` strings. Hyphens and underscores in names are equal; a
            value that is a string is read as the option's type.
        positional: what the factory takes before its options, such as the tokenizer.
        named: what else it takes, by name.
    Returns:
        What the factory makes. When it is a third party's, whatever it raises later (while
        sampling, say) is a ``PluginError`` that names the plugin.
    Raises:
        OptionError: no such option, a wrong type, or a value that the factory refuses.
        PluginError: a third-party factory failed otherwise. A built-in's failure is not hidden.
    """
    given = options if isinstance(options, Mapping) else parse_options(options)
    arguments = _arguments(entry, given)
    with attributed(entry):
        try:
            result = entry.value(*positional, **named, **arguments)
        except ValueError as error:
            if isinstance(error, LlamakitError):
                raise
            raise OptionError(f"{entry}: {error}") from error
    if not entry.source.builtin and (fault := factory_result_fault(entry.kind, result)):
        raise entry.breach(fault)
    return guarded(result, entry)


def _why_no_option(entry: Entry, name: str, known: Iterable[str]) -> str:
    """End the sentence about an option that there is not."""
    if _hyphened(name).replace("-", "_") in _signature(entry.value).parameters:
        return ": it is a parameter of the factory, but options have an annotation and a default"
    return suggestion(_hyphened(name), known)


def _arguments(entry: Entry, given: Mapping[str, object]) -> dict[str, object]:
    """Turn options as given into the factory's keyword arguments."""
    known = {option.name: option for option in options_of(entry.value)}
    arguments = {}
    for name, value in given.items():
        option = known.get(_hyphened(name))
        if option is None:
            raise OptionError(f"{entry} has no option {name!r}{_why_no_option(entry, name, known)}")
        try:
            arguments[option.name.replace("-", "_")] = read(value, option.type)
        except ValueError as error:
            raise OptionError(f"{option.name} of {entry}: {error}") from None
    return arguments


def _signature(factory: Callable[..., Any]) -> inspect.Signature:
    """Read a signature whose annotations may name what is imported for type checkers only."""
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        return inspect.signature(factory, annotation_format=Format.FORWARDREF)
    return inspect.signature(factory)


def _parameters(factory: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the annotated parameters that have a default."""
    return [
        parameter
        for parameter in _signature(factory).parameters.values()
        if parameter.default is not parameter.empty
        and parameter.annotation is not parameter.empty
        and parameter.kind is not parameter.POSITIONAL_ONLY
    ]


def _annotation(annotation: Any, factory: Callable[..., Any]) -> Any:
    """Evaluate an annotation that is a string: ``from __future__ import annotations`` makes them.

    One by one: those of other parameters may name what is imported for type checkers only.
    """
    if not isinstance(annotation, str):
        return annotation
    while isinstance(factory, functools.partial):
        factory = factory.func
    function = inspect.unwrap(factory)
    names = getattr(function, "__globals__", None) or vars(sys.modules[function.__module__])
    try:
        return eval(annotation, names)  # the plugin's own code  # noqa: S307  # nosec B307
    except NameError:
        return annotation


def _hyphened(name: str) -> str:
    return name.strip().replace("_", "-")


def _starts_an_option(piece: str) -> bool:
    name, equals, _ = piece.partition("=")
    return bool(equals) and _hyphened(name).replace("-", "_").isidentifier()
