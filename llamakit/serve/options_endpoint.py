"""``/v1/llamakit/options``: what a request may choose from, including plugins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llamakit import __version__
from llamakit.llama.llama import Llama
from llamakit.llama.sampler_choice import TEMPERATURE, TOP_P
from llamakit.plugin_manager.docstrings import summary_of
from llamakit.plugin_manager.factories import options_of
from llamakit.plugin_manager.registry import Entry
from llamakit.serve.server_settings import ServeSettings


def describe_options(llama: Llama, settings: ServeSettings) -> dict[str, Any]:
    """Describe the model, the server's defaults and limits, and all registered choices."""
    limits = settings.limits
    toolkit = llama.toolkit
    return {
        "version": __version__,
        "model": settings.model_name,
        "context": llama.max_seq_len,
        "vocabulary": llama.tokenizer.vocab_size,
        "slots": llama.max_batch_size,
        "dtype": llama.dtype,
        "device": llama.device,
        "ranks": llama.model_parallel_size,
        "limits": {
            "body_bytes": limits.body,
            "answers": limits.choices,
            "new_tokens": limits.new_tokens or llama.max_seq_len,
            "seconds": limits.seconds,
            "top_logprobs": 20,
        },
        "defaults": {
            "sampler": settings.sampling.get("sampler"),
            "temperature": _first(settings.sampling.get("temperature"), TEMPERATURE),
            "top_p": _first(settings.sampling.get("top_p"), TOP_P),
            "prompt_format": (settings.prompt_format or llama.default_prompt_format).partition(":")[
                0
            ],
        },
        "samplers": _described(toolkit.samplers),
        "processors": _described(toolkit.processors),
        "prompt_formats": _described(toolkit.prompt_formats),
    }


def _first(given: float | None, default: float) -> float:
    return default if given is None else given


def _described(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Describe registered factories, without options that name files: requests may not use them."""
    return [
        {
            "name": entry.name,
            "help": entry.help,
            "summary": summary_of(entry.value),
            "package": None if entry.source.builtin else entry.source.package,
            "options": [
                {"name": option.name, **option.schema()}
                for option in options_of(entry.value)
                if not option.names_a_file
            ],
        }
        for entry in entries
    ]
