"""Small models in Hugging Face's format, made of integers that numpy draws alike everywhere."""

import json

import ml_dtypes  # noqa: F401 - makes numpy know bfloat16
import numpy as np
from safetensors.numpy import save_file

DIM, HEADS, KV_HEADS, HIDDEN, VOCAB, LAYERS = 32, 4, 2, 48, 80, 4


def shapes(layers=LAYERS, vocab=VOCAB):
    found = {"model.embed_tokens.weight": (vocab, DIM)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        found |= {
            f"{prefix}.self_attn.q_proj.weight": (DIM, DIM),
            f"{prefix}.self_attn.k_proj.weight": (DIM * KV_HEADS // HEADS, DIM),
            f"{prefix}.self_attn.v_proj.weight": (DIM * KV_HEADS // HEADS, DIM),
            f"{prefix}.self_attn.o_proj.weight": (DIM, DIM),
            f"{prefix}.mlp.gate_proj.weight": (HIDDEN, DIM),
            f"{prefix}.mlp.up_proj.weight": (HIDDEN, DIM),
            f"{prefix}.mlp.down_proj.weight": (DIM, HIDDEN),
            f"{prefix}.input_layernorm.weight": (DIM,),
            f"{prefix}.post_attention_layernorm.weight": (DIM,),
        }
    return found | {"model.norm.weight": (DIM,), "lm_head.weight": (vocab, DIM)}


def draw(rng, shape, scale):
    """Draw a sum of four uniform integers: no library's logarithm is in it."""
    whole = sum(rng.integers(-(2**20), 2**20, shape, dtype=np.int64) for _ in range(4))
    return whole / 2**20 * scale


def huggingface_rows(checkpoint, name):
    """Return a parameter with its rows in Hugging Face's order."""
    values = checkpoint.read(name)
    if name.endswith(("wq.weight", "wk.weight")):
        head = checkpoint.params.head_dim
        pairs = values.reshape(-1, head // 2, 2, values.shape[-1])  # (H, D/2, 2, dim)
        values = pairs.swapaxes(1, 2).reshape(values.shape)
    return values


def check_described(values, expected, **rounding):
    """Compare a tensor with what a script noted of the peer's."""
    found = values.astype(np.float64).ravel()
    places = np.linspace(0, len(found) - 1, len(expected["samples"])).astype(int)
    assert (str(values.dtype), list(values.shape)) == (expected["dtype"], expected["shape"])
    np.testing.assert_allclose(found[places], expected["samples"], **rounding)
    np.testing.assert_allclose(np.abs(found).sum(), expected["sum"], rtol=1e-4)


def write_model(folder, seed, *, dtype="float32", layers=LAYERS, vocab=VOCAB, tied=False, **config):
    """Write a model: the values of seed 0, and where the seed is another, noise added to them."""
    tensors = {}
    for index, (name, shape) in enumerate(shapes(layers, vocab).items()):
        values = draw(np.random.default_rng(index), shape, 0.05) + (len(shape) == 1)
        if seed:
            values += draw(np.random.default_rng([seed, index]), shape, 0.02)
        if not (tied and name == "lm_head.weight"):
            tensors[name] = values.astype(np.float32).astype(dtype)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    numbers = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": DIM,
        "intermediate_size": HIDDEN,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "num_hidden_layers": layers,
        "vocab_size": vocab,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 64,
        "tie_word_embeddings": tied,
        "torch_dtype": dtype,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(numbers | config), "utf-8")
    return folder
