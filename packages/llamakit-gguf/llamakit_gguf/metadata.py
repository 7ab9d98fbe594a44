"""The numbers of a model as GGUF holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_VERSION, GGUFWriter, LlamaFileType, RopeScalingType
from gguf.utility import size_label

from llamakit.checkpoint.rope_scaling import as_config, scaling_of
from llamakit.errors import UnsupportedModelError
from llamakit.protocols import Checkpoint

_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def add_metadata(
    writer: GGUFWriter, checkpoint: Checkpoint, name: str, file_type: LlamaFileType
) -> None:
    """Write what llama.cpp needs to know of a model next to its tensors and its vocabulary.

    The keys are those that llama.cpp's own converter writes.
    """
    params = checkpoint.params
    writer.add_type("model")
    writer.add_name(name)
    numel = sum(parameter.numel for parameter in checkpoint.parameters.values())
    writer.add_size_label(size_label(numel, 0, 0, 0))
    writer.add_file_type(file_type)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_vocab_size(params.vocab_size)
    writer.add_context_length(params.context)
    writer.add_embedding_length(params.dim)
    writer.add_block_count(params.n_layers)
    writer.add_feed_forward_length(params.hidden_dim)
    writer.add_head_count(params.n_heads)
    writer.add_head_count_kv(params.n_kv_heads)
    writer.add_key_length(params.head_dim)
    writer.add_value_length(params.head_dim)
    writer.add_layer_norm_rms_eps(params.norm_eps)
    writer.add_rope_dimension_count(params.head_dim)
    writer.add_rope_freq_base(params.rope_theta)
    scaling = scaling_of(params, checkpoint.path)
    if scaling is not None and scaling.rope_type == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling.factor)


def rope_divisors(checkpoint: Checkpoint) -> npt.NDArray[np.float32] | None:
    """Say what Llama 3.1's scaling divides each rotary frequency by; None without it.

    Returns:
        ``(head_dim / 2,)``, the tensor ``rope_freqs.weight``.

    Raises:
        UnsupportedModelError: the frequencies are scaled in a way that GGUF has no word for.
    """
    scaling = scaling_of(checkpoint.params, checkpoint.path)
    if scaling is None or scaling.rope_type == "linear":
        return None
    if scaling.rope_type != "llama3":
        raise UnsupportedModelError(
            f"{checkpoint.path}: its rotary embedding is scaled by {scaling.rope_type}, which "
            "llama.cpp does not do for a Llama; expected none, linear or llama3"
        )
    params = checkpoint.params
    return frequency_divisors(params.head_dim, params.rope_theta, as_config(scaling))


def frequency_divisors(
    head_dim: int, theta: float, scaling: Mapping[str, Any]
) -> npt.NDArray[np.float32]:
    """Say what a scaling of the type llama3 divides each rotary frequency by.

    Args:
        head_dim: values in one attention head.
        theta: the base of the frequencies.
        scaling: as a config.json has it.
    Returns:
        ``(head_dim / 2,)``.
    Source: ``apply_scaling`` in the ``model.py`` of Meta's llama-models; ``generate_extra_tensors``
        in llama.cpp's ``conversion/llama.py``.
    """
    # Every step is rounded to float32, as the converter's are.
    factor, low, high, context = (np.float32(scaling[key]) for key in _LLAMA3)
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = np.float32(1) / np.float32(theta) ** exponents
    wavelengths = np.float32(2 * math.pi) / frequencies
    with np.errstate(all="ignore"):  # of high = low, which has no frequency between
        smooth = (context / wavelengths - low) / (high - low)
        between = np.float32(1) / ((np.float32(1) - smooth) / factor + smooth)
    is_short, is_long = wavelengths < context / high, wavelengths > context / low
    divisors: npt.NDArray[np.float32] = np.where(is_short, np.float32(1), between)
    return np.where(is_long & ~is_short, factor, divisors).astype(np.float32)
