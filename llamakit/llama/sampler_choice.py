"""Choice of the sampler and the logits processors, by names and options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llamakit.errors import UsageError
from llamakit.plugin_manager.contracts.samplers import (
    checked_step,
    processor_fault,
    sampler_fault,
)
from llamakit.plugin_manager.factories import Choice, build, parse_choice, takes_tokenizer
from llamakit.plugin_manager.toolkit import Toolkit, default_toolkit

if TYPE_CHECKING:
    from llamakit.plugin_manager.registry import Entry
    from llamakit.protocols import LogitsProcessor, Tokenizer
    from llamakit.runtime.sampling_pipeline import Sampling

TEMPERATURE, TOP_P = 0.6, 0.9
"""The reference's defaults."""


def choose_sampling(
    *,
    sampler: str | None = None,
    sampler_options: Mapping[str, Any] | Sequence[str] = (),
    processors: Sequence[str | Choice] = (),
    temperature: float | None = None,
    top_p: float | None = None,
    toolkit: Toolkit | None = None,
    tokenizer: Tokenizer | None = None,
) -> Sampling:
    """Build the sampler and the processors that names and options ask for.

    Without a sampler, ``temperature`` and ``top_p`` choose as in the reference: 0 is greedy,
    otherwise ``top-p``. With one, the temperature is the last processor before it.

    Args:
        sampler_options: ``{"k": v}`` or ``["k=v"]``.
        processors: ``NAME`` or ``NAME:k=v,k=v`` each, applied in this order; or a ``Choice``
            where a value has commas.
        tokenizer: of the model whose tokens are chosen; some samplers and processors need it.
    Raises:
        UnknownNameError: no such sampler or processor.
        OptionError: an option it lacks, of a wrong type or out of range.
        UsageError: settings that contradict one another, or a tokenizer is needed.
    """
    from llamakit.runtime.sampling_pipeline import Sampling

    for name, value in (("processors", processors), ("sampler_options", sampler_options)):
        if isinstance(value, str):
            raise UsageError(f"{name} is a list, not a string: {name}=[{value!r}]")
    toolkit = toolkit or default_toolkit()
    specs: list[tuple[str, Mapping[str, Any]]] = [parse_choice(text) for text in processors]
    options: Mapping[str, Any] | Sequence[str] = sampler_options
    if sampler is None:
        if options:
            raise UsageError("--sampler-option needs --sampler NAME: which sampler is it for?")
        sampler, options = _reference_sampler(temperature, top_p)
    elif sampler == "top-p":
        options = _with_shorthands(options, temperature, top_p)
        if temperature == 0:
            sampler, options = "greedy", {}
    else:
        toolkit.samplers.entry(sampler)  # an unknown name is reported first
        specs += _shorthand_processors(sampler, temperature, top_p)
    entry = toolkit.samplers.entry(sampler)
    edits = [(toolkit.processors.entry(name), given) for name, given in specs]
    return Sampling(
        checked_step(build_with_tokenizer(entry, options, tokenizer), entry, sampler_fault),
        tuple(_processor(edit, given, tokenizer) for edit, given in edits),
    )


def choose_processor(
    choice: str | Choice, *, toolkit: Toolkit | None = None, tokenizer: Tokenizer | None = None
) -> LogitsProcessor:
    """Build one processor. Arguments and exceptions as ``choose_sampling``."""
    name, options = parse_choice(choice)
    entry = (toolkit or default_toolkit()).processors.entry(name)
    return _processor(entry, options, tokenizer)


def _processor(
    entry: Entry, options: Mapping[str, Any], tokenizer: Tokenizer | None
) -> LogitsProcessor:
    plain = build_with_tokenizer(entry, options, tokenizer)
    processor: LogitsProcessor = checked_step(plain, entry, processor_fault)
    return processor


def needs_tokenizer(
    sampler: str | None, processors: Sequence[str | Choice], toolkit: Toolkit
) -> bool:
    """Return whether one of them takes the model's tokenizer.

    Raises:
        UnknownNameError: no such sampler or processor.
        OptionError: an option after a processor's name is not ``k=v``.
    """
    entries = [] if sampler is None else [toolkit.samplers.entry(sampler)]
    entries += [toolkit.processors.entry(parse_choice(text).name) for text in processors]
    return any(takes_tokenizer(entry.value) for entry in entries)


def build_with_tokenizer(
    entry: Entry, options: Mapping[str, Any] | Sequence[str], tokenizer: Tokenizer | None
) -> Any:
    """Build what a registry holds under a name; pass it the tokenizer if it takes one.

    Raises:
        OptionError, PluginError: as ``factories.build``.
        UsageError: it needs the tokenizer and there is none.
    """
    if not takes_tokenizer(entry.value):
        return build(entry, options)
    if tokenizer is None:
        raise UsageError(
            f"the {entry} needs the model's tokenizer and got none: pass "
            "choose_sampling(..., tokenizer=llama.tokenizer)"
        )
    return build(entry, options, tokenizer=tokenizer)


def _reference_sampler(
    temperature: float | None, top_p: float | None
) -> tuple[str, dict[str, float]]:
    if temperature == 0:
        return "greedy", {}
    return "top-p", {
        "temperature": TEMPERATURE if temperature is None else temperature,
        "p": TOP_P if top_p is None else top_p,
    }


def _with_shorthands(
    options: Mapping[str, Any] | Sequence[str], temperature: float | None, top_p: float | None
) -> Mapping[str, Any] | Sequence[str]:
    """Add ``--temperature`` and ``--top-p`` to the options of the ``top-p`` sampler."""
    given = {"temperature": temperature, "p": top_p}
    added = {name: value for name, value in given.items() if value is not None}
    if isinstance(options, Mapping):
        return {**added, **options}
    return [*(f"{name}={value}" for name, value in added.items()), *options]


def _shorthand_processors(
    sampler: str, temperature: float | None, top_p: float | None
) -> list[tuple[str, Mapping[str, Any]]]:
    if top_p is not None:
        raise UsageError(
            f"--top-p belongs to the sampler top-p; --sampler {sampler} chooses otherwise: "
            "drop one of the two"
        )
    if temperature is None or (temperature == 0 and sampler == "greedy"):
        return []
    if temperature == 0:
        raise UsageError(
            f"--temperature 0 means greedy; --sampler {sampler} chooses otherwise: "
            "drop one of the two"
        )
    return [("temperature", {"value": temperature})]
