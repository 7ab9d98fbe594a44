"""Loads the plugins and holds what they have registered.

Nothing here knows Llama: formats of checkpoints, tokenizers, samplers and commands all come from
plugins, the built-in ones among them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pluggy

from llamakit import hookspecs
from llamakit._distribution import DISTRIBUTION, NAMESAKE, install_command
from llamakit.errors import LlamakitError, NotACheckpointError, PluginError
from llamakit.plugin_manager.entry_points import EntryPoint, find_entry_points, find_metadata
from llamakit.plugin_manager.failures import OPENED
from llamakit.plugin_manager.guarded_hooks import HookGuard
from llamakit.plugin_manager.plugin_loader import checked_entries, import_plugin, register
from llamakit.plugin_manager.plugin_record import PluginRecord, say, why_not_loaded
from llamakit.plugin_manager.registry import Entry, Registry, Source, in_one_line

if TYPE_CHECKING:
    from pathlib import Path

    import click

    from llamakit.protocols import (
        CatalogEntry,
        Checkpoint,
        DrafterFactory,
        Engine,
        Exporter,
        KernelSpec,
        LogitsProcessorFactory,
        ObserverFactory,
        PromptFormatFactory,
        Runner,
        SamplerFactory,
        Tokenizer,
    )

GROUP = "llamakit"
"""The entry-point group of plugins."""


class Toolkit:
    """What the loaded plugins offer, by kind and name."""

    def __init__(self) -> None:
        self.samplers: Registry[SamplerFactory] = Registry("sampler")
        self.processors: Registry[LogitsProcessorFactory] = Registry("processor")
        self.prompt_formats: Registry[PromptFormatFactory] = Registry("prompt format")
        self.checkpoint_tools: Registry[click.Command] = Registry("checkpoint tool")
        self.exporters: Registry[Exporter] = Registry("exporter")
        self.engines: Registry[Engine] = Registry("engine")
        self.models: Registry[CatalogEntry] = Registry("model")
        self.drafters: Registry[DrafterFactory] = Registry("drafter")
        self.observers: Registry[ObserverFactory] = Registry("observer")
        self.runners: Registry[Runner] = Registry("runner")
        self.kernels: Registry[KernelSpec] = Registry("kernel")
        self.commands: Registry[click.Command] = Registry("command", beside=self.checkpoint_tools)
        self.registries: dict[str, Registry[Any]] = {
            "register_samplers": self.samplers,
            "register_logits_processors": self.processors,
            "register_prompt_formats": self.prompt_formats,
            "register_checkpoint_tools": self.checkpoint_tools,
            "register_exporters": self.exporters,
            "register_engines": self.engines,
            "register_models": self.models,
            "register_drafters": self.drafters,
            "register_observers": self.observers,
            "register_runners": self.runners,
            "register_kernels": self.kernels,
            "register_commands": self.commands,
        }
        """All of these, by the hook that fills each."""
        self.plugins: list[PluginRecord] = []
        """Every installed plugin, the built-in ones first."""
        self._guards: dict[str, HookGuard] = {}
        self._modules: list[object] = []
        """What entry points name: a plugin may be installed under two names."""
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)

    def open_checkpoint(self, path: str | os.PathLike[str]) -> Checkpoint:
        """Open a checkpoint of any format that a plugin knows.

        Raises:
            NotACheckpointError: there is no such folder, or no plugin opens it.
            CheckpointError: it is a checkpoint, but damaged.
        """
        from pathlib import Path

        from llamakit.plugin_manager.not_found import not_a_checkpoint

        path = Path(path)
        opened = self._manager.hook.open_checkpoint(path=path) if path.exists() else None
        if opened is None:
            raise not_a_checkpoint(path, self._expected("open_checkpoint"), self._is_openable)
        checkpoint: Checkpoint = opened
        return checkpoint

    def load_tokenizer(self, path: str | os.PathLike[str]) -> Tokenizer:
        """Load a tokenizer of any format that a plugin knows.

        Raises:
            TokenizerError: there is no such file, or it is not a tokenizer.
        """
        from pathlib import Path

        from llamakit.plugin_manager.not_found import not_a_tokenizer

        path = Path(path)
        loaded = self._manager.hook.load_tokenizer(path=path) if path.is_file() else None
        if loaded is None:
            raise not_a_tokenizer(path, self._expected("load_tokenizer"))
        tokenizer: Tokenizer = loaded
        return tokenizer

    def loads_tokenizer(self, path: Path) -> bool:
        """Tell whether a plugin loads a file as a tokenizer."""
        try:
            return path.is_file() and self._manager.hook.load_tokenizer(path=path) is not None
        except LlamakitError:
            return False

    def load(
        self,
        entry_points: Iterable[EntryPoint],
        is_disabled: Callable[[EntryPoint], bool] = lambda _: False,
    ) -> None:
        """Import plugins, then let all of them register; if one fails, nothing of it counts.

        Args:
            entry_points: in the order of loading; pluggy asks the last one first.
            is_disabled: whether one is switched off.
        """
        known = len(self.plugins)
        loaded_before = [guard.plugin for guard in self._guards.values()]
        # What plugins print is no part of what a command prints, such as JSON.
        with contextlib.redirect_stdout(sys.stderr):
            guards = [self._import(point, is_disabled(point)) for point in entry_points]
            for hook in self.registries:
                caller = self._manager.subset_hook_caller(hook, loaded_before)
                assert caller.spec is not None
                caller(**dict.fromkeys(caller.spec.argnames))  # each guard passes its registrar
        for guard in filter(None, guards):
            self._take_in(guard)
        for record in self.plugins[known:]:
            record.say_if_slow()

    def _import(self, point: EntryPoint, is_disabled: bool) -> HookGuard | None:
        """Import one plugin and register its hooks with pluggy; None if that fails."""
        is_builtin = point.package == DISTRIBUTION
        source = Source(point.name, point.package, point.version, builtin=is_builtin)
        record = PluginRecord(source)
        self.plugins.append(record)
        if is_disabled:
            record.status, record.reason = "disabled", "LLAMAKIT_DISABLE_PLUGINS names it"
            for registry in self.registries.values():
                registry.off.append(source.name)
            return None
        try:
            with record.timed():
                plugin = import_plugin(point)
            return self._register(plugin, record)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything
            record.skip(why_not_loaded(error, source), error)
        except KeyboardInterrupt:
            record.say_interrupted()
            raise
        return None

    def _register(self, plugin: object, record: PluginRecord) -> HookGuard:
        """Check a plugin against the hooks and register it with pluggy."""
        name = _id(record.source)
        if name in self._guards or any(plugin is known for known in self._modules):
            raise PluginError("it is installed twice, or under two names")
        kinds = {hook: registry.kind for hook, registry in self.registries.items()}
        guard = HookGuard(record, kinds, functools.partial(self._fail, record))
        register(self._manager, plugin, name, guard)
        self._guards[name] = guard
        self._modules.append(plugin)
        return guard

    def _take_in(self, guard: HookGuard) -> None:
        """Keep what a plugin has registered, unless one of its hooks has failed."""
        record = guard.record
        if not self._manager.is_registered(guard.plugin):
            return
        try:
            record.registered = checked_entries(guard)
        except (TypeError, ValueError) as error:
            self._fail(record, "", error)
            return
        record.hooks = sorted(guard.hooks)
        registries = {registry.kind: registry for registry in self.registries.values()}
        for entry in record.registered:
            registries[entry.kind].add(entry)

    def _fail(self, record: PluginRecord, hook: str, error: BaseException) -> None:
        """Mark a plugin one of whose hooks has failed as broken; no hook of it is called again."""
        self._manager.unregister(name=_id(record.source))
        reason = why_not_loaded(error, record.source)
        record.skip(f"{hook}: {in_one_line(error)}" if hook in OPENED else reason, error)

    def settle_names(self) -> None:
        """Take the names that several plugins claim from those that lose them, and say so."""
        lost: dict[PluginRecord, list[str]] = {}
        for registry in self.registries.values():
            for entry, reason in registry.losses():
                record = self._guards[_id(entry.source)].record
                record.registered.remove(entry)
                lost.setdefault(record, []).append(reason)
        for record, reasons in lost.items():
            record.lose_names(reasons)

    def note_failure(self, entry: Entry, error: BaseException | str) -> None:
        """Mark the plugin of something that failed in use as broken."""
        said = error if isinstance(error, str) else in_one_line(error)
        self._guards[_id(entry.source)].record.note(f"{entry}: {said}")

    def _is_openable(self, path: Path) -> bool:
        """Tell whether some plugin takes ``path`` for a checkpoint, be it a damaged one."""
        try:
            return self._manager.hook.open_checkpoint(path=path) is not None
        except NotACheckpointError:
            return False
        except LlamakitError:
            return True
        except OSError:
            return False

    def _expected(self, hook: str) -> list[str]:
        """Say what each plugin looks for, by the first line of its hook's docstring."""
        impls = reversed(getattr(self._manager.hook, hook).get_hookimpls())
        docstrings = (impl.function.__doc__ or "" for impl in impls if not impl.wrapper)
        lines = (docstring.strip().partition("\n")[0] for docstring in docstrings)
        return [line.rstrip(".") for line in lines if line]


