"""What made an answer or a score, as every line of ``--output`` says it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamakit.errors import FileFormatError
from llamakit.files.regular_file import read_bytes
from llamakit.plugin_manager.factories import Choice, options_of, parse_choice

if TYPE_CHECKING:
    from llamakit.cli.generate_options import GenerateOptions
    from llamakit.llama.options import LoadOptions
    from llamakit.plugin_manager.registry import Registry
    from llamakit.plugin_manager.toolkit import Toolkit
    from llamakit.protocols import Checkpoint

_HOW_ONLY = (
    "device",
    "compile",
    "model_parallel_size",
    "max_batch_size",
    "join_timeout",
    "tokenizer",
)
"""Options of loading that say how the same answers are computed."""


def provenance(toolkit: Toolkit, model: Path, options: GenerateOptions) -> dict[str, Any]:
    """Return the model and the settings that decide what is answered; what was not given is absent.

    Args:
        model: its folder.
    Returns:
        ``model`` (its name), ``weights`` and ``tokenizer`` (hashes), and options.
    """
    sampling = options.sampling
    chosen = {
        "prompt_format": _choice(options.prompt_format, toolkit.prompt_formats),
        "sampler": sampling.sampler,
        "sampler_options": list(sampling.sampler_options),
        "processors": [_choice(it, toolkit.processors) for it in sampling.processors],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_new_tokens": options.max_new_tokens,
        "seed": options.seed,
        "stop": list(options.stop),
        "echo": options.echo,
        "logprobs": options.logprobs,
        "observers": [_choice(it, toolkit.observers) for it in options.observers],
    }
    given = {name: it for name, it in chosen.items() if _is_given(it)}
    return {**model_record(toolkit, model, options.loading), **given}


def model_record(toolkit: Toolkit, model: Path, loading: LoadOptions) -> dict[str, Any]:
    """Return ``model``, ``weights``, ``tokenizer``, and the options of loading that count."""
    from llamakit.checkpoint.fingerprint import fingerprint
    from llamakit.llama.loading import find_tokenizer

    given, checkpoint = loading.as_arguments(), toolkit.open_checkpoint(model)
    tokenizer = find_tokenizer(model, loading.tokenizer)
    return {
        "model": model.resolve().name,
        "weights": fingerprint(checkpoint),
        "tokenizer": _hash(_tokenizer_bytes(checkpoint, tokenizer)),
        **{name: it for name, it in given.items() if name not in _HOW_ONLY and _is_given(it)},
    }


def _tokenizer_bytes(checkpoint: Checkpoint, path: Path) -> bytes:
    """Return a tokenizer as its file holds it, also one that is in the file of the weights."""
    from llamakit.checkpoint.capabilities import embedded_files

    embedded = embedded_files(checkpoint) if path == checkpoint.path else {}
    return embedded.get("tokenizer.model") or read_bytes(path)


def _is_given(value: Any) -> bool:
    """Tell whether a setting is another than the default; 0 is one."""
    return value is not None and value is not False and value not in ([], "auto")


def _choice(chosen: str | Choice | None, registry: Registry[Any]) -> Any:
    """Return a name with its options; of a file that one names, the content counts."""
    if chosen is None:
        return None
    name, options = parse_choice(chosen)
    files = {it.name for it in options_of(registry.entry(name).value) if it.names_a_file}
    shown: Mapping[str, Any] = {
        key: _content(str(it)) if key.replace("_", "-") in files else it
        for key, it in options.items()
    }
    return {name: shown} if shown else name


def _content(path: str) -> str:
    """Return the name of a file with a hash of what is in it."""
    try:
        return f"{Path(path).name} {_hash(read_bytes(Path(path)))}"
    except (OSError, FileFormatError):  # whoever reads it says so
        return path


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
