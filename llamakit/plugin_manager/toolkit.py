"""Loads the plugins, each guarded by itself, and holds what they have registered.

Nothing here knows Llama: forms of checkpoints, tokenizers, samplers and commands all come from
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
from llamakit.errors import LlamakitError, PluginError
from llamakit.plugin_manager.entry_points import EntryPoint, find_entry_points, find_metadata
from llamakit.plugin_manager.failures import OPENED, check_opened, guarded
from llamakit.plugin_manager.loader import import_plugin, register
from llamakit.plugin_manager.plugin_record import PluginRecord, in_one_line, say, why_not_loaded
from llamakit.plugin_manager.registry import Entry, Registry, Source

if TYPE_CHECKING:
    from pathlib import Path

    import click

    from llamakit.protocols import (
        CatalogEntry,
        Checkpoint,
        DrafterFactory,
        Exporter,
        LogitsProcessorFactory,
        PromptFormatFactory,
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
        self.models: Registry[CatalogEntry] = Registry("model")
        self.drafters: Registry[DrafterFactory] = Registry("drafter")
        self.commands: Registry[click.Command] = Registry("command", beside=self.checkpoint_tools)
        self.registries: dict[str, Registry[Any]] = {
            "register_samplers": self.samplers,
            "register_logits_processors": self.processors,
            "register_prompt_formats": self.prompt_formats,
            "register_checkpoint_tools": self.checkpoint_tools,
            "register_exporters": self.exporters,
            "register_models": self.models,
            "register_drafters": self.drafters,
            "register_commands": self.commands,
        }
        """All of these, by the hook that fills each."""
        self.plugins: list[PluginRecord] = []
        """Every installed plugin, the built-in ones first."""
        self._records: dict[str, PluginRecord] = {}
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)

    def open_checkpoint(self, path: str | os.PathLike[str]) -> Checkpoint:
        """Open a checkpoint of any form that a plugin knows.

        Raises:
            NotACheckpointError: there is no such folder, or no plugin opens it.
            CheckpointError: it is a checkpoint, but damaged.
        """
        from pathlib import Path

        from llamakit.plugin_manager.not_found import not_a_checkpoint

        hook, path = "open_checkpoint", Path(path)
        found = self._first_result(hook, path)
        if found is None:
            raise not_a_checkpoint(path, self._expected(hook), self._is_openable)
        checkpoint: Checkpoint = found.value
        return checkpoint

    def load_tokenizer(self, path: str | os.PathLike[str]) -> Tokenizer:
        """Load a tokenizer of any form that a plugin knows.

        Raises:
            TokenizerError: there is no such file, or it is not a tokenizer.
        """
        from pathlib import Path

        from llamakit.plugin_manager.not_found import not_a_tokenizer

        hook, path = "load_tokenizer", Path(path)
        found = None if path.is_dir() else self._first_result(hook, path)
        if found is None:
            raise not_a_tokenizer(path, self._expected(hook))
        tokenizer: Tokenizer = guarded(found.value, found)
        return tokenizer

    def loads_tokenizer(self, path: Path) -> bool:
        """Tell whether a plugin loads a file as a tokenizer."""
        try:
            return path.is_file() and self._first_result("load_tokenizer", path) is not None
        except LlamakitError:
            return False

    def load(self, entry_point: EntryPoint, *, disabled: bool = False) -> None:
        """Import one plugin and let it register; if it fails, nothing of it counts."""
        source = Source(
            entry_point.name,
            entry_point.package,
            entry_point.version,
            builtin=entry_point.package == DISTRIBUTION,
        )
        record = PluginRecord(source)
        self.plugins.append(record)
        if disabled:
            record.status, record.reason = "disabled", "LLAMAKIT_DISABLE_PLUGINS names it"
            for registry in self.registries.values():
                registry.off.append(source.name)
            return
        try:
            # What it prints is no part of what a command prints, such as JSON.
            with contextlib.redirect_stdout(sys.stderr):
                plugin = import_plugin(entry_point)
                record.registered = self._register(plugin, record)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger may raise anything
            record.skip(why_not_loaded(error, source), error)
        except KeyboardInterrupt:
            if sys.stderr.isatty():
                sys.stderr.write("\n")  # the terminal has written ^C
            say(
                f"interrupted while {source} was being loaded; "
                f"LLAMAKIT_DISABLE_PLUGINS={source.name} leaves it out"
            )
            raise
        for registry in self.registries.values():
            for entry in record.registered:
                if entry.kind == registry.kind:
                    registry.add(entry)

    def settle_names(self) -> None:
        """Take the names that several plugins claim from those that lose them, and say so."""
        lost: dict[PluginRecord, list[str]] = {}
        for registry in self.registries.values():
            for entry, reason in registry.losses():
                record = self._records[_id(entry.source)]
                record.registered.remove(entry)
                lost.setdefault(record, []).append(reason)
        for record, reasons in lost.items():
            record.lose_names(reasons)

    def note_failure(self, entry: Entry, error: BaseException | str) -> None:
        """Mark the plugin of something that failed in use as broken."""
        said = error if isinstance(error, str) else in_one_line(error)
        self._records[_id(entry.source)].note(f"{entry}: {said}")

    def _register(self, plugin: object, record: PluginRecord) -> list[Entry]:
        """Check a plugin against the hooks and collect what it registers."""
        name = _id(record.source)
        if name in self._records or self._manager.is_registered(plugin):
            raise PluginError("it is installed twice, or under two names")
        kinds = {hook: registry.kind for hook, registry in self.registries.items()}
        entries = register(self._manager, plugin, name, record.source, kinds)
        self._records[name] = record
        record.hooks = [hook.name for hook in self._manager.get_hookcallers(plugin) or ()]
        return entries

    def _first_result(self, hook: str, path: Path) -> Entry | None:
        """Ask one plugin after another; return the first answer, and whose it is."""
        for implementation in self._implementations(hook) if path.exists() else ():
            record = self._records[implementation.plugin_name]
            try:
                result = _ask(implementation, path)
                if result is not None:
                    check_opened(hook, result)
            except LlamakitError:
                raise
            except (Exception, SystemExit) as error:
                if record.source.builtin:
                    raise
                self._manager.unregister(name=implementation.plugin_name)
                record.skip(f"{hook}: {in_one_line(error)}", error)
            else:
                if result is not None:
                    return Entry(OPENED[hook], path.name, result, "", record.source)
        return None

    def _is_openable(self, path: Path) -> bool:
        """Tell whether some plugin takes ``path`` for a checkpoint, be it a damaged one."""
        for implementation in self._implementations("open_checkpoint"):
            try:
                if _ask(implementation, path) is not None:
                    return True
            except LlamakitError:
                return True
            except (Exception, SystemExit):  # noqa: BLE001, S112 - a hint only; it comes up on opening
                continue
        return False

    def _expected(self, hook: str) -> list[str]:
        """Say what each plugin looks for, by the first line of its hook's docstring."""
        docstrings = (it.function.__doc__ or "" for it in self._implementations(hook))
        lines = (docstring.strip().partition("\n")[0] for docstring in docstrings)
        return [line.rstrip(".") for line in lines if line]

    def _implementations(self, hook: str) -> list[pluggy.HookImpl]:
        """List the implementations of a hook in the order to ask: strangers' first."""
        last_first = reversed(getattr(self._manager.hook, hook).get_hookimpls())
        return sorted(last_first, key=lambda it: self._records[it.plugin_name].source.builtin)