def load_toolkit(
    entry_points: Iterable[EntryPoint] | None = None, disabled: str | None = None
) -> Toolkit:
    """Load every installed plugin: the built-in ones first, then third-party ones by package.

    A plugin that fails is named in one line on stderr and skipped.

    Args:
        entry_points: what to load; what is installed, if None.
        disabled: names of plugins, separated by commas or spaces; ``all`` means every
            third-party one. ``LLAMAKIT_DISABLE_PLUGINS`` if None.
    """
    points = _installed() if entry_points is None else list(entry_points)
    if disabled is None:
        disabled = os.environ.get("LLAMAKIT_DISABLE_PLUGINS", "")
        _warn_of_unknown(disabled, points)
    names = disabled.replace(",", " ").split()
    if not any(point.package == DISTRIBUTION for point in points):
        say(f"it is not installed, so it has no commands: {install_command()}")
    toolkit = Toolkit()
    toolkit.load(
        sorted(points, key=_load_order),
        lambda point: point.name in names or ("all" in names and point.package != DISTRIBUTION),
    )
    toolkit.settle_names()
    return toolkit


def _installed() -> list[EntryPoint]:
    """Find the installed plugins, without those of a package that only has llamakit's name."""
    folder = find_metadata(NAMESAKE)
    if folder is None:
        return find_entry_points(GROUP)
    remedy = f"rm -r {folder}" if folder.endswith(".egg-info") else f"pip uninstall {NAMESAKE}"
    say(
        f"the package {NAMESAKE} is installed too ({folder}); it is not this llamakit, which is "
        f"{DISTRIBUTION}, and is left out: {remedy}"
    )
    return [point for point in find_entry_points(GROUP) if point.package.lower() != NAMESAKE]


def _warn_of_unknown(disabled: str, points: list[EntryPoint]) -> None:
    """Say in one line which names that are switched off are no plugin's."""
    known = {"all", *(point.name for point in points)}
    unknown = [name for name in disabled.replace(",", " ").split() if name not in known]
    if unknown:
        say(f"LLAMAKIT_DISABLE_PLUGINS: no plugin is called {' or '.join(unknown)}")


def _load_order(point: EntryPoint) -> tuple[bool, str, str]:
    """Sort built-ins first, and never as the file system happens to list them."""
    return point.package != DISTRIBUTION, point.package, point.name


@functools.cache
def default_toolkit() -> Toolkit:
    """Return the toolkit of what is installed, loaded when first asked for."""
    return load_toolkit()


def _id(source: Source) -> str:
    """Return what distinguishes plugins: two packages may use one name for their plugins."""
    return f"{source.package}:{source.name}"
