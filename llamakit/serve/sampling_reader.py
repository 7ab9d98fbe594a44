"""Sampling fields of a request, OpenAI's and llamakit's, to a sampler with processors."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llamakit.errors import LlamakitError
from llamakit.llama.llama import Llama
from llamakit.llama.sampler_choice import TEMPERATURE, choose_processor, choose_sampling
from llamakit.plugin_manager.factories import Choice, options_of, parse_choice
from llamakit.plugin_manager.registry import Entry, Registry
from llamakit.protocols import LogitsProcessor
from llamakit.runtime.sampling_pipeline import Sampling
from llamakit.serve.api_errors import as_api_error, bad
from llamakit.serve.sampling_fields import field_processors, has_dynamic_temperature

CACHED = 64
"""How many samplings are cached, so that requests with equal fields are sampled together."""

COLDEST = 1e-5
"""A lower temperature is taken as 0: some clients send 1e-8 for it."""

_OF_SAMPLERS = ("sampler", "sampler_options", "top_p")
"""Defaults that belong to the server's own sampler."""

Body = Mapping[str, Any]


class SamplingReader:
    """Builds the sampling of a request from its fields. Several threads may call it.

    Args:
        defaults: arguments of ``choose_sampling`` for absent fields.
    """

    def __init__(self, llama: Llama, defaults: Mapping[str, Any]) -> None:
        self._toolkit, self._tokenizer = llama.toolkit, llama.tokenizer
        self._defaults = defaults
        self._cache: dict[str, Sampling] = {}
        self._lock = threading.Lock()

    def read(
        self,
        body: Body,
        constraint: LogitsProcessor | None = None,
        ends: Collection[int] = (),
    ) -> Sampling:
        """Build the sampler and its processors.

        Args:
            constraint: what the answer has to match; first of all, so that the others work on the
                tokens that fit.
            ends: tokens that end an answer.
        Raises:
            ApiError: a name is unknown, or an option is invalid.
        """
        try:
            body = _flat(body)
        except LlamakitError as error:
            raise as_api_error(error, "sampler") from error
        param = "temperature" if "temperature" in body and "sampler" not in body else "sampler"
        if "sampler_options" in body and "sampler" not in body:
            raise bad("sampler_options needs sampler: which one are they for?", "sampler_options")
        arguments = dict(self._defaults)
        if "sampler" in body:
            arguments = {name: arguments[name] for name in arguments if name not in _OF_SAMPLERS}
        fields = ("sampler", "sampler_options", "temperature", "top_p")
        arguments |= {name: body[name] for name in fields if name in body}
        if 0 < (arguments.get("temperature") or 0) < COLDEST:
            arguments["temperature"] = 0
        middle = arguments.get("temperature")
        body = {**body, "temperature": TEMPERATURE if middle is None else middle}
        if has_dynamic_temperature(body):
            arguments["temperature"] = 1.0
        try:
            is_shared = self._check_sampler(
                arguments.get("sampler"), body.get("sampler_options", {})
            )
            base = self._base(arguments, is_shared)
        except LlamakitError as error:
            raise as_api_error(error, param) from error
        constraints = [constraint] if constraint else []
        own = [self._processor(*wanted) for wanted in self._processors(body, ends)]
        return self._joined(base, constraints, own) if constraints or own else base

    def _check_sampler(self, name: str | None, options: Mapping[str, Any]) -> bool:
        """Refuse options that name files; return whether requests may share the sampler.

        They do not share a third-party one: if it fails, only the request it failed for ends.
        """
        if name is None:
            return True
        entry = self._toolkit.samplers.entry(name)
        refuse_files(entry, options)
        return entry.source.builtin

    def _base(self, arguments: dict[str, Any], is_shared: bool) -> Sampling:
        """Build the sampler with the processors that the server was started with."""
        if not is_shared or self._defaults.get("processors"):
            return self._build(arguments)
        key = json.dumps(arguments, sort_keys=True, default=str)
        with self._lock:
            if key not in self._cache:
                while len(self._cache) >= CACHED:
                    del self._cache[next(iter(self._cache))]
                self._cache[key] = self._build(arguments)
            return self._cache[key]

    def _build(self, arguments: dict[str, Any]) -> Sampling:
        return choose_sampling(**arguments, toolkit=self._toolkit, tokenizer=self._tokenizer)

    def _joined(
        self, base: Sampling, constraints: list[LogitsProcessor], own: list[LogitsProcessor]
    ) -> Sampling:
        """Insert a request's processors after the server's and before the temperature."""
        count = len(self._defaults.get("processors", ()))
        first, last = base.processors[:count], base.processors[count:]
        return replace(base, processors=(*constraints, *first, *own, *last))

    def _processor(self, choice: Choice, param: str) -> LogitsProcessor:
        try:
            return choose_processor(choice, toolkit=self._toolkit, tokenizer=self._tokenizer)
        except LlamakitError as error:
            raise as_api_error(error, param) from error

    def _processors(self, body: Body, ends: Collection[int]) -> Iterator[tuple[Choice, str]]:
        """Yield the processors that the fields choose, and the field of each."""
        if body.get("ignore_eos"):
            yield (
                Choice("logit-bias", {"bias": ",".join(f"{it}:-inf" for it in ends)}),
                "ignore_eos",
            )
        if "logit_bias" in body:
            yield Choice("logit-bias", {"bias": _biases(body["logit_bias"])}), "logit_bias"
        yield from field_processors(body)
        for given in body.get("processors", ()):
            yield read_choice(given, self._toolkit.processors, "processors"), "processors"


