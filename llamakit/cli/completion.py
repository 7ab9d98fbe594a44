"""What the shell completes (Tab): the names that plugins have registered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import click
from click.shell_completion import CompletionItem

from llamakit.plugin_manager.registry import Entry
from llamakit.plugin_manager.toolkit import Toolkit

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def registered(*registries: str, beside: Sequence[str] = (), or_folder: bool = False) -> Complete:
    """Return what completes names of some registries.

    Args:
        registries: the toolkit's, such as ``"samplers"``.
        beside: further names.
        or_folder: what begins no name is a folder.
    """

    def complete(
        ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        toolkit = ctx.find_object(Toolkit)
        entries = [it for name in registries for it in getattr(toolkit, name, ())]
        items = [*_items(entries), *map(CompletionItem, beside)]
        found = [it for it in items if it.value.startswith(incomplete)]
        # Not both: bash takes no words beside folders.
        return [CompletionItem(incomplete, type="dir")] if or_folder and not found else found

    return complete


def anything_of_plugins(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete what ``plugins show`` takes: names that are registered, and plugins' names."""
    toolkit = ctx.find_object(Toolkit)
    records = toolkit.plugins if toolkit else []
    named = {entry.name: str(entry.help) for it in records for entry in it.registered}
    named |= {it.source.name: f"the {it.source}" for it in records}
    return [
        CompletionItem(name, help=text)
        for name, text in sorted(named.items())
        if name.startswith(incomplete)
    ]


def commands(entries: Iterable[Entry], incomplete: str) -> list[CompletionItem]:
    """Complete the name of a command, none of which is imported for that."""
    return [
        it
        for it in _items(entry for entry in entries if not getattr(entry.value, "hidden", False))
        if it.value.startswith(incomplete)
    ]


def _items(entries: Iterable[Entry]) -> list[CompletionItem]:
    return [CompletionItem(entry.name, help=entry.help) for entry in entries]
