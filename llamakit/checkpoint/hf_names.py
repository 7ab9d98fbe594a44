"""Meta's names of the parameters and Hugging Face's, both ways."""

from __future__ import annotations

import re

_TOP = {
    "tok_embeddings.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_TOP_BACK = {theirs: ours for ours, theirs in _TOP.items()}
_LAYER_BACK = {theirs: ours for ours, theirs in _LAYER.items()}
_NAME = re.compile(r"layers\.([0-9]+)\.(.+)\.weight")
_NAME_BACK = re.compile(r"model\.layers\.([0-9]+)\.(.+)\.weight")


def to_huggingface(name: str) -> str | None:
    """Return Hugging Face's name of a parameter, or None if it has none.

    Args:
        name: Meta's name, such as ``layers.0.attention.wq.weight``.
    """
    layer = _NAME.fullmatch(name)
    if layer is None:
        return _TOP.get(name)
    part = _LAYER.get(layer[2])
    return f"model.layers.{layer[1]}.{part}.weight" if part else None


def to_meta(name: str) -> str | None:
    """Return Meta's name of a parameter, or None if it has none.

    Args:
        name: Hugging Face's name, such as ``model.layers.0.self_attn.q_proj.weight``; without
            ``model.`` as ``AutoModel`` saves, which is a model without its output layer.
    """
    if name not in _TOP_BACK and not name.startswith("model."):
        name = f"model.{name}"
    layer = _NAME_BACK.fullmatch(name)
    if layer is None:
        return _TOP_BACK.get(name)
    part = _LAYER_BACK.get(layer[2])
    return f"layers.{layer[1]}.{part}.weight" if part else None


def is_rotated(name: str) -> bool:
    """Say whether a parameter's rows are in another order: the query and key projections.

    Args:
        name: Meta's name.
    """
    layer = _NAME.fullmatch(name)
    return layer is not None and layer[2] in ("attention.wq", "attention.wk")