def read_choice(given: object, registry: Registry[Any], param: str) -> Choice:
    """Read ``NAME:k=v,k=v`` or ``{"name": …, "options": …}``; no option may name a file.

    Raises:
        ApiError: the name is unknown, or an option is not allowed in requests.
    """
    try:
        if isinstance(given, str):
            choice = parse_choice(given)
        else:
            assert isinstance(given, dict)
            choice = Choice(given["name"], given.get("options") or {})
        refuse_files(registry.entry(choice.name), choice.options)
    except LlamakitError as error:
        raise as_api_error(error, param) from error
    return choice


def _flat(body: Body) -> Body:
    """Return a body whose ``sampler`` is a name, and its options ``sampler_options``."""
    sampler = body.get("sampler")
    if isinstance(sampler, str) and ":" in sampler:
        choice = parse_choice(sampler)
        sampler = {"name": choice.name, "options": choice.options}
    if not isinstance(sampler, Mapping):
        return body
    if "sampler_options" in body:
        raise bad("sampler has its options in it already", "sampler_options")
    return {**body, "sampler": sampler["name"], "sampler_options": sampler.get("options", {})}


def refuse_files(entry: Entry, options: Mapping[str, Any]) -> None:
    """Refuse options of a request that name a file: requests may not read the server's files.

    Raises:
        ApiError: an option names a file.
    """
    names = {name.strip().replace("_", "-") for name in options}
    for option in options_of(entry.value):
        if option.names_a_file and option.name in names:
            raise bad(f"{option.name} of {entry} names a file, which requests may not")


def _biases(given: Mapping[str, float] | Sequence[Sequence[Any]]) -> str:
    """Return ``ID:VALUE,ID:VALUE`` of OpenAI's object, or of llama.cpp's list of pairs.

    Raises:
        ApiError: a key is no token ID, or a pair is none.
    """
    pairs = []
    for entry in given.items() if isinstance(given, Mapping) else given:
        if len(entry) != 2:
            raise bad(
                f"logit_bias has {entry!r:.60}; expected a token ID and a number", "logit_bias"
            )
        name, value = str(entry[0]), entry[1]
        if not (name.isascii() and name.isdecimal()):
            raise bad(
                f"logit_bias has the key {name!r}; keys are token IDs, such as '13'", "logit_bias"
            )
        if isinstance(value, bool):
            value = "-inf"  # false, as llama.cpp has it
        pairs.append(f"{name}:{value}")
    return ",".join(pairs)
