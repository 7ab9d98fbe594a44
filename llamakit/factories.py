"""Options of factories: what they are, reading them from the command line, building with them.

Every annotated parameter of a factory that has a default is an option, typed by the annotation
and explained by the ``Args:`` section of the docstring.
"""

from __future__ import annotations

import errno
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from llamakit.errors import LlamakitError, OptionError, suggestion
from llamakit.registry import Entry

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")
_NAMES = {
    bool: "yes or no",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
}
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
        return " | ".join(_spell(member) for member in _members(self.type))

    @property
    def can_be_typed(self) -> bool:
        """Whether a text becomes its value, so that the command line and requests can give it."""
        members = _members(self.type)
        return any(member in _NAMES or isinstance(member, _Literal) for member in members)

    @property
    def names_a_file(self) -> bool:
        """Whether its value is a path: such an option is not for requests from a network."""
        return Path in _members(self.type) or self.name.rpartition("-")[2] in _FILES

    def schema(self) -> dict[str, Any]:
        """Return its type, default and help as a JSON schema, for programs that make forms."""
        members = _members(self.type)
        kinds = [_JSON_TYPES[member] for member in members if member in _JSON_TYPES]
        choices = [member.value for member in members if isinstance(member, _Literal)]
        schema: dict[str, Any] = {}
        if choices and not kinds:
            schema["enum"] = [*choices, None] if None in members else choices
        elif kinds and not choices:
            kinds += ["null"] if None in members else []
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
    helps = _helps(inspect.getdoc(factory) or "")
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


def summary_of(factory: object) -> str:
    """Return the first sentence of the docstring, or nothing."""
    return " ".join((inspect.getdoc(factory) or "").partition("\n\n")[0].split())


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
    """Read ``k=v`` texts, such as those of ``--sampler-option``.

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
        options: values by name, or ``k=v`` texts. Hyphens and underscores in names are equal; a
            value that is a text is read as the option's type.
        positional: what the factory takes before its options, such as the tokenizer.
        named: what it takes beside them by name.
    Returns:
        What the factory makes. When it is a stranger's, whatever it raises later (while
        sampling, say) is a ``PluginError`` that names the plugin.
    Raises:
        OptionError: no such option, a wrong type, or a value that the factory refuses.
        PluginError: a stranger's factory failed otherwise. A built-in's failure is not hidden.
    """
    given = options if isinstance(options, Mapping) else parse_options(options)
    arguments = _arguments(entry, given)
    try:
        made = entry.value(*positional, **named, **arguments)
    except LlamakitError:
        raise
    except ValueError as error:
        raise OptionError(f"{entry}: {error}") from error
    except (Exception, SystemExit) as error:
        if entry.source.builtin or is_out_of_memory(error):
            raise
        raise entry.failure(error) from error
    return guarded(made, entry)


def guarded(thing: Any, entry: Entry) -> Any:
    """Have what a stranger's thing raises name its plugin; a built-in's is returned as it is."""
    return thing if entry.source.builtin else _Guarded(thing, entry)


def _arguments(entry: Entry, given: Mapping[str, object]) -> dict[str, object]:
    """Turn options as given into the factory's keyword arguments."""
    known = {option.name: option for option in options_of(entry.value)}
    arguments = {}
    for name, value in given.items():
        option = known.get(_hyphened(name))
        if option is None:
            hint = suggestion(_hyphened(name), known)
            raise OptionError(f"{entry} has no option {name!r}{hint}")
        try:
            arguments[option.name.replace("-", "_")] = _read(value, option.type)
        except ValueError as error:
            raise OptionError(f"{option.name} of {entry}: {error}") from None
    return arguments


def _read(value: object, annotation: Any) -> object:
    """Check a value against an annotation, or read it from a text.

    Raises:
        ValueError: it does not fit.
    """
    members = _members(annotation)
    for member in members:
        try:
            return _read_as(value, member)
        except ValueError:
            continue
    words = [_NAMES.get(member, _spell(member)) for member in members]
    raise ValueError(f"{value!r} is not {' or '.join(words)}")


