"""Options that take the name of something registered."""

from __future__ import annotations

from typing import Any

import click

from llamakit.cli.completion import registered
from llamakit.plugin_manager.toolkit import Toolkit


class NameOption(click.Option):
    """An option that takes a registered name; its help lists the names that there are.

    Args:
        registry: which of the toolkit's registries, such as ``"samplers"``.
    """

    def __init__(self, *args: Any, registry: str, **kwargs: Any) -> None:
        kwargs.setdefault("shell_complete", registered(registry))
        super().__init__(*args, **kwargs)
        self.registry = registry

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the option and its help, which ends in the names."""
        toolkit = ctx.find_object(Toolkit)
        if toolkit is None:
            return super().get_help_record(ctx)
        import copy

        option = copy.copy(self)
        option.help = f"{self.help} Here: {names_in(toolkit, self.registry)}."
        return click.Option.get_help_record(option, ctx)


def names_in(toolkit: Toolkit, registry: str) -> str:
    """List what is registered; a third-party plugin's name is followed by its package.

    Args:
        registry: which of the toolkit's registries, such as ``"samplers"``.
    Returns:
        Such as ``"greedy, top-p, nth (from llamakit-second)"``, or ``"none"``.
    """
    names = [
        entry.name if entry.source.builtin else f"{entry.name} (from {entry.source.package})"
        for entry in getattr(toolkit, registry)
    ]
    return ", ".join(names) or "none"
