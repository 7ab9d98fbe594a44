"""Choice of observers of hidden states, by names and options."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

from llamakit.errors import LlamakitError, OptionError, UsageError
from llamakit.llama.sampler_choice import build_with_tokenizer
from llamakit.plugin_manager.contracts.observers import checked_observer, layers_fault
from llamakit.plugin_manager.factories import Choice, parse_choice, takes_tokenizer

if TYPE_CHECKING:
    from llamakit.plugin_manager.toolkit import Toolkit
    from llamakit.protocols import Observer, Tokenizer
    from llamakit.runtime.requests import ChosenObserver

    AnyObserver: TypeAlias = str | Choice | Observer | ChosenObserver


def choose_observers(
    choices: Iterable[AnyObserver],
    layers: int,
    *,
    toolkit: Toolkit,
    tokenizer: Tokenizer | None,
) -> tuple[ChosenObserver, ...]:
    """Build observers, and ask each what it reads.

    Args:
        choices: ``NAME`` or ``NAME:k=v,k=v``, or an ``Observer``, chosen for this model or not.
        layers: how many the model has.
        tokenizer: the model's; some observers need it.
    Raises:
        UnknownNameError: no such observer.
        OptionError: an option that it lacks, of a wrong type or out of range, for this model too.
        UsageError: one is named twice.
    """
    if isinstance(choices, str):
        raise UsageError(f"observers is a list, not a string: observers=[{choices!r}]")
    chosen = tuple(_choose(it, layers, toolkit, tokenizer) for it in choices)
    names = [it.name for it in chosen]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"the observer {twice[0]} is named twice: choose one of the two")
    return chosen


def needs_tokenizer(choices: Iterable[str | Choice], toolkit: Toolkit) -> bool:
    """Tell whether an observer takes the tokenizer. Raises as ``choose_observers``."""
    entries = [toolkit.observers.entry(parse_choice(it).name) for it in choices]
    return any(takes_tokenizer(entry.value) for entry in entries)


def _choose(
    choice: AnyObserver,
    count: int,
    toolkit: Toolkit,
    tokenizer: Tokenizer | None,
) -> ChosenObserver:
    from llamakit.runtime.requests import ChosenObserver

    if isinstance(choice, ChosenObserver):
        return choice
    if isinstance(choice, str | Choice):
        name, options = parse_choice(choice)
        entry = toolkit.observers.entry(name)
        observer: Observer = checked_observer(
            build_with_tokenizer(entry, options, tokenizer), entry
        )
    else:
        name, observer = type(choice).__name__, choice
    try:
        layers = observer.layers(count)
    except ValueError as error:
        if isinstance(error, LlamakitError):
            raise
        raise OptionError(f"observer {name}: {error}") from error
    if fault := layers_fault(layers, count):
        raise UsageError(f"the observer {name} {fault}")
    return ChosenObserver(name, observer, tuple(dict.fromkeys(layers)))
