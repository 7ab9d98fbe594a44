"""The numbers of a GGUF model as Meta's."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from llamakit.checkpoint.json_fields import Fields
from llamakit.checkpoint.params import ModelParams
from llamakit.errors import ParamsError, UnsupportedModelError
from llamakit.printable import printable
from llamakit_gguf.header import Array, Value
from llamakit_gguf.metadata import frequency_divisors
from llamakit_gguf.tensors import Values

_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
_ORIGINAL_CONTEXT = 8192
_FAMILIES = {"gpt2": "llama 3", "llama": "llama 1/2"}
"""By the kind of the tokenizer."""
_CODE_LLAMA_THETA = 1e6


def read_params(
    metadata: Mapping[str, Value], path: Path, rows: int, *, tied: bool, divisors: Values | None
) -> ModelParams:
    """Read the numbers of a Llama.

    Args:
        metadata: of the file ``path``.
        rows: of the embedding.
        tied: there is no output layer of its own.
        divisors: the tensor ``rope_freqs.weight``, ``(head_dim / 2,)``; None where there is none.

    Raises:
        ParamsError: a key is missing, or a value is of a wrong type or out of range.
        UnsupportedModelError: it is another kind of model, or one with parts that Meta's lacks.
    """
    check_architecture(metadata, path)
    fields = _LlamaFields(metadata, path)
    n_heads = fields.count("attention.head_count")
    theta = fields.number("rope.freq_base") or 10000.0
    params = ModelParams(
        dim=fields.count("embedding_length"),
        n_layers=fields.count("block_count"),
        n_heads=n_heads,
        n_kv_heads=fields.optional("attention.head_count_kv") or n_heads,
        vocab_size=rows,
        hidden_dim=fields.count("feed_forward_length"),
        norm_eps=fields.number("attention.layer_norm_rms_epsilon") or 1e-5,
        rope_theta=theta,
        max_seq_len=fields.optional("context_length"),
        tied_embeddings=tied,
        family=_family(metadata, theta),
    )
    _check_shape(params, fields, path)
    scaling = _scaling(params, fields, divisors, path)
    is_llama3 = scaling is not None and scaling["rope_type"] == "llama3"
    return dataclasses.replace(params, use_scaled_rope=is_llama3, rope_scaling=scaling)


def check_architecture(metadata: Mapping[str, Value], path: Path) -> None:
    """Refuse what is no Llama of Meta's architecture.

    Raises:
        UnsupportedModelError: it is something else.
    """
    found = metadata.get("general.architecture")
    kind = metadata.get("general.type", "model")
    if found != "llama" or kind != "model":
        what = found if kind == "model" else f"{printable(kind)} of {printable(found)}"
        raise UnsupportedModelError(
            f"{path} is a GGUF of the architecture {printable(what)}; expected a model of the "
            "architecture llama, as Llama 1, 2, 3 and Code Llama are. Run others with llama.cpp."
        )
    if metadata.get("llama.expert_count"):
        raise UnsupportedModelError(
            f"{path} is a mixture of {printable(metadata['llama.expert_count'])} experts, such as "
            "Mixtral, for which Meta's format has no names. Run it with llama.cpp."
        )


class _LlamaFields:
    """The keys ``llama.…``, each checked when it is asked for."""

    def __init__(self, metadata: Mapping[str, Value], path: Path) -> None:
        self._metadata = {
            key.removeprefix("llama."): _one_of(value) for key, value in metadata.items()
        }
        self._fields, self._path = Fields(self._metadata, path), path

    def count(self, key: str) -> int:
        """Return a positive integer that has to be there."""
        return self._fields.count(key)

    def optional(self, key: str) -> int | None:
        """Return a positive integer, or None if it is absent."""
        return self._fields.optional_count(key)

    def number(self, key: str) -> float | None:
        """Return a positive number as it was before it became a float32; None if it is absent."""
        value = self._fields.optional_number(key)
        short = float(str(np.float32(value))) if value is not None and value < 3e38 else value
        return value if isinstance(self._metadata.get(key), int) else short

    def text(self, key: str) -> str | None:
        """Return a string, or None if it is absent."""
        value = self._metadata.get(key)
        if value is not None and not isinstance(value, str):
            raise ParamsError(f"{self._path}: 'llama.{key}' is no string.")
        return value


def _one_of(value: Value) -> Value:
    """Return the number that an array holds for each layer, where all are the same."""
    if not isinstance(value, Array):
        return value
    numbers = set(value.numbers()) if value.count <= 4096 else set()
    return numbers.pop() if len(numbers) == 1 else value


def _family(metadata: Mapping[str, Value], theta: float) -> str | None:
    family = _FAMILIES.get(str(metadata.get("tokenizer.ggml.model")))
    return "code llama" if family == "llama 1/2" and theta == _CODE_LLAMA_THETA else family


def _check_shape(params: ModelParams, fields: _LlamaFields, path: Path) -> None:
    if params.dim % params.n_heads or params.n_heads % params.n_kv_heads:
        raise ParamsError(
            f"{path}: a width of {params.dim}, {params.n_heads} heads and {params.n_kv_heads} "
            "key/value heads do not divide; download the file again."
        )
    if params.n_layers > 4096 or params.n_heads > 1 << 16:
        raise ParamsError(
            f"{path}: no model has {params.n_layers} layers of {params.n_heads} heads."
        )
    for key in ("rope.dimension_count", "attention.key_length", "attention.value_length"):
        length = fields.optional(key) or params.head_dim
        if length != params.head_dim or length % 2:
            raise UnsupportedModelError(
                f"{path}: 'llama.{key}' is {length}; expected an even number, and "
                f"{params.head_dim} for {params.n_heads} heads in a width of {params.dim}. Meta's "
                "format has no other heads; run the model with llama.cpp."
            )


def _scaling(
    params: ModelParams, fields: _LlamaFields, divisors: Values | None, path: Path
) -> dict[str, object] | None:
    """Say how the rotary embedding is scaled, as a config.json does; None if it is not."""
    kind = fields.text("rope.scaling.type") or "none"
    factor = fields.number("rope.scaling.factor") or 1.0
    if linear := fields.number("rope.scale_linear"):  # as older files say it
        kind, factor = "linear", linear
    if kind not in ("none", "linear"):
        raise UnsupportedModelError(
            f"{path}: its rotary embedding is scaled by {printable(kind)}, which no params.json "
            "can say; expected none, linear, or Llama 3's rope_freqs.weight. Run it with llama.cpp."
        )
    if divisors is not None and not (divisors == 1).all():
        return _llama3(params, divisors, path)
    return {"rope_type": "linear", "factor": factor} if kind == "linear" and factor != 1 else None


def _llama3(params: ModelParams, divisors: Values, path: Path) -> dict[str, object]:
    """Find the factor of Llama 3's scaling that gives these divisors."""
    for high in (4.0, 1.0):  # of Llama 3.1 and later, and of Llama 4
        settings = {**_LLAMA3, "high_freq_factor": high}
        scaling = {
            "rope_type": "llama3",
            "factor": _factor(params, settings, divisors),
            **settings,
            "original_max_position_embeddings": _ORIGINAL_CONTEXT,
        }
        expected = frequency_divisors(params.head_dim, params.rope_theta, scaling)
        if expected.shape == divisors.shape and np.allclose(divisors, expected, 1e-4, 0):
            return scaling
    raise UnsupportedModelError(
        f"{path}: its rope_freqs.weight is not that of Llama 3's scaling (low_freq_factor 1, "
        f"high_freq_factor 4, original context {_ORIGINAL_CONTEXT}, any factor), which is all that "
        "a params.json can say. Run it with llama.cpp."
    )


def _factor(params: ModelParams, settings: Mapping[str, float], divisors: Values) -> float:
    """Return the factor that the largest divisor implies, rounded to what people write."""
    largest = float(np.max(np.nan_to_num(divisors, posinf=1.0)))
    at = int(np.argmax(np.nan_to_num(divisors, posinf=1.0)))
    wavelength = 2 * math.pi * params.rope_theta ** (2 * at / params.head_dim)
    low, high = settings["low_freq_factor"], settings["high_freq_factor"]
    smooth = 0.0
    if high > low:
        smooth = min(max((_ORIGINAL_CONTEXT / wavelength - low) / (high - low), 0.0), 1.0)
    inverse = (1 / largest - smooth) if largest > 0 else 0.0
    return round((1 - smooth) / inverse, 3) if inverse > 0 and smooth < 1 else 1.0
