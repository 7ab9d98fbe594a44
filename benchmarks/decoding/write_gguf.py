"""Writes raw bfloat16 weights in Meta's order as GGUF; runs where the package gguf is.

    python write_gguf.py RAW OUT FORM < about.json

Source: llama.cpp's ``convert_hf_to_gguf.py`` for the names; its rotary embedding pairs neighbours
as Meta's does, so no row moves.
"""

from __future__ import annotations

import json
import sys

import gguf
import numpy as np

NAMES = {
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
    "attention_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
}
TOP = {"tok_embeddings": "token_embd", "norm": "output_norm", "output": "output"}


def main(raw: str, out: str, form: str) -> None:
    about = json.load(sys.stdin)
    params = about["params"]
    kind = getattr(gguf.GGMLQuantizationType, form.upper())
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(params["dim"])
    writer.add_block_count(params["n_layers"])
    writer.add_feed_forward_length(about["hidden_dim"])
    writer.add_head_count(params["n_heads"])
    writer.add_head_count_kv(params["n_kv_heads"])
    writer.add_layer_norm_rms_eps(params["norm_eps"])
    writer.add_rope_dimension_count(params["dim"] // params["n_heads"])
    writer.add_vocab_size(params["vocab_size"])
    add_vocabulary(writer, params["vocab_size"])
    for name, where in about["index"].items():
        bits = np.fromfile(raw, np.uint16, int(np.prod(where["shape"])), offset=where["offset"])
        values = (bits.astype(np.uint32) << 16).view(np.float32).reshape(where["shape"])
        vector = values.ndim == 1
        stored = gguf.GGMLQuantizationType.F32 if vector else kind
        data = values if vector else gguf.quants.quantize(values, stored)
        writer.add_tensor(renamed(name), data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_vocabulary(writer: gguf.GGUFWriter, size: int) -> None:
    """Tokens are all that is measured; llama.cpp wants pieces nevertheless."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [2, 3, 3, *[6] * 256]
    more = range(len(pieces), size)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*pieces, *(f"piece{number}" for number in more)])
    writer.add_token_scores([0.0] * len(pieces) + [-float(number) for number in more])
    writer.add_token_types(kinds + [1] * len(more))


def renamed(name: str) -> str:
    parts = name.removesuffix(".weight").split(".", 2)
    if parts[0] != "layers":
        return f"{TOP[parts[0]]}.weight"
    return f"blk.{parts[1]}.{NAMES[parts[2]]}.weight"


if __name__ == "__main__":
    main(*sys.argv[1:])
