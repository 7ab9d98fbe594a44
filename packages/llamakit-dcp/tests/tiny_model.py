"""A model of a few kilobytes, whose every value says which parameter it is of and where."""

import zlib

import torch

PARAMS = {"dim": 16, "n_layers": 1, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 22}
PARAMS |= {"multiple_of": 8, "norm_eps": 1e-5}
DIM, KV, HIDDEN, VOCAB = 16, 8, 48, 22
_LAYER = {
    "attention.wq.weight": (DIM, DIM),
    "attention.wk.weight": (KV, DIM),
    "attention.wv.weight": (KV, DIM),
    "attention.wo.weight": (DIM, DIM),
    "feed_forward.w1.weight": (HIDDEN, DIM),
    "feed_forward.w2.weight": (DIM, HIDDEN),
    "feed_forward.w3.weight": (HIDDEN, DIM),
    "attention_norm.weight": (DIM,),
    "ffn_norm.weight": (DIM,),
}
SHAPES = {
    "tok_embeddings.weight": (VOCAB, DIM),
    **{f"layers.0.{name}": shape for name, shape in _LAYER.items()},
    "norm.weight": (DIM,),
    "output.weight": (VOCAB, DIM),
}
_HF = {
    "tok_embeddings.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "layers.0.attention.wq.weight": "model.layers.0.self_attn.q_proj.weight",
    "layers.0.attention.wk.weight": "model.layers.0.self_attn.k_proj.weight",
    "layers.0.attention.wv.weight": "model.layers.0.self_attn.v_proj.weight",
    "layers.0.attention.wo.weight": "model.layers.0.self_attn.o_proj.weight",
    "layers.0.feed_forward.w1.weight": "model.layers.0.mlp.gate_proj.weight",
    "layers.0.feed_forward.w2.weight": "model.layers.0.mlp.down_proj.weight",
    "layers.0.feed_forward.w3.weight": "model.layers.0.mlp.up_proj.weight",
    "layers.0.attention_norm.weight": "model.layers.0.input_layernorm.weight",
    "layers.0.ffn_norm.weight": "model.layers.0.post_attention_layernorm.weight",
}


def weights(dtype=torch.float32):
    """Return the parameters by Meta's names, which are torchtitan's too."""
    return {
        name: (torch.arange(torch.Size(shape).numel()) + zlib.crc32(name.encode()) % 9000)
        .to(dtype)
        .reshape(shape)
        for name, shape in SHAPES.items()
    }


def huggingface_weights(dtype=torch.float32):
    """Return the same with Hugging Face's names, and its order of rows in queries and keys."""
    return {_HF[name]: _permuted(name, value) for name, value in weights(dtype).items()}


def _permuted(name, value):
    """Source: ``convert_llama_weights_to_hf.py`` of transformers, ``permute``."""
    if ".wq." not in name and ".wk." not in name:
        return value
    heads = value.shape[0] // 4
    return value.view(heads, 2, 2, DIM).transpose(1, 2).reshape(value.shape).contiguous()
