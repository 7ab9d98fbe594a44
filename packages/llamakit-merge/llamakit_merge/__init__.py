"""Merge LoRA adapters into checkpoints, and checkpoints with one another.

The commands are ``merge-lora`` and ``merge``; the functions are in ``llamakit_merge.api``. This
module is imported at every start of llamakit, so it imports nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    import click

    from llamakit.hookspecs import Registrar


@hookimpl
def register_checkpoint_tools(tools: Registrar[click.Command | str]) -> None:
    """Offer ``merge-lora`` and ``merge``."""
    place = "llamakit_merge.commands"
    tools.register(
        "merge-lora", f"{place}:merge_lora", help="Merge LoRA adapters into a checkpoint."
    )
    tools.register("merge", f"{place}:merge", help="Merge models as mergekit's YAML says.")
