"""The hooks. A plugin is a module with functions of these names, each marked ``@hookimpl``.

The registering hooks run at every start, ``--help`` included: a plugin imports what is heavy
(torch, numpy, …) inside its factories and commands, not at its top.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

import pluggy

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

T_contra = TypeVar("T_contra", contravariant=True)

hookspec = pluggy.HookspecMarker("llamakit")
hookimpl = pluggy.HookimplMarker("llamakit")


class Registrar(Protocol[T_contra]):
    """What a registering hook is called with: it takes what the plugin offers.

    Nothing counts until the whole plugin has registered without an error.
    """

    def register(self, name: str, value: T_contra, /, *, help: str = "") -> None:  # noqa: A002
        """Offer ``value`` under ``name``.

        Args:
            name: what users type, such as ``top-p``.
            value: a factory, a command, a catalog entry or an engine: the hook says which.
            help: one line, shown by ``llamakit plugins`` and in ``--help``.
        Raises:
            TypeError: the name is not a string, or empty.
            ValueError: it cannot be typed, or this plugin registered it already.
        """
        ...


@hookspec
def register_samplers(samplers: Registrar[SamplerFactory]) -> None:
    """Offer ways to choose the next token.

    A factory takes options: every annotated parameter with a default is one. It returns
    ``sample(logits, rows) -> tokens``: logits ``(B, V)`` float32, of which ``-inf`` rules a token
    out; the B ``Row``; tokens ``(B,)`` int64. A factory with a required parameter ``tokenizer`` is
    called with the model's ``Tokenizer``. A sampler that edits logits before it draws may have
    ``drawn_from``, as ``Sampler`` says.

    Args:
        samplers: call ``samplers.register(name, factory, help=...)`` on it.
    Returns: nothing.

    Since 0.1.
    """


@hookspec
def register_logits_processors(processors: Registrar[LogitsProcessorFactory]) -> None:
    """Offer ways to edit logits before a token is chosen.

    A factory takes options: every annotated parameter with a default is one. It returns
    ``process(logits, rows) -> logits``, both ``(B, V)`` float32; ``-inf`` rules a token out, and
    what was ruled out stays so. A factory with a required parameter ``tokenizer`` is called with
    the model's ``Tokenizer``.

    Args:
        processors: call ``processors.register(name, factory, help=...)`` on it.
    Returns: nothing.

    Since 0.1.
    """


@hookspec
def register_prompt_formats(formats: Registrar[PromptFormatFactory]) -> None:
    """Offer ways to turn a dialog into tokens.

    A factory takes the tokenizer, then options, and returns a ``PromptFormat``: ``encode(dialog)``
    is a list of token IDs, ``stop_tokens`` those that end an answer. A dialog that the format
    cannot write is a ``DialogError``; a string that would be taken for a tag is a
    ``SpecialTagError``. A format may also have what ``TextFormat`` and
    ``GapFormat`` have, and ``stop_strings``.

    Args:
        formats: call ``formats.register(name, factory, help=...)`` on it.
    Returns: nothing.

    Since 0.1.
    """


@hookspec
def register_checkpoint_tools(tools: Registrar[click.Command | str]) -> None:
    """Offer commands that work on checkpoints.

    A tool is a Click command that calls one function. It is run as ``llamakit NAME``, so it shares
    its names with the other commands.

    Args:
        tools: call ``tools.register(name, command, help=...)`` on it, with a Click command or its
            place, as ``register_commands`` says.
    Returns: nothing.

    Since 0.1.
    """


@hookspec
def register_exporters(exporters: Registrar[Exporter]) -> None:
    """Offer formats to write a checkpoint in.

    An exporter is a function ``export(checkpoint, destination, options) -> report``: it makes
    ``destination``, a path where nothing is yet, which llamakit renames into place when it is
    complete. ``options`` are strings by name, and perhaps ``progress``, a function to call with the
    number of bytes done since the last call; others are refused with an ``OptionError``.
    ``llamakit plugins show`` lists the section ``Options:`` of its docstring, ``name: help`` each.
    The report is a mapping that JSON can hold; if its ``files`` are a list of mappings with
    ``name`` and ``nbytes``, ``export`` prints them. For ``export --plan`` an exporter may have a
    ``plan``, as ``llamakit.protocols.ExporterCapabilities`` says.

    Args:
        exporters: call ``exporters.register(name, export, help=...)`` on it.
    Returns: nothing.

    Since 0.1.
    """


@hookspec
def register_engines(engines: Registrar[Engine]) -> None:
    """Offer engines to export for: programs that run what an exporter writes.

    ``llamakit export SRC DST --for NAME`` writes it, and says the command that starts the engine.

    Args:
        engines: call ``engines.register(name, engine, help=...)`` on it, with an ``Engine``.
    Returns: nothing.

    Since 0.1.
    """


@hookspec
def register_models(models: Registrar[CatalogEntry]) -> None:
    """Offer models to the download catalog.

    Args:
        models: call ``models.register(name, entry, help=...)`` on it, with a ``CatalogEntry``.
    Returns: nothing.

    Since 0.1.
    """


@hookspec
def register_drafters(drafters: Registrar[DrafterFactory]) -> None:
    """Offer drafters for speculative decoding.

    A factory takes options and returns ``draft(tokens) -> tokens``: called with the tokens so far,
    it returns those that probably follow, or none. The model checks all drafted tokens in one pass
    and keeps those that the row's own sampler chooses: no drafter changes an answer. A token that
    the model does not have ends a draft.

    What the factory returns may also have ``batch(sequences) -> drafts``, which is then called for
    all rows at once, and ``tokenizer``: the drafter is refused for models with other tokens.

    Args:
        drafters: call ``drafters.register(name, factory, help=...)`` on it.
    Returns: nothing.

    Since 0.1.
    """


@hookspec
def register_observers(observers: Registrar[ObserverFactory]) -> None:
    """Offer observers of hidden states.

    A factory takes options and returns an ``Observer``: ``layers(count)`` says which hidden states
    it reads, ``observer(row, states)`` is called after each pass of the scheduler with those of one
    row, and ``result(row)`` is what it has found when the row ends. ``states.hidden(layer)`` is
    ``(T, dim)``, and ``states.logits(layer)`` what the output layer makes of it, ``(T, V)``. It may
    also have ``files(result)``, which makes a picture of it, say. No observer changes an answer. A
    factory with a required parameter ``tokenizer`` is called with the model's ``Tokenizer``.

    Args:
        observers: call ``observers.register(name, factory, help=...)`` on it.
    Returns: nothing.

    Since 0.1.
    """


@hookspec
def register_runners(runners: Registrar[Runner]) -> None:
    """Offer what answers prompts for ``generate --on NAME[:ADDRESS]``: a cluster, say.

    A runner is a function ``run(job) -> pieces``. ``job`` is an ``AnswerJob``: ``requests`` to be
    answered, and ``options`` with which ``llamakit.api.open_replica`` loads the model in any
    process that sees its files. A replica's ``answer(requests)`` yields an ``AnswerPiece`` for each
    token and a last one for each answer; the runner yields those, as they come. It may also have
    ``read_prompts(file, address)``, which then reads the file of ``--prompts``. What it yields is
    written by llamakit, which also leaves out the requests whose answers are there already.

    Args:
        runners: call ``runners.register(name, run, help=...)`` on it, with a ``Runner``.
    Returns: nothing.

    Since 0.1.
    """


@hookspec
def register_kernels(kernels: Registrar[KernelSpec]) -> None:
    """Offer kernels: layouts of a weight, and the product with it.

    A ``KernelSpec`` says for which devices, dtypes, bits and numbers of rows a kernel is, what it
    rounds, and the places of its code, which is imported when a model is loaded:
    ``pack(weight, dtype)`` returns a ``PackedWeight``, which is called with activations.
    ``llamakit doctor --calibrate`` measures it beside the others, and models are loaded with the
    fastest; one that was not measured is used where nothing else fits. Weights of 8 and 4 bits are
    rounded by llamakit, so every kernel multiplies by the same integers.

    Args:
        kernels: call ``kernels.register(name, spec, help=...)`` on it, with a ``KernelSpec``.
    Returns: nothing.

    Since 0.1.
    """


@hookspec
def register_commands(commands: Registrar[click.Command | str]) -> None:
    """Offer any other command.

    Args:
        commands: call ``commands.register(name, command, help=...)`` on it, with a Click command;
            without a help, the first sentence of the command's is taken. Instead of the command,
            its place will do, such as ``"package.module:attribute"``: it is imported when it is run
            or asked for its own help, and the registration needs ``help=``.
    Returns: nothing.

    Since 0.1.
    """


@hookspec(firstresult=True)
def open_checkpoint(path: Path) -> Checkpoint | None:
    """Open ``path`` as a checkpoint, or return None to let another plugin try.

    Raise a ``LlamakitError`` when the path is of this plugin's format but damaged: the user reads
    its message. When no plugin opens a path, the user reads the first line of each implementation's
    docstring as what was expected: name the files in it. Weights may be read from mapped files:
    arrays that cannot be written to are copied where that is needed.

    Args:
        path: a file or a folder that exists.
    Returns: a ``Checkpoint``, from indexes only; None if the path is of another format.

    Since 0.1.
    """


@hookspec(firstresult=True)
def load_tokenizer(path: Path) -> Tokenizer | None:
    """Load the tokenizer file ``path``, or return None to let another plugin try.

    When no plugin knows the file, the user reads the first line of each implementation's docstring
    as what was expected. In a model's folder, and then in the one above it, ``tokenizer.model`` is
    looked for, and then a ``tokenizer`` of any other ending that a plugin loads.

    Args:
        path: a file that exists.
    Returns: a ``Tokenizer``; None if the file is of another format.

    Since 0.1.
    """
