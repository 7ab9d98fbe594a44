"""Has every hook implementation hold its own failure, so that pluggy can call them all.

pluggy calls the implementations in the order that it documents. What is registered with it are
not a plugin's own functions but guarded ones: what such a function raises marks its plugin as
broken, and the call continues as if the plugin were not installed. A registering hook is called
once for all plugins; each implementation gets the registrar of its own plugin.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from types import ModuleType
from typing import Any

import pluggy

from llamakit.errors import PluginError
from llamakit.hookspecs import hookimpl
from llamakit.plugin_manager.contracts.returned_objects import opened_fault
from llamakit.plugin_manager.failures import OPENED, guarded, speaks_for_itself
from llamakit.plugin_manager.plugin_record import PluginRecord
from llamakit.plugin_manager.registry import Entry, Registrar


class GuardedPlugin:
    """What pluggy gets instead of a plugin: its guarded implementations are the attributes."""

    def __dir__(self) -> list[str]:
        return list(vars(self))  # pluggy looks at each name at length; those of object are none


class HookGuard:
    """Guards the hook implementations of one plugin.

    Args:
        record: the plugin.
        kinds: what each registering hook fills, such as ``"sampler"``.
        fail: called with the name of the hook and what was raised; it marks the plugin as broken.
    """

    def __init__(
        self,
        record: PluginRecord,
        kinds: Mapping[str, str],
        fail: Callable[[str, BaseException], None],
    ) -> None:
        self.record = record
        self.registrars: dict[str, Registrar[Any]] = {}
        """By registering hook: what its implementation is called with."""
        self.hooks: dict[str, bool] = {}
        """The hooks that it implements, and whether it works without each (``optionalhook``)."""
        self.plugin = GuardedPlugin()
        self._kinds = kinds
        self._fail = fail

    def guard(self, manager: pluggy.PluginManager, plugin: object) -> None:
        """Guard all hook implementations of ``plugin``.

        Raises:
            PluginError: a wrapper has no ``yield``.
        """
        for name in _marked(plugin):
            options = manager.parse_hookimpl_opts(plugin, name)
            if options is not None:
                hook = options.get("specname") or name
                self.hooks[hook] = bool(options.get("optionalhook"))
                setattr(self.plugin, name, self._guarded(getattr(plugin, name), hook, options))
                if hook in self._kinds:
                    registrar: Registrar[Any] = Registrar(self._kinds[hook], self.record.source)
                    self.registrars.setdefault(hook, registrar)

    def _guarded(
        self, function: Callable[..., Any], hook: str, options: Mapping[str, Any]
    ) -> Callable[..., Any]:
        """Return a function of the same signature and options that holds what it raises."""
        if not (options.get("wrapper") or options.get("hookwrapper")):

            @functools.wraps(function)
            def call(*arguments: Any) -> Any:
                return self._call(function, hook, arguments)

            return call
        if not inspect.isgeneratorfunction(function):
            raise PluginError(f"its {hook} is a wrapper without a yield")

        @functools.wraps(function)
        def wrap(*arguments: Any) -> Generator[None, Any, Any]:
            return (yield from self._wrap(function, hook, arguments, bool(options["hookwrapper"])))

        # pluggy calls both kinds of wrapper in the same order; the old kind is driven below.
        ours = {**options, "wrapper": True, "hookwrapper": False}
        return hookimpl(wrap, **ours)

    def _call(self, function: Callable[..., Any], hook: str, arguments: Sequence[Any]) -> Any:
        try:
            with self.record.timed() if hook in self.registrars else contextlib.nullcontext():
                result = function(*self._own(hook, arguments))
            return self._accepted(hook, result)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - as `_hold` says
            return self._hold(hook, error)
        except KeyboardInterrupt:
            self._interrupted(hook)
            raise

    def _wrap(
        self, function: Callable[..., Any], hook: str, arguments: Sequence[Any], is_old: bool
    ) -> Generator[None, Any, Any]:
        """Run a wrapper around the inner call, whose result is kept if the wrapper fails."""
        wrapper = self._started(function, hook, arguments)
        inner: pluggy.Result[Any]
        try:
            inner = pluggy.Result((yield), None)
        except BaseException as error:  # noqa: BLE001 - the wrapper may look at it; it is raised below
            inner = pluggy.Result(None, error)
        if wrapper is None:
            return inner.get_result()
        try:
            return self._finished(wrapper, hook, inner, is_old)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - as `_hold` says
            if error is not inner.exception:
                self._hold(hook, error)
        return inner.get_result()

    def _started(
        self, function: Callable[..., Any], hook: str, arguments: Sequence[Any]
    ) -> Generator[None, Any, Any] | None:
        """Run a wrapper up to its ``yield``; None if it fails."""
        wrapper: Generator[None, Any, Any] = function(*self._own(hook, arguments))
        try:
            next(wrapper)
        except StopIteration:
            self._hold(hook, RuntimeError("its wrapper did not yield"))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - as `_hold` says
            self._hold(hook, error)
        except KeyboardInterrupt:
            self._interrupted(hook)
            raise
        else:
            return wrapper
        return None

    def _finished(
        self,
        wrapper: Generator[None, Any, Any],
        hook: str,
        inner: pluggy.Result[Any],
        is_old: bool,
    ) -> Any:
        """Run a wrapper from its ``yield`` to its end; return the result as it leaves it.

        Raises: what the wrapper raises, and
            TypeError: it replaces the result by something of no use.
        """
        before = None if inner.exception else inner.get_result()
        outcome = pluggy.Result(before, inner.exception) if is_old else inner
        try:
            if is_old:
                wrapper.send(outcome)
            elif inner.exception is not None:
                wrapper.throw(inner.exception)
            else:
                wrapper.send(inner.get_result())
        except StopIteration as end:
            result = outcome.get_result() if is_old else end.value
        else:
            wrapper.close()
            raise RuntimeError("its wrapper yields twice")
        if hook in OPENED and result is None and before is not None:
            raise TypeError(f"its wrapper returned None instead of the {OPENED[hook]}")
        return result if result is before else self._accepted(hook, result)

    def _own(self, hook: str, arguments: Sequence[Any]) -> Sequence[Any]:
        """Return the arguments of a call: of a registering hook, the plugin's own registrar."""
        if hook in self.registrars:
            return [self.registrars[hook]] * len(arguments)
        return arguments

    def _accepted(self, hook: str, result: Any) -> Any:
        """Return what a third-party plugin has opened, checked and guarded.

        Raises:
            TypeError: it is of no use.
        """
        source = self.record.source
        if hook not in OPENED or result is None or source.builtin:
            return result
        if fault := opened_fault(hook, result):
            raise TypeError(f"it {fault}")
        if hook == "load_tokenizer":
            name = str(getattr(result.path, "name", result.path))
            return guarded(result, Entry(OPENED[hook], name, result, "", source))
        return result

    def _hold(self, hook: str, error: BaseException) -> None:
        """Mark the plugin as broken.

        A plugin may raise anything; what is not its own fault is raised.

        Raises:
            BaseException: the error, if it is no fault of a third-party plugin.
        """
        if hook in OPENED and (self.record.source.builtin or speaks_for_itself(error)):
            raise error
        self._fail(hook, error)

    def _interrupted(self, hook: str) -> None:
        if hook in self.registrars:
            self.record.say_interrupted()


def _marked(plugin: object) -> list[str]:
    """Name what may be hook implementations: of a module, what ``hookimpl`` has marked.

    pluggy looks at each name at length, which takes longer than all else in ``llamakit --help``.
    """
    if not isinstance(plugin, ModuleType):
        return dir(plugin)
    mark = f"{hookimpl.project_name}_impl"
    return sorted(name for name, value in vars(plugin).items() if hasattr(value, mark))
