"""How a model's rotary frequencies are scaled: read from its files, and written to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from llamakit.checkpoint.families import (
    LLAMA_3,
    LLAMA_3_2_FACTOR,
    LLAMA_3_2_SHAPES,
    RopeScaling,
)
from llamakit.checkpoint.json_fields import Fields
from llamakit.checkpoint.params import ModelParams, family_by_numbers
from llamakit.errors import ParamsError, UnsupportedModelError

_DEFAULT = "default"


def scaling_of(
    params: ModelParams, path: Path, *, factor: float | None = None
) -> RopeScaling | None:
    """Return how the rotary frequencies are scaled, or None if they are not.

    Args:
        params: the numbers of the model.
        path: the checkpoint, for messages.
        factor: instead of what the files say or imply.

    Raises:
        UnsupportedModelError: they are scaled in a way that is not computed here.
        ParamsError: a number of the scaling is absent or wrong.
    """
    if params.rope_scaling is not None:
        scaling = _read(params.rope_scaling, params, path)
    else:
        scaling = default_scaling(params) if params.use_scaled_rope else None
    factor = factor or params.rope_factor
    if factor is None:
        return scaling
    if scaling is None:
        raise UnsupportedModelError(
            f"{path}: the RoPE of this model is not scaled, so a factor of {factor:g} has no "
            "effect; leave it out"
        )
    return replace(scaling, factor=factor)


def default_scaling(params: ModelParams) -> RopeScaling:
    """Return what ``use_scaled_rope`` means for a model whose files say no factor."""
    scaling = family_by_numbers(params).scaling or LLAMA_3.scaling
    assert scaling is not None
    high = params.extra.get("rope_high_freq_factor")
    if isinstance(high, int | float) and not isinstance(high, bool):
        scaling = replace(scaling, high_freq_factor=float(high))
    if (params.dim, params.n_layers, params.n_heads, params.n_kv_heads) in LLAMA_3_2_SHAPES:
        return replace(scaling, factor=LLAMA_3_2_FACTOR)
    return scaling


def as_config(scaling: RopeScaling) -> dict[str, object]:
    """Say what the ``rope_scaling`` of a Hugging Face config.json holds."""
    values: dict[str, object] = {"rope_type": scaling.rope_type, "factor": scaling.factor}
    if scaling.rope_type == "llama3":
        values |= {
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_context,
        }
    return values


def rope_type(scaling: Mapping[str, object] | None) -> object:
    """Return the type that the ``rope_scaling`` of a config.json names."""
    if scaling is None:
        return _DEFAULT
    return scaling.get("rope_type", scaling.get("type", _DEFAULT))


def _read(values: Mapping[str, object], params: ModelParams, path: Path) -> RopeScaling | None:
    kind = rope_type(values)
    if kind == _DEFAULT:
        return None
    fields = Fields(values, path)
    factor = fields.optional_number("factor")
    if kind not in ("llama3", "linear", "dynamic"):
        raise UnsupportedModelError(
            f"{path}: RoPE scaling of type {kind if isinstance(kind, str) else repr(kind)} is not "
            "supported; expected llama3, linear, dynamic or none"
        )
    if factor is None:
        raise ParamsError(
            f"{path}: the RoPE scaling of type {kind} has no 'factor'; expected a positive number."
        )
    if kind == "linear":
        return RopeScaling("linear", factor)
    if kind == "dynamic":
        return RopeScaling("dynamic", factor, original_context=params.context)
    return RopeScaling(
        "llama3",
        factor,
        fields.optional_number("low_freq_factor") or 1.0,
        fields.optional_number("high_freq_factor") or 4.0,
        fields.optional_count("original_max_position_embeddings") or 8192,
    )
