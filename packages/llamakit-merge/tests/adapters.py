"""Adapters of the small model, written as PEFT saves them; PEFT itself has merged them."""

import json

import numpy as np
from safetensors.numpy import save_file
from small_models import draw, shapes

PREFIX = "base_model.model."
ADAPTERS = {
    "patterns": {
        "r": 2,
        "lora_alpha": 3,
        "target_modules": ["q_proj", "k_proj", "down_proj"],
        "rank_pattern": {"k_proj": 1},
        "alpha_pattern": {"q_proj": 7, r"model.layers.[13].mlp.down_proj": 5},
        "fan_in_fan_out": True,
        "bias": "all",
    },
    "rslora": {
        "r": 4,
        "lora_alpha": 2,
        "use_rslora": True,
        "target_modules": ["v_proj", "lm_head"],
    },
    "dora": {
        "r": 2,
        "lora_alpha": 4,
        "use_dora": True,
        "target_modules": ["q_proj", "o_proj", "gate_proj"],
    },
    "embedding": {"r": 2, "lora_alpha": 4, "target_modules": ["embed_tokens", "up_proj"]},
    "embedding-dora": {
        "r": 2,
        "lora_alpha": 4,
        "use_dora": True,
        "target_modules": ["embed_tokens"],
    },
    "whole": {
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["k_proj"],
        "modules_to_save": ["lm_head", "input_layernorm", "layers.2.self_attn.q_proj"],
    },
}


def write_adapter(folder, kind, **changes):
    """Write an adapter's folder."""
    config = ADAPTERS[kind] | changes
    folder.mkdir(parents=True)
    save_file(tensors_of(config), folder / "adapter_model.safetensors", {"format": "pt"})
    values = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none"} | config
    (folder / "adapter_config.json").write_text(json.dumps(values), "utf-8")
    return folder


def tensors_of(config):
    """Draw the tensors of an adapter, by PEFT's names."""
    tensors = {}
    for index, (name, shape) in enumerate(shapes().items()):
        module = name.removesuffix(".weight")
        rng = np.random.default_rng([99, index])
        if any(module.endswith(end) for end in config.get("modules_to_save", ())):
            tensors[f"{PREFIX}{name}"] = draw(rng, shape, 0.1)
        elif module.rpartition(".")[2] in config["target_modules"]:
            tensors |= _factors(rng, module, shape, config)
    return {name: np.ascontiguousarray(it, np.float32) for name, it in tensors.items()}


def _factors(rng, module, shape, config):
    rank = config.get("rank_pattern", {}).get(module.rpartition(".")[2], config["r"])
    a, b = draw(rng, (rank, shape[1]), 0.1), draw(rng, (shape[0], rank), 0.1)
    is_embedding = module.endswith("embed_tokens")
    if is_embedding:
        factors = {"lora_embedding_A": b.T, "lora_embedding_B": a.T}
    else:
        factors = {"lora_A.weight": a, "lora_B.weight": b}
    if config.get("use_dora"):
        factors["lora_magnitude_vector"] = draw(rng, (shape[is_embedding],), 0.1) + 0.3
    return {f"{PREFIX}{module}.{name}": it for name, it in factors.items()}