def load_toolkit(
    entry_points: Iterable[EntryPoint] | None = None, disabled: str | None = None
) -> Toolkit:
    """Load every installed plugin: the built-in ones first, then the strangers' by package.

    A plugin that fails is named in one line on stderr and skipped.

    Args:
        entry_points: what to load; what is installed, if None.
        disabled: names of plugins, separated by commas or spaces; ``all`` means every
            stranger's. ``LLAMAKIT_DISABLE_PLUGINS`` if None.
    """
    points = _installed() if entry_points is None else list(entry_points)
    if disabled is None:
        disabled = os.environ.get("LLAMAKIT_DISABLE_PLUGINS", "")
        _warn_of_unknown(disabled, points)
    names = disabled.replace(",", " ").split()
    if not any(point.package == DISTRIBUTION for point in points):
        say(f"it is not installed, so it has no commands: {install_command()}")
    toolkit = Toolkit()
    for point in sorted(points, key=_load_order):
        is_stranger = point.package != DISTRIBUTION
        is_off = point.name in names or ("all" in names and is_stranger)
        toolkit.load(point, disabled=is_off)
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
    """Sort built-ins before strangers, and never as the file system happens to list them."""
    return point.package != DISTRIBUTION, point.package, point.name


@functools.cache
def default_toolkit() -> Toolkit:
    """Return the toolkit of what is installed, loaded when first asked for."""
    return load_toolkit()


def _ask(implementation: pluggy.HookImpl, path: Path) -> object:
    ask: Callable[..., object] = implementation.function
    return ask(*[path for _ in implementation.argnames])


def _id(source: Source) -> str:
    """Return what tells plugins apart: two packages may use one name for their plugins."""
    return f"{source.package}:{source.name}"
