"""The contract of factories: options with a type, a default, a help and a range."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from llamakit._distribution import DISTRIBUTION, __version__
from llamakit.errors import LlamakitError
from llamakit.plugin_manager.contracts.returned_objects import factory_result_fault
from llamakit.plugin_manager.docstrings import summary_of
from llamakit.plugin_manager.factories import Option, build, options_of, takes_tokenizer
from llamakit.plugin_manager.registry import Entry, Source
from llamakit.testing.process_state import ContractError, check_fault, left_alone
from llamakit.testing.registration_checks import check_registration_of
from llamakit.testing.small_checkpoints import embedded_tokenizer

Value = TypeVar("Value")

TYPES = "use int, float, bool, str, Path, Literal[…], or one of these with | None"
"""What the annotation of an option can be."""
_NONSENSE: dict[Any, tuple[object, ...]] = {int: (-1, 0), float: (-1.0, 0.0)}


def _entry_for(kind: str, factory: object) -> Entry:
    """Wrap what is checked as a registry would hold it.

    As if it were built in: what it raises comes through as it is.
    """
    name = str(getattr(factory, "__name__", factory))
    return Entry(kind, name, factory, "", Source(name, DISTRIBUTION, __version__, builtin=True))


def check_factory(kind: str, factory: object, positional: int = 0) -> Entry:
    """Check that a factory is registered, and what ``llamakit plugins show`` says of it.

    Args:
        kind: of the factory, such as ``sampler``.
        positional: how many parameters come before its options, for llamakit to fill.
    Returns:
        The factory as a registry would hold it.

    Raises:
        ContractError: no docstring, a parameter that is no proper option, or registered wrongly.
    """
    __tracebackhide__ = True
    entry = _entry_for(kind, factory)
    check_registration_of(factory)
    if not callable(entry.value):
        raise ContractError(
            f"the {entry.kind} {entry.value!r} is not a factory: register a "
            "function that takes the options and returns what does the work"
        )
    if not summary_of(entry.value):
        raise ContractError(
            f"{entry} has no docstring: its first sentence is what "
            "`llamakit plugins show` tells users"
        )
    for parameter in list(inspect.signature(entry.value).parameters.values())[positional:]:
        if parameter.name != "tokenizer" or parameter.default is not parameter.empty:
            _check_parameter(entry, parameter)
    for option in options_of(entry.value):
        if not option.help:
            raise ContractError(
                f"the option {option.name} of {entry} is not explained: add a line "
                f"`{option.name.replace('-', '_')}: …` under `Args:` in the factory's docstring"
            )
        if not option.can_be_typed:
            raise ContractError(f"{not_typable(entry, option)}: {TYPES}")
        _check_default(entry, option)
    return entry


def not_typable(entry: Entry, option: Option) -> str:
    """Say that an option is of a type that no text becomes."""
    return (
        f"the option {option.name} of {entry} is of type {option.type_name}, which nobody can type "
        "on a command line"
    )


def make(entry: Entry, options: Mapping[str, object], *positional: object) -> Any:
    """Build with options, as llamakit does, and see that nothing else changes.

    Args:
        positional: what the factory takes before its options. A sampler or processor that asks
            for the tokenizer by name gets the bundled demo model's.

    Raises:
        ContractError: the factory fails, or changes what the process shares.
    """
    __tracebackhide__ = True
    asks = not positional and takes_tokenizer(entry.value)
    named = {"tokenizer": embedded_tokenizer()} if asks else {}
    try:
        with left_alone(f"building {entry}"):
            product = build(entry, options, *positional, **named)
    except (LlamakitError, ContractError):
        raise
    except Exception as error:
        raise ContractError(
            f"building {entry} with {dict(options) or 'its defaults'} fails: "
            f"{said(error)}; a factory raises nothing but ValueError, for a value out of range"
        ) from error
    check_fault(str(entry), factory_result_fault(entry.kind, product))
    return product


def check_same_again(
    entry: Entry,
    options: Mapping[str, object],
    product: Any,
    use: Callable[[Any], Value],
    fault: str,
) -> Value:
    """Check that a product does the same once more, and so does another that is made alike.

    Args:
        use: what is done with the product; nothing else may change.
        fault: what is wrong where the results differ, and what to do.
    Returns:
        The first result.

    Raises:
        ContractError: the results differ.
    """
    __tracebackhide__ = True
    with left_alone(str(entry)):
        first = use(product)
    for again in (product, make(entry, options)):
        if use(again) != first:
            raise ContractError(f"{entry} {fault}")
    return first


def nonsense(entry: Entry, options: Mapping[str, object]) -> Iterator[dict[str, object]]:
    """Yield options of which one number is hardly meant."""
    for option in options_of(entry.value):
        for value in _NONSENSE.get(option.type, ()):
            yield {**options, option.name: value}


def check_nonsense(
    entry: Entry,
    options: Mapping[str, object],
    use: Callable[[Any], object],
    *positional: object,
) -> None:
    """Check that a number which is hardly meant is refused in the factory, or works.

    Args:
        use: what is done with the thing that the factory has made.
    """
    __tracebackhide__ = True
    for given in nonsense(entry, options):
        try:
            product = make(entry, given, *positional)
        except LlamakitError:
            continue
        try:
            use(product)
        except Exception as error:
            raise ContractError(
                f"{entry} takes {given} and fails when it is used: {said(error)}. Check the range "
                "in the factory and raise ValueError: users read its sentence before a model is "
                "loaded"
            ) from error


def said(error: BaseException) -> str:
    """Write an error in one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ContractError) else f"{type(error).__name__}: {text}"


def _check_parameter(entry: Entry, parameter: inspect.Parameter) -> None:
    __tracebackhide__ = True
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return
    if parameter.default is parameter.empty:
        raise ContractError(
            f"the parameter {parameter.name} of {entry} has no default, so users "
            "could not leave it out: give it one"
        )
    if parameter.annotation is parameter.empty:
        raise ContractError(
            f"the parameter {parameter.name} of {entry} has no annotation, so it "
            f"is no option: write its type, such as {parameter.name}: float = …"
        )


def _check_default(entry: Entry, option: Option) -> None:
    __tracebackhide__ = True
    try:
        build(entry._replace(value=_asked(entry.value)), {option.name: option.default})
    except LlamakitError as error:
        raise ContractError(
            f"the default of {option.name} does not fit its annotation: {error}"
        ) from error


def _asked(factory: Callable[..., Any]) -> Callable[..., None]:
    """Return something with a factory's signature that does nothing."""

    def nothing(*args: Any, **kwargs: Any) -> None:
        pass

    vars(nothing).update(__signature__=inspect.signature(factory), __wrapped__=factory)
    nothing.__doc__ = factory.__doc__
    return nothing