def _read_as(value: object, member: Any) -> object:
    """Read a value as one member of a union: a type, a literal value or None."""
    if member in _NAMES:
        return _read_text(value, member) if isinstance(value, str) else _check(value, member)
    if isinstance(member, _Literal) or member is None:
        literal = member and member.value
        if value != literal and str(value).lower() != _spell(member).lower():
            raise ValueError(value)
        return literal
    if isinstance(value, str):  # of a type that no text becomes
        raise ValueError(value)
    return value


def _read_text(text: str, kind: Callable[[str], object]) -> object:
    """Read a text as a bool, an int, a float, a str or a path."""
    if kind is bool:
        if text.lower() not in _TRUE + _FALSE:
            raise ValueError(text)
        return text.lower() in _TRUE
    value = kind(text)
    if value != value:  # noqa: PLR0124 - nan is no number
        raise ValueError(text)
    return value


def _check(value: object, kind: type) -> object:
    """Check that a value, given from Python, is of a type; an int will do for a float."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(value)
    return value


class _Literal(NamedTuple):
    """One value of a ``Literal``."""

    value: object


def _members(annotation: Any) -> list[Any]:
    """Flatten an annotation into types, ``_Literal`` values and None.

    Types whose texts are told apart more easily come first, ``str`` last.
    """
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin is Literal:
        return [_Literal(value) for value in get_args(annotation)]
    if origin in (Union, types.UnionType):
        found = [member for part in get_args(annotation) for member in _members(part)]
        return sorted(found, key=lambda member: member is str)
    return [None if annotation is type(None) else annotation]


def _spell(member: Any) -> str:
    """Write a member of a union as users type it."""
    if isinstance(member, _Literal):
        return str(member.value)
    if member is None:
        return "none"
    return (
        member.__name__ if get_origin(member) is None and isinstance(member, type) else str(member)
    )


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
    """Evaluate an annotation that is a text: ``from __future__ import annotations`` makes them.

    One by one: those of other parameters may name what is imported for type checkers only.
    """
    if not isinstance(annotation, str):
        return annotation
    function = inspect.unwrap(factory)
    names = getattr(function, "__globals__", None) or vars(sys.modules[function.__module__])
    try:
        return eval(annotation, names)  # noqa: S307 - the plugin's own code, as inspect does
    except NameError:
        return annotation


def _helps(docstring: str) -> dict[str, str]:
    """Read the ``Args:`` section of a Google docstring: parameter -> its help on one line."""
    helps: dict[str, str] = {}
    name = ""
    lines = iter(docstring.splitlines())
    for line in lines:
        if line.strip() in ("Args:", "Arguments:"):
            break
    margin = 0
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line.strip() and not indent:
            break
        margin = margin or indent
        if line.strip() and indent == margin:
            head, _, text = line.partition(":")
            name = head.partition("(")[0].strip().lstrip("*")
            helps[name] = text.strip()
        elif line.strip() and name:
            helps[name] += f" {line.strip()}"
    return helps


def _hyphened(name: str) -> str:
    return name.strip().replace("_", "-")


def _starts_an_option(piece: str) -> bool:
    name, equals, _ = piece.partition("=")
    return bool(equals) and _hyphened(name).replace("-", "_").isidentifier()


class _Guarded:
    """A stranger's sampler, processor, prompt format …: what it raises names the plugin."""

    __slots__ = ("_entry", "_made")

    def __init__(self, made: Any, entry: Entry) -> None:
        self._made = made
        self._entry = entry

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._made(*args, **kwargs)
        except (Exception, SystemExit) as error:
            if isinstance(error, LlamakitError) or is_out_of_memory(error) or _is_full(error):
                raise
            raise self._entry.failure(error) from error

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self._made, name)
        return _Guarded(value, self._entry) if inspect.isroutine(value) else value


def _is_full(error: BaseException) -> bool:
    """Tell whether a disk is full, which is nobody's fault."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out: Python's, or torch's on any device."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )
