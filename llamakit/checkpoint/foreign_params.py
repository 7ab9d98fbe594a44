"""Recognizes a params.json with the keys of another tool's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llamakit.errors import UnsupportedModelError
from llamakit.printable import printable

_NANO_GPT = {"n_embd": "dim", "n_layer": "n_layers", "n_head": "n_heads"}
_TOOLS: Mapping[str, Mapping[str, str]] = {
    "Hugging Face's config.json": {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "num_key_value_heads": "n_kv_heads",
        "rms_norm_eps": "norm_eps",
    },
    "llama.cpp": {
        "llama.embedding_length": "dim",
        "llama.block_count": "n_layers",
        "llama.attention.head_count": "n_heads",
        "llama.attention.head_count_kv": "n_kv_heads",
        "llama.attention.layer_norm_rms_epsilon": "norm_eps",
        "llama.rope.freq_base": "rope_theta",
        "n_vocab": "vocab_size",
        "n_head_kv": "n_kv_heads",
        "n_mult": "multiple_of",
        **_NANO_GPT,
    },
    "lit-gpt": {
        **_NANO_GPT,
        "n_query_groups": "n_kv_heads",
        "padded_vocab_size": "vocab_size",
        "rope_base": "rope_theta",
    },
    "torchtune": {
        "embed_dim": "dim",
        "num_layers": "n_layers",
        "num_heads": "n_heads",
        "num_kv_heads": "n_kv_heads",
        "rope_base": "rope_theta",
    },
    "gpt-fast": {
        "n_layer": "n_layers",
        "n_head": "n_heads",
        "n_local_heads": "n_kv_heads",
        "rope_base": "rope_theta",
    },
    "nanoGPT": _NANO_GPT,
}
"""By tool: its keys, and what Meta calls the same number."""
_MISTRALS = ("sliding_window", "_sliding_window", "moe", "yarn", "quantization", "vision_encoder")
"""Keys of Mistral's params.json that say that a model computes something no Llama does."""
_NEEDED = ("dim", "n_layers", "n_heads")


def describe_foreign_keys(values: Mapping[str, object]) -> str:
    """Say whose keys a params.json has and what Meta calls them; "" if they are Meta's.

    Returns:
        Two sentences, such as ``has the keys of nanoGPT. Rename 'n_embd' to 'dim' …``.
    """
    if all(key in values for key in _NEEDED):
        return ""
    known = {
        tool: [key for key, ours in keys.items() if key in values and ours not in values]
        for tool, keys in _TOOLS.items()
    }
    # The tool of which the most keys are there; of several, the one with the fewest others.
    tool = max(known, key=lambda it: (len(known[it]), -len(_TOOLS[it])))
    if not known[tool]:
        return ""
    renamed = ", ".join(f"{printable(key)!r} to {_TOOLS[tool][key]!r}" for key in known[tool])
    if tool.startswith("Hugging Face"):
        return (
            f"has the keys of {tool}. If the weights are Hugging Face's too, rename the file to "
            f"config.json; if they are Meta's, rename {renamed}."
        )
    return f"has the keys of {tool}. Rename {renamed}, and add what Meta's file has besides."


def check_is_llama(values: Mapping[str, object], head_dim: int, path: Path) -> None:
    """Refuse the params.json of a Mistral that computes something that no Llama does.

    Args:
        values: the JSON object.
        head_dim: what the width and the number of heads give.
        path: the file that it is from, for messages.

    Raises:
        UnsupportedModelError: it does; the key is named.
    """
    odd = next((key for key in _MISTRALS if values.get(key) is not None), None)
    if odd is None and values.get("head_dim") in (None, head_dim):
        return
    expected = f"{head_dim}, the width over the heads" if odd is None else "none"
    key = odd or "head_dim"
    raise UnsupportedModelError(
        f"{path}: {key!r} is {printable(str(values[key]), 60)}; expected {expected}. Of Mistral's "
        "models only those that compute as a Llama does can be read, such as Mistral 7B v0.3."
    )
