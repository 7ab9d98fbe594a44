"""What requests name: samplers, processors, prompt formats, and OpenAI's fields for the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llamakit.errors import LlamakitError, UnknownNameError
from llamakit.factories import Choice, options_of, parse_choice
from llamakit.llama import Llama
from llamakit.registry import Entry, Registry
from llamakit.runtime.sampling import Sampling
from llamakit.sampling import choose_sampling
from llamakit.serve.errors import as_api_error, bad

KEPT = 64
"""How many samplings are kept, so that requests which are alike are sampled together."""

Body = Mapping[str, Any]


class SamplingReader:
    """Builds what a request's fields ask for.

    Args:
        defaults: as ``choose_sampling``, for fields that are not there.
    """

    def __init__(self, llama: Llama, defaults: Mapping[str, Any]) -> None:
        self._toolkit, self._tokenizer = llama.toolkit, llama.tokenizer
        self._defaults = defaults
        self._kept: dict[str, Sampling] = {}

    def read(self, body: Body) -> Sampling:
        """Build the sampler and its processors.

        Raises:
            ApiError: there is no such thing, or it cannot be built so.
        """
        if "sampler_options" in body and "sampler" not in body:
            raise bad("sampler_options needs sampler: which one are they for?", "sampler_options")
        asked = dict(self._defaults)
        if "sampler" in body:
            asked.pop("sampler_options", None)
        fields = ("sampler", "sampler_options", "temperature", "top_p")
        asked |= {name: body[name] for name in fields if name in body}
        try:
            is_shared = self._check_sampler(asked.get("sampler"), body.get("sampler_options", {}))
            processors = [*self._defaults.get("processors", ()), *self._processors(body)]
            return self._built({**asked, "processors": processors}, is_shared and not processors)
        except LlamakitError as error:
            raise as_api_error(error, "sampler") from error

    def _check_sampler(self, name: str | None, options: Mapping[str, Any]) -> bool:
        """Refuse options that name files; say whether requests may share the sampler.

        They do not share a stranger's: if it fails, only the request that it failed for ends.
        """
        if name is None:
            return True
        entry = self._toolkit.samplers.entry(name)
        refuse_files(entry, options)
        return entry.source.builtin

    def _built(self, asked: dict[str, Any], is_shared: bool) -> Sampling:
        key = json.dumps(asked, sort_keys=True, default=str)
        if is_shared and key in self._kept:
            return self._kept[key]
        made = choose_sampling(**asked, toolkit=self._toolkit, tokenizer=self._tokenizer)
        if is_shared:
            while len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = made
        return made

    def _processors(self, body: Body) -> list[Choice]:
        """Return the processors that a request's fields stand for, OpenAI's fields first."""
        found = []
        if "logit_bias" in body:
            pairs = (f"{_id(name)}:{value}" for name, value in body["logit_bias"].items())
            found.append(Choice("logit-bias", {"bias": ",".join(pairs)}))
        found += [
            Choice(name.replace("_", "-"), {"penalty": body[name]})
            for name in ("frequency_penalty", "presence_penalty")
            if body.get(name)
        ]
        known = self._toolkit.processors
        found += [read_choice(given, known, "processors") for given in body.get("processors", ())]
        wanted = body.get("response_format", {"type": "text"})
        if wanted["type"] != "text":
            found.append(self._json(wanted))
        return found

    def _json(self, wanted: Body) -> Choice:
        """Return the processor that holds answers to JSON."""
        schema = {"type": "object"}
        if wanted["type"] == "json_schema":
            schema = wanted["json_schema"]["schema"]
        try:
            self._toolkit.processors.entry("json-schema")
        except UnknownNameError as error:
            raise bad(
                "response_format needs a processor called 'json-schema', and this server has none",
                "response_format",
            ) from error
        return Choice("json-schema", {"schema": json.dumps(schema)})


def read_choice(given: object, registry: Registry[Any], param: str) -> Choice:
    """Read ``NAME:k=v,k=v`` or ``{"name": …, "options": …}``; no option may name a file.

    Raises:
        ApiError: nothing of that name, or an option that is not for requests.
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


def refuse_files(entry: Entry, options: Mapping[str, Any]) -> None:
    """Refuse options from a request that name a file: requests reach no file of the server's.

    Raises:
        ApiError: one does.
    """
    names = {name.strip().replace("_", "-") for name in options}
    for option in options_of(entry.value):
        if option.names_a_file and option.name in names:
            raise bad(f"{option.name} of {entry} names a file, which requests may not")


def _id(name: str) -> str:
    if not (name.isascii() and name.isdecimal()):
        raise bad(f"logit_bias has the key {name!r}; keys are ids, such as '13'", "logit_bias")
    return name
