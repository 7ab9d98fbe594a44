"""Reads what PEFT's ``save_pretrained`` wrote, under Meta's names and in Meta's order of rows.

Source: https://arxiv.org/abs/2106.09685; ``get_delta_weight`` and ``update_layer`` in PEFT's
``tuners/lora/layer.py``.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np

from llamakit import LlamakitError

Factors = tuple[np.ndarray, np.ndarray]
"""``(rows, rank)`` and ``(rank, columns)`` float32; their product is added to a parameter."""

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PLAIN = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None, []),
    "alora_invocation_tokens": (None, []),
    "layer_replication": (None, []),
    "alpha_pattern": ({}, None),
    # The other ways to begin change the weights of the model too.
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal", "eva"),
}
"""What a plain adapter's config says, where it says anything."""
_HARMLESS = ("use_rslora", "eva_config")
"""Of the keys that switch variants of LoRA on, ``use_…`` and ``…_config``, those known here."""

_NAME = re.compile(
    r"base_model\.model\.(?:model\.(layers\.[0-9]+)\.)?([a-z_.]+)\.lora_([AB])\.weight"
)
_MODULES = {
    "lm_head": "output",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
}
_ROTARY = ("attention.wq", "attention.wk")


def read_adapter(folder: Path, head_dim: int) -> dict[str, Factors]:
    """Read an adapter.

    Args:
        folder: with adapter_config.json and adapter_model.safetensors.
        head_dim: rows in one head of the model.
    Returns:
        The factors of each parameter that it changes, by Meta's name.

    Raises:
        LlamakitError: it is no adapter, or one of another kind.
    """
    config = _read_config(folder / _CONFIG)
    factors = {}
    for (layer, module), parts in _read_pairs(folder / _WEIGHTS).items():
        a, b = parts["A"], parts["B"]  # (rank, in), (out, rank)
        rank = len(a)
        scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
        name = _MODULES[module]
        if name in _ROTARY:
            b = _meta_order(b, head_dim)
        factors[f"{layer}.{name}.weight" if layer else f"{name}.weight"] = (scale * b, a)
    return factors


def _read_config(path: Path) -> dict:
    try:
        config = json.loads(path.read_text("utf-8"))  # noqa: TID251
        float(config["lora_alpha"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LlamakitError(
            f"{path} is not the config of a LoRA adapter ({type(error).__name__}: {error}); "
            f"expected the folder that PEFT saved, with {_CONFIG} and {_WEIGHTS}."
        ) from error
    for key, value in config.items():
        if not _is_plain(key, value):
            raise LlamakitError(
                f"{path}: {key!r} is {value!r:.80}, and only plain LoRA is merged here. Merge "
                "this adapter with PEFT's merge_and_unload, and import the result."
            )
    return config


def _is_plain(key: str, value: object) -> bool:
    if key in _PLAIN:
        return value in _PLAIN[key]
    is_variant = key.startswith("use_") or key.endswith("_config")
    return not value or not is_variant or key in _HARMLESS


def _read_pairs(path: Path) -> dict[tuple[str | None, str], dict[str, np.ndarray]]:
    """Read the matrices, two of each module, as float32."""
    import ml_dtypes  # noqa: F401 - makes numpy know bfloat16
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise LlamakitError(
            f"{path} cannot be read ({error}); expected the folder that PEFT saved, with "
            f"{_CONFIG} and {_WEIGHTS}."
        ) from error
    pairs: dict[tuple[str | None, str], dict[str, np.ndarray]] = {}
    for theirs, tensor in tensors.items():
        match = _NAME.fullmatch(theirs)
        if match is None or match[2] not in _MODULES:
            raise LlamakitError(
                f"{path}: {theirs!r:.120} is no LoRA matrix of a Llama's layers or output. An "
                "adapter that brings more, such as a whole embedding, is merged by PEFT's "
                "merge_and_unload; import the result."
            )
        pairs.setdefault((match[1], match[2]), {})[match[3]] = tensor.astype(np.float32)
    for (layer, module), parts in pairs.items():
        if set(parts) != {"A", "B"} or len(parts["A"]) != parts["B"].shape[-1]:
            raise LlamakitError(
                f"{path}: the matrices A and B of {layer or 'the model'}, {module} do not make a "
                "pair; the file is not whole: copy it again."
            )
    return pairs


def _meta_order(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """Bring rows from Hugging Face's order, halves of a head, into Meta's, pairs of neighbours."""
    if len(rows) % head_dim:
        return rows  # of another model, which its shape will tell
    halves = rows.reshape(-1, 2, head_dim // 2, rows.shape[-1])  # (H, 2, D/2, rank)
    return halves.swapaxes(1, 2).reshape(rows.shape)
