"""The numbers of a model as GGUF holds them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
from gguf import GGML_QUANT_VERSION, GGUFWriter, LlamaFileType, RopeScalingType

from llamakit.errors import UnsupportedModelError
from llamakit.protocols import Checkpoint

_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
_NEEDED = {None: (), "linear": ("factor",), "llama3": _LLAMA3}
"""What each known way to scale has to say, by its name."""


def add_metadata(
    writer: GGUFWriter, checkpoint: Checkpoint, name: str, file_type: LlamaFileType
) -> None:
    """Write what llama.cpp needs to know of a model next to its tensors and its vocabulary."""
    params = checkpoint.params
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_vocab_size(params.vocab_size)
    writer.add_context_length(params.context)
    writer.add_embedding_length(params.dim)
    writer.add_block_count(params.n_layers)
    writer.add_feed_forward_length(params.hidden_dim)
    writer.add_head_count(params.n_heads)
    writer.add_head_count_kv(params.n_kv_heads)
    writer.add_layer_norm_rms_eps(params.norm_eps)
    writer.add_rope_dimension_count(params.head_dim)
    writer.add_rope_freq_base(params.rope_theta)
    scaling = _scaling(checkpoint)
    if scaling.get("rope_type") == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(scaling["factor"]))


def rope_factors(checkpoint: Checkpoint) -> np.ndarray | None:
    """Say what Llama 3.1's scaling divides each rotary frequency by; None without it.

    Returns:
        ``(head_dim / 2,)`` float32, the tensor ``rope_freqs.weight``.

    Raises:
        UnsupportedModelError: the frequencies are scaled in a way that is not known here.
    Source: ``apply_scaling`` in the ``model.py`` of Meta's llama-models; ``generate_extra_tensors``
        in llama.cpp's ``conversion/llama.py``.
    """
    scaling = _scaling(checkpoint)
    if scaling.get("rope_type") != "llama3":
        return None
    params = checkpoint.params
    exponents = np.arange(0, params.head_dim, 2, dtype=np.float32) / params.head_dim
    wavelengths = 2 * math.pi * params.rope_theta**exponents
    factor, low, high, context = (float(scaling[key]) for key in _LLAMA3)
    smooth = ((context / wavelengths - low) / (high - low)).clip(0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def _scaling(checkpoint: Checkpoint) -> Mapping[str, object]:
    """Return how the rotary embedding is scaled, empty if it is not."""
    params = checkpoint.params
    scaling = params.rope_scaling or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    known = kind in _NEEDED and all(
        isinstance(scaling.get(it), int | float) for it in _NEEDED[kind]
    )
    if not known or (params.use_scaled_rope and kind is None):
        raise UnsupportedModelError(
            f"{checkpoint.path}: its rotary embedding is scaled in a way that this export does not "
            f"know ({json.dumps(dict(scaling)) if scaling else 'use_scaled_rope'}); expected none, "
            "linear, or llama3 with its four numbers"
        )
    return {**scaling, "rope_type": kind}
