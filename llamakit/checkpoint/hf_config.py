"""A Hugging Face config.json as ``ModelParams``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from llamakit.checkpoint.json_fields import Fields
from llamakit.checkpoint.params import ModelParams, check_heads
from llamakit.checkpoint.rope_scaling import rope_type
from llamakit.errors import UnsupportedModelError

QUANTIZATION = "quantization_config"
"""How the weights are stored: the key of a config.json, kept in ``ModelParams.extra``."""


def parse_config(values: Mapping[str, object], path: Path) -> ModelParams:
    """Read the numbers of a Llama model from a config.json.

    Both spellings of the rotary settings are known: ``rope_parameters`` of transformers 5, and
    ``rope_theta`` with ``rope_scaling`` of those before. Where both are there, they count as in
    transformers 5: a ``rope_scaling`` replaces ``rope_parameters``, and the base inside is the one.

    Args:
        values: the JSON object.
        path: the file that it is from, for messages.

    Raises:
        ParamsError: a key is missing, or a value is of a wrong type or out of range.
        UnsupportedModelError: it is not a Llama, or one with parts that Meta's format lacks.
    """
    _check_supported(values, path)
    fields = Fields(values, path)
    rope = fields.optional_mapping("rope_parameters")
    scaling = fields.optional_mapping("rope_scaling") or rope
    quantization = values.get(QUANTIZATION) or values.get("compression_config")
    n_heads = fields.count("num_attention_heads")
    params = ModelParams(
        dim=fields.count("hidden_size"),
        n_layers=fields.count("num_hidden_layers"),
        n_heads=n_heads,
        n_kv_heads=fields.optional_count("num_key_value_heads") or n_heads,
        vocab_size=fields.count("vocab_size"),
        hidden_dim=fields.count("intermediate_size"),
        norm_eps=fields.optional_number("rms_norm_eps") or 1e-6,
        rope_theta=_rope_theta(Fields(scaling or {}, path), fields, path),
        use_scaled_rope=rope_type(scaling) == "llama3",
        max_seq_len=fields.optional_count("max_position_embeddings"),
        tied_embeddings=fields.flag("tie_word_embeddings", False),
        rope_scaling=scaling if rope_type(scaling) != "default" else None,
        extra={} if quantization is None else {QUANTIZATION: quantization},
    )
    check_heads(params, path)
    _check_head_dim(fields, params, path)
    return params


def _rope_theta(new: Fields, old: Fields, path: Path) -> float:
    inside, outside = new.optional_number("rope_theta"), old.optional_number("rope_theta")
    if inside and outside and inside != outside:
        logging.getLogger("llamakit").warning(
            "%s has two values of 'rope_theta': %g inside its rotary settings, which is used, and "
            "%g; make them one",
            path,
            inside,
            outside,
        )
    return inside or outside or 10000.0


def _check_supported(values: Mapping[str, object], path: Path) -> None:
    part = "partial_rotary_factor"
    rope = values.get("rope_scaling") or values.get("rope_parameters")
    if isinstance(rope, Mapping) and part in rope:
        values = {**values, part: rope[part]}
    expected: tuple[tuple[str, object, object], ...] = (
        ("model_type", "llama", None),
        ("hidden_act", "silu", "silu"),
        ("attention_bias", False, False),
        ("mlp_bias", False, False),
        (part, 1.0, 1.0),
    )
    for key, wanted, default in expected:
        value = values.get(key)
        value = default if value is None else value
        if value != wanted:
            shown = "set" if isinstance(value, dict | list) else f"{value!r:.80}"
            raise UnsupportedModelError(
                f"{path}: {key!r} is {shown}; expected {wanted!r}. Only Llama models without "
                "biases can be read."
            )


def _check_head_dim(fields: Fields, params: ModelParams, path: Path) -> None:
    head_dim = fields.optional_count("head_dim") or params.head_dim
    if head_dim != params.head_dim or head_dim % 2:
        raise UnsupportedModelError(
            f"{path}: 'head_dim' is {head_dim}; expected an even number, and "
            f"{params.head_dim} for {params.n_heads} heads in a width of {params.dim}."
        )
