"""Meta's names of parameters and GGUF's.

Rows of query and key projections are in the same order in both: GGML rotates neighbouring rows of a
head together, as Meta does. (Hugging Face pairs the halves of a head; llama.cpp's own converter
starts from there and permutes them back.)
"""

from __future__ import annotations

import re

ROPE_FREQS = "rope_freqs.weight"
"""What each rotary frequency is divided by: how GGUF holds the scaling of Llama 3.1 and later."""
_LAYER = {
    "attention_norm": "attn_norm",
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "ffn_norm": "ffn_norm",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
}
_OTHER = {"tok_embeddings": "token_embd", "norm": "output_norm", "output": "output"}
_TO_META = {theirs: ours for ours, theirs in _LAYER.items()}
_OTHER_TO_META = {theirs: ours for ours, theirs in _OTHER.items()}
_BLOCK = re.compile(r"blk\.(0|[1-9][0-9]{0,5})\.([a-z_]+)\.weight")


def to_gguf(name: str) -> str:
    """Return GGUF's name of a parameter of Meta's."""
    parts = name.removesuffix(".weight").split(".", 2)
    if parts[0] == "layers":
        return f"blk.{parts[1]}.{_LAYER[parts[2]]}.weight"
    return f"{_OTHER[parts[0]]}.weight"


def to_meta(name: str) -> str | None:
    """Return Meta's name of a tensor of GGUF's; None where Meta has none."""
    if (match := _BLOCK.fullmatch(name)) and match[2] in _TO_META:
        return f"layers.{match[1]}.{_TO_META[match[2]]}.weight"
    ours = _OTHER_TO_META.get(name.removesuffix(".weight"))
    return f"{ours}.weight" if ours and name.endswith(".weight") else None
