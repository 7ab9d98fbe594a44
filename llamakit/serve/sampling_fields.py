"""Fields of sampling that other servers know, as processors, samplers and limits of this one.

The processors are applied in the order of ``PROCESSOR_FIELDS``, which is llama.cpp's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llamakit.plugin_manager.factories import Choice
from llamakit.serve.api_errors import bad
from llamakit.serve.schema_parts import FLAG, ID, TEXT, Schema, number, whole

Body = Mapping[str, Any]


@dataclass(frozen=True)
class ProcessorField:
    """A field that stands for a logits processor.

    Args:
        schema: of its value.
        processor: its registered name.
        option: which of its options the value is.
        off: values with which the processor is left out, besides null.
        others: the options that further fields set, by those fields.
    """

    schema: Schema
    processor: str
    option: str
    off: Collection[float] = (0,)
    others: Mapping[str, str] = field(default_factory=dict)


_LAST = {"repeat_last_n": "last", "repetition_penalty_range": "last"}
_DRY = {
    "dry_base": "base",
    "dry_allowed_length": "allowed-length",
    "dry_penalty_last_n": "last",
    "dry_sequence_breakers": "breakers",
}

PROCESSOR_FIELDS: Mapping[str, ProcessorField] = {
    "min_tokens": ProcessorField(whole(0, None, "Processor min-length."), "min-length", "length"),
    "repetition_penalty": ProcessorField(
        number(0.01, 100, "Processor repetition-penalty; 1 is off."),
        "repetition-penalty",
        "penalty",
        (1,),
        _LAST,
    ),
    "frequency_penalty": ProcessorField(
        number(-2, 2, "Processor frequency-penalty."), "frequency-penalty", "penalty"
    ),
    "presence_penalty": ProcessorField(
        number(-2, 2, "Processor presence-penalty."), "presence-penalty", "penalty"
    ),
    "dry_multiplier": ProcessorField(
        number(0, 100, "Processor dry; 0 is off."), "dry", "multiplier", (0,), _DRY
    ),
    "no_repeat_ngram_size": ProcessorField(
        whole(0, None, "Processor no-repeat-ngram; 0 is off."), "no-repeat-ngram", "n"
    ),
    "top_n_sigma": ProcessorField(
        number(-1, 1000, "Processor top-n-sigma; 0 and -1 are off."), "top-n-sigma", "n", (0, -1)
    ),
    "top_k": ProcessorField(
        whole(-1, None, "Processor top-k; 0 and -1 are off."), "top-k", "k", (0, -1)
    ),
    "typical_p": ProcessorField(
        number(0, 1, "Processor typical; 0 and 1 are off."), "typical", "mass", (0, 1)
    ),
    "min_p": ProcessorField(number(0, 1, "Processor min-p; 0 is off."), "min-p", "p"),
    "xtc_probability": ProcessorField(
        number(0, 1, "Processor xtc; 0 is off."),
        "xtc",
        "probability",
        (0,),
        {"xtc_threshold": "threshold"},
    ),
}

OPTION_FIELDS: Mapping[str, Schema] = {
    "repeat_last_n": whole(-1, None, "Of repetition_penalty: tokens that count; -1 is all."),
    "repetition_penalty_range": whole(0, None, "Of repetition_penalty: tokens that count."),
    "dry_base": number(1, 4, "Of dry_multiplier."),
    "dry_allowed_length": whole(1, None, "Of dry_multiplier."),
    "dry_penalty_last_n": whole(-1, None, "Of dry_multiplier: tokens that count; -1 is all."),
    "dry_sequence_breakers": {
        "anyOf": [TEXT, {"type": "array", "maxItems": 64, "items": TEXT}],
        "description": "Of dry_multiplier: strings that no repetition reaches across.",
    },
    "xtc_threshold": number(0, 1, "Of xtc_probability; above 0.5 is off."),
    "dynatemp_range": number(0, 100, "Processor dynamic-temperature, around temperature."),
    "dynatemp_exponent": number(0.01, 100, "Of dynatemp_range."),
    "mirostat": {"enum": [0, 2], "description": "2 is the sampler mirostat; 0 is off."},
    "mirostat_tau": number(0, 100, "Of mirostat."),
    "mirostat_eta": number(0, 1, "Of mirostat."),
    "do_sample": {**FLAG, "description": "false is temperature 0."},
    "stop_token_ids": {
        "type": "array",
        "maxItems": 1024,
        "items": ID,
        "description": "Tokens that end an answer, besides the model's.",
    },
    "ignore_eos": {**FLAG, "description": "An answer does not end before its limit."},
}
"""What the other fields of sampling accept."""

ALIASES = {
    "n_predict": "max_tokens",
    "max_new_tokens": "max_tokens",
    "random_seed": "seed",
    "ban_eos_token": "ignore_eos",
    "repeat_penalty": "repetition_penalty",
    "typical": "typical_p",
}
"""Other names of fields."""

SAMPLING_FIELDS: Mapping[str, Schema] = {
    **{name: row.schema for name, row in PROCESSOR_FIELDS.items()},
    **OPTION_FIELDS,
}


RANDOM = -1
"""The seed with which vLLM and llama.cpp take a new one each time."""


def with_standard_names(body: Body) -> dict[str, Any]:
    """Return a body with the fields of other servers under the names that this one reads.

    Raises:
        ApiError: two names of the same field have different values.
    """
    renamed = dict(body)
    for alias, name in ALIASES.items():
        if alias not in renamed:
            continue
        value = renamed.pop(alias)
        if renamed.setdefault(name, value) != value:
            raise bad(f"{alias} and {name} mean the same and differ: give one", alias)
    if renamed.get("seed") == RANDOM:
        del renamed["seed"]
    if renamed.get("do_sample") is False:
        renamed["temperature"] = 0
    if renamed.get("mirostat"):
        renamed = _with_mirostat(renamed)
    return renamed


def _with_mirostat(body: dict[str, Any]) -> dict[str, Any]:
    """Name the sampler; as in llama.cpp, top-p and the like do not count then."""
    if "sampler" in body:
        raise bad("mirostat is a sampler, and the request has another one", "mirostat")
    given = {"tau": body.get("mirostat_tau"), "eta": body.get("mirostat_eta")}
    options = {name: value for name, value in given.items() if value}
    body = {name: value for name, value in body.items() if name not in ("top_p", *_CUTS)}
    return {**body, "sampler": "mirostat", "sampler_options": options}


_CUTS = ("top_k", "min_p", "typical_p", "top_n_sigma", "xtc_probability")


def field_processors(body: Body) -> Iterator[tuple[Choice, str]]:
    """Yield the processors that fields stand for, in order, and the field of each.

    Args:
        body: with a temperature.
    """
    for name, row in PROCESSOR_FIELDS.items():
        if name in body and body[name] not in row.off:
            options = {row.option: body[name]}
            for other, option in row.others.items():
                if other in body:
                    options[option] = _option_value(other, body[other])
            if _is_on(name, body):
                yield Choice(row.processor, options), name
    if has_dynamic_temperature(body):
        yield _dynamic_temperature(body), "dynatemp_range"


def _is_on(name: str, body: Body) -> bool:
    """Return whether the further fields of a field leave it anything to do."""
    if name == "repetition_penalty":
        return body.get("repeat_last_n") != 0
    if name == "dry_multiplier":
        return body.get("dry_penalty_last_n") != 0
    return name != "xtc_probability" or 0 < body.get("xtc_threshold", 0.1) <= 0.5


def _option_value(name: str, value: Any) -> Any:
    if name == "dry_sequence_breakers" and not isinstance(value, str):
        if any("|" in text for text in value):
            raise bad("dry_sequence_breakers: a breaker cannot hold |", "dry_sequence_breakers")
        return "|".join(text.replace("\n", "\\n") for text in value)
    return max(value, 0) if name.endswith("last_n") else value  # -1 is the whole context


def has_dynamic_temperature(body: Body) -> bool:
    """Return whether the temperature varies; greedy answers stay greedy."""
    return bool(body.get("dynatemp_range")) and body["temperature"] != 0


def _dynamic_temperature(body: Body) -> Choice:
    middle, reach = body["temperature"], body["dynatemp_range"]
    options = {"low": max(0, middle - reach), "high": middle + reach}
    if "dynatemp_exponent" in body:
        options["exponent"] = body["dynatemp_exponent"]
    return Choice("dynamic-temperature", options)
