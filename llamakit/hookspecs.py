"""The hooks. A plugin is a module with functions of these names, each marked ``@hookimpl``.

The registering hooks run at every start, ``--help`` included: a plugin imports what is heavy
(torch, numpy, …) inside its factories and commands, not at its top.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    import click

    from llamakit.protocols import (
        CatalogueEntry,
        Checkpoint,
        DrafterFactory,
        Exporter,
        LogitsProcessorFactory,
        PromptFormatFactory,
        SamplerFactory,
        Tokenizer,
    )
    from llamakit.registry import Registrar

hookspec = pluggy.HookspecMarker("llamakit")
hookimpl = pluggy.HookimplMarker("llamakit")


@hookspec
def register_samplers(samplers: Registrar[SamplerFactory]) -> None:
    """Offer ways to choose the next id.

    Call ``samplers.register(name, factory, help=...)``. The factory takes the options (every
    annotated parameter with a default is one) and returns ``sample(logits, rows) -> ids``:
    logits ``(B, V)`` float32, ids ``(B,)`` int64. A factory with a required parameter called
    ``tokenizer`` is handed the model's ``Tokenizer`` under that name.

    Since 0.1.
    """


@hookspec
def register_logits_processors(processors: Registrar[LogitsProcessorFactory]) -> None:
    """Offer ways to edit logits before an id is chosen.

    Call ``processors.register(name, factory, help=...)``. The factory takes the options and
    returns ``process(logits, rows) -> logits``, both ``(B, V)`` float32. A factory with a required
    parameter called ``tokenizer`` is handed the model's ``Tokenizer`` under that name.

    Since 0.1.
    """


@hookspec
def register_prompt_formats(formats: Registrar[PromptFormatFactory]) -> None:
    """Offer ways to turn a dialog into ids.

    Call ``formats.register(name, factory, help=...)``. The factory takes the tokenizer, then
    options, and returns a ``PromptFormat``: ``encode(dialog) -> ids`` and ``stop_tokens``.

    Since 0.1.
    """


@hookspec
def register_checkpoint_tools(tools: Registrar[click.Command]) -> None:
    """Offer commands that work on checkpoints.

    Call ``tools.register(name, command, help=...)`` with a Click command that calls one function.

    Since 0.1.
    """


@hookspec
def register_exporters(exporters: Registrar[Exporter]) -> None:
    """Offer forms to write a checkpoint in.

    Call ``exporters.register(name, export, help=...)`` with a function
    ``export(checkpoint, destination, options) -> report``.

    Since 0.1.
    """


@hookspec
def register_models(models: Registrar[CatalogueEntry]) -> None:
    """Offer models to the download catalogue.

    Call ``models.register(name, entry, help=...)`` with a ``CatalogueEntry``.

    Since 0.1.
    """


@hookspec
def register_drafters(drafters: Registrar[DrafterFactory]) -> None:
    """Offer ways to propose ids for speculative decoding.

    Call ``drafters.register(name, factory, help=...)``; the factory returns
    ``draft(tokens) -> ids``.

    Since 0.1.
    """


@hookspec
def register_commands(commands: Registrar[click.Command]) -> None:
    """Offer any other command.

    Call ``commands.register(name, command, help=...)`` with a Click command.

    Since 0.1.
    """


@hookspec(firstresult=True)
def open_checkpoint(path: Path) -> Checkpoint | None:
    """Open ``path`` as a checkpoint, or return None to let another plugin try.

    Plugins of strangers are asked before the built-ins. Raise a ``LlamakitError`` when the path
    is of this plugin's form but damaged: the user reads its message. When no plugin opens a path,
    the user reads the first line of each docstring as what was expected: name the files in it.

    Since 0.1.
    """


@hookspec(firstresult=True)
def load_tokenizer(path: Path) -> Tokenizer | None:
    """Load the tokenizer file ``path``, or return None to let another plugin try.

    Plugins of strangers are asked before the built-ins. When no plugin knows the file, the user
    reads the first line of each docstring as what was expected.

    Since 0.1.
    """
