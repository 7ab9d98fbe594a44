"""Uses once what third-party plugins have registered, to find what fails only in use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from llamakit.errors import LlamakitError, PluginError
from llamakit.plugin_manager.plugin_loader import load_command
from llamakit.plugin_manager.plugin_record import say

if TYPE_CHECKING:
    from llamakit.plugin_manager.registry import Entry
    from llamakit.plugin_manager.toolkit import Toolkit


def try_commands(toolkit: Toolkit) -> None:
    """Have every third-party command write its help; mark the plugins of those that fail."""
    for entry in _third_party(toolkit, "register_commands", "register_checkpoint_tools"):
        _attempt(toolkit, entry, _write_help)


def try_all(toolkit: Toolkit) -> None:
    """Use what third-party plugins have registered for writing; mark the plugins of what fails.

    Samplers and processors get made-up logits, prompt formats a dialog, drafters some tokens,
    observers made-up hidden states, kernels a weight and activations with outliers.
    What asks for an option that has no default is passed over.
    """
    uses: dict[str, Callable[[Toolkit, Entry], object]] = {
        "register_samplers": _sample,
        "register_logits_processors": _process,
        "register_prompt_formats": _format,
        "register_drafters": _draft,
        "register_observers": _observe,
        "register_kernels": _multiply,
    }
    for hook, use in uses.items():
        for entry in _third_party(toolkit, hook):
            if hook != "register_kernels":  # what is registered is no factory
                _attempt(toolkit, entry, _warn_of_options)
            _attempt(toolkit, entry, use)


def _warn_of_options(_: Toolkit, entry: Entry) -> None:
    """Name the options of a factory that nobody can type, in a line each."""
    from llamakit.plugin_manager.factories import options_of
    from llamakit.testing.factory_checks import TYPES, not_typable

    for option in options_of(entry.value):
        if not option.can_be_typed:
            say(f"{entry.source}: {not_typable(entry, option)}; its author can {TYPES}")


def _third_party(toolkit: Toolkit, *hooks: str) -> Iterator[Entry]:
    for hook in hooks:
        yield from (entry for entry in toolkit.registries[hook] if not entry.source.builtin)


def _attempt(toolkit: Toolkit, entry: Entry, use: Callable[[Toolkit, Entry], object]) -> None:
    try:
        use(toolkit, entry)
    except PluginError as error:
        # What llamakit says of a result names the thing and the plugin, as this list does.
        said = str(error).removeprefix(f"the {entry} of the {entry.source} ")
        toolkit.note_failure(entry, error.__cause__ or said.removesuffix(": tell its author"))
    except LlamakitError:
        return  # it is meant: an option is needed, or this model does not fit
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything
        toolkit.note_failure(entry, error)


def _write_help(_: Toolkit, entry: Entry) -> None:
    _write_helps(click.Context(load_command(entry), info_name=entry.name))


def _write_helps(context: click.Context) -> None:
    """Write the help of a command and of those below it."""
    command = context.command
    command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                _write_helps(click.Context(inner, parent=context, info_name=name))


def _sample(toolkit: Toolkit, entry: Entry) -> None:
    _choose(toolkit, sampler=entry.name)


def _process(toolkit: Toolkit, entry: Entry) -> None:
    _choose(toolkit, sampler="greedy", processors=[entry.name])


def _choose(toolkit: Toolkit, *, sampler: str, processors: list[str] | None = None) -> None:
    import torch

    from llamakit.llama.sampler_choice import choose_sampling
    from llamakit.testing import batch_runs
    from llamakit.testing.small_checkpoints import embedded_tokenizer

    sampling = choose_sampling(
        sampler=sampler,
        processors=processors or [],
        toolkit=toolkit,
        tokenizer=embedded_tokenizer(),
    )
    logits, rows = batch_runs.batch()
    with torch.inference_mode():
        sampling(logits, rows)


def _format(_: Toolkit, entry: Entry) -> None:
    from llamakit.plugin_manager.contracts.prompt_formats import build_format
    from llamakit.testing.small_checkpoints import embedded_tokenizer

    prompt_format = build_format(entry, {}, embedded_tokenizer())
    prompt_format.encode([{"role": "user", "content": "Once upon a time"}])


def _draft(toolkit: Toolkit, entry: Entry) -> None:
    from llamakit.llama.drafter_choice import choose_drafter

    choose_drafter(entry.name, toolkit=toolkit)([1, 5, 6, 5, 6])


def _observe(toolkit: Toolkit, entry: Entry) -> None:
    import torch

    from llamakit.llama.observer_choice import choose_observers
    from llamakit.testing import observer_checks
    from llamakit.testing.rows import make_rows
    from llamakit.testing.small_checkpoints import embedded_tokenizer

    (chosen,) = choose_observers(
        [entry.name], observer_checks.LAYERS, toolkit=toolkit, tokenizer=embedded_tokenizer()
    )
    (row,) = make_rows(1, tokens=observer_checks.PROMPT)
    with torch.inference_mode():
        states = observer_checks.KitStates(observer_checks.PROMPT, 0, chosen.layers)
        chosen.observer(row, states)
        result = chosen.observer.result(row)
    if draw := getattr(chosen.observer, "files", None):
        draw(result)


def _multiply(_: Toolkit, entry: Entry) -> None:
    """Multiply on the CPU, in each dtype; what this machine lacks something for is passed over."""
    import torch

    from llamakit.runtime.kernels import registered, trial

    if registered.missing(entry) or "cpu" not in entry.value.devices:
        return
    for dtype in entry.value.dtypes:
        if fault := trial.outlier_fault(entry, getattr(torch, dtype)):
            raise entry.breach(f"{fault}, where two channels are outliers")
