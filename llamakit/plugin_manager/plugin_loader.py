"""Imports one plugin, checks its hooks and what it registers; imports a command when it is run."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pluggy

from llamakit import hookspecs
from llamakit._distribution import __version__
from llamakit.errors import PluginError
from llamakit.plugin_manager.contracts.kernels import is_place, spec_fault
from llamakit.plugin_manager.entry_points import EntryPoint
from llamakit.plugin_manager.failures import attributed
from llamakit.plugin_manager.guarded_hooks import HookGuard
from llamakit.plugin_manager.plugin_record import maybe_newer
from llamakit.plugin_manager.registry import Entry

if TYPE_CHECKING:
    import click


def import_plugin(entry_point: EntryPoint) -> object:
    """Import what an entry point names: a module, or a thing in it.

    Raises:
        PluginError: it names none, or one that is not there.
    """
    if not entry_point.module:
        raise PluginError("its entry point names no module")
    try:
        module = import_module(entry_point.module)
    except ModuleNotFoundError as error:
        absent = error.name or "?"
        if absent.startswith("llamakit.") or not f"{entry_point.module}.".startswith(f"{absent}."):
            raise
        raise PluginError(
            f"its entry point names the module {entry_point.module}, but there is no {absent}: its "
            "pyproject.toml has to list it under py-modules or packages; tell its author"
        ) from error
    return functools.reduce(getattr, filter(None, entry_point.attr.split(".")), module)


def load_command(entry: Entry) -> click.Command:
    """Return a registered command; one that was registered by its place is imported now.

    Raises:
        PluginError: a third-party plugin's place does not hold a Click command, or its import
            fails.
    """
    import click

    command = entry.value
    with attributed(entry):
        if isinstance(command, str):
            command = import_place(command)
        if not isinstance(command, click.Command):
            raise _wrong_value(entry._replace(value=command), "a click.Command")
    return command


def import_place(place: str) -> Any:
    """Import what ``module:attribute`` names."""
    module, _, attribute = place.partition(":")
    return functools.reduce(getattr, attribute.split("."), import_module(module))


def register(manager: pluggy.PluginManager, plugin: object, name: str, guard: HookGuard) -> None:
    """Check a plugin against the hooks, and register its guarded implementations with pluggy.

    Args:
        manager: knows the hooks; it keeps the guarded plugin under ``name`` if all goes well.
        guard: holds what the implementations raise when they are called.
    Raises:
        PluginError: it implements no hook, one that there is not, or one with other arguments.
    """
    guard.guard(manager, plugin)
    _refuse_unknown_hooks(manager, guard)
    try:
        manager.register(guard.plugin, name)
    except pluggy.PluginValidationError:
        if manager.is_registered(guard.plugin):  # pluggy 1.5 keeps what it refuses
            manager.unregister(guard.plugin)
        _refuse_arguments(manager, guard.plugin)
        raise


def _refuse_unknown_hooks(manager: pluggy.PluginManager, guard: HookGuard) -> None:
    if not guard.hooks:
        raise PluginError("it implements no hook: is @hookimpl missing?")
    for hook, is_optional in guard.hooks.items():
        if not is_optional and _spec(manager, hook) is None:
            raise PluginError(
                f"it implements {hook}, which llamakit {__version__} does not have"
                f"{_meant(manager, hook)}: {maybe_newer(guard.record.source)}"
            )


def checked_entries(guard: HookGuard) -> list[Entry]:
    """Return what a plugin has registered, by hook and in the order of its calls.

    Raises:
        TypeError: a value is of another type than its kind needs.
        ValueError: a place of a command is misspelled, or has no help.
    """
    registrars = [registrar for _, registrar in sorted(guard.registrars.items())]
    return [_checked(entry) for registrar in registrars for entry in registrar.entries]


def _meant(manager: pluggy.PluginManager, name: str) -> str:
    """Say which hook was probably meant, if one is called much like it."""
    import difflib  # seldom needed, and --help starts without it

    known = {
        spec.removeprefix("register_"): spec for spec in vars(hookspecs) if _spec(manager, spec)
    }
    close = difflib.get_close_matches(name.removeprefix("register_"), known, 1, 0.7)
    return f"; did you mean {known[close[0]]}? If not" if close else ""


def _refuse_arguments(manager: pluggy.PluginManager, plugin: object) -> None:
    """Refuse an implementation of a hook whose arguments are called otherwise.

    Raises:
        PluginError: one has such arguments; the sentence says which the hook has.
    """
    for name in dir(plugin):
        spec = _spec(manager, name)
        if spec is None or manager.parse_hookimpl_opts(plugin, name) is None:
            continue
        given = inspect.signature(getattr(plugin, name)).parameters
        if wrong := [argument for argument in given if argument not in spec.argnames]:
            raise PluginError(
                f"its {name} takes {', '.join(wrong)}; the hook has the argument "
                f"{', '.join(spec.argnames)}, and an implementation calls it so"
            )


def _spec(manager: pluggy.PluginManager, name: str) -> Any:
    """Return what is declared of a hook, or None if there is no such hook."""
    return getattr(getattr(manager.hook, name, None), "spec", None)


def _checked(entry: Entry) -> Entry:
    """Check the value of an entry, and fill in a command's help."""
    if entry.kind in ("command", "checkpoint tool"):
        if isinstance(entry.value, str):
            return _checked_place(entry)
        import click

        if not isinstance(entry.value, click.Command):
            raise _wrong_value(entry, "a click.Command")
        help_text = entry.help or entry.value.get_short_help_str(100)
        return entry._replace(help=help_text)
    if entry.kind in ("model", "engine"):
        if not isinstance(entry.value, Mapping):
            raise _wrong_value(entry, "a mapping")
    elif entry.kind == "kernel":
        if fault := spec_fault(entry.value):
            raise TypeError(f"the {entry} {fault}")
    elif not callable(entry.value):
        raise _wrong_value(entry, "something to call")
    return entry


def _checked_place(entry: Entry) -> Entry:
    """Check a command that is registered by its place, ``module:attribute``, and not imported."""
    if not is_place(entry.value):
        raise ValueError(f"the {entry} is {entry.value!r}; expected 'module:attribute'")
    if not entry.help:
        raise ValueError(f"the {entry} is imported when it is run, so it needs help=")
    return entry


def _wrong_value(entry: Entry, expected: str) -> TypeError:
    return TypeError(f"the {entry} is of type {type(entry.value).__name__}, not {expected}")
