"""Copies of real checkpoints to damage, and small random ones, cut apart from llamakit."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
from lazy_torch import torch
from pth_files import save_pth

REFERENCE_CASES = Path(__file__).parents[1] / "data" / "reference-cases"
PAGE = b"<!DOCTYPE html><html><head><title>403 Forbidden</title></head><body></body></html>"
AXES = {"wq": 0, "wk": 0, "wv": 0, "w1": 0, "w3": 0, "output": 0} | {
    "wo": 1,
    "w2": 1,
    "tok_embeddings": 1,
}
PARAMS = {"dim": 16, "n_layers": 2, "n_heads": 4, "n_kv_heads": 4, "vocab_size": 24} | {
    "multiple_of": 8,
    "norm_eps": 1e-5,
}


def copy_case(root, name="mha-mp8", checklist=True):
    """Copy a reference case and its tokenizer into a root; return the model's folder."""
    root.mkdir(parents=True, exist_ok=True)
    for file in ("tokenizer.model", "tokenizer_checklist.chk"):
        shutil.copy(REFERENCE_CASES / file, root / file)
    shutil.copytree(REFERENCE_CASES / name, root / name)
    if not checklist:
        (root / name / "checklist.chk").unlink()
    return root / name


def random_model(seed=0, params=PARAMS, hidden=48):
    generator = np.random.default_rng(seed)
    dim, vocab = params["dim"], params["vocab_size"]
    shapes = {"tok_embeddings.weight": (vocab, dim)}
    for index in range(params["n_layers"]):
        layer = {f"attention.{it}": (dim, dim) for it in ("wq", "wk", "wv", "wo")}
        layer |= {"feed_forward.w1": (hidden, dim), "feed_forward.w2": (dim, hidden)}
        layer |= {"feed_forward.w3": (hidden, dim), "attention_norm": (dim,), "ffn_norm": (dim,)}
        shapes |= {f"layers.{index}.{name}.weight": shape for name, shape in layer.items()}
    shapes |= {"norm.weight": (dim,), "output.weight": (vocab, dim)}
    return {
        name: generator.standard_normal(shape).astype("float16") for name, shape in shapes.items()
    }


def write_model(folder, weights, size=1, params=PARAMS, order=None):
    """Cut whole weights into shards and save them, with params.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.json").write_text(json.dumps(params))
    names = order or list(weights)
    for rank in range(size):
        shard = {}
        for name in names:
            axis = AXES.get(name.split(".")[-2])
            whole = weights[name]
            part = whole if axis is None else np.split(whole, size, axis)[rank]
            shard[name] = part
        save_pth(shard, folder / f"consolidated.{rank:02d}.pth")
    return folder


def change_shard(path, change):
    """Load a shard, change its tensors in place, and save it again."""
    tensors = torch.load(path, weights_only=True)
    change(tensors)
    torch.save(tensors, path)


def write_checklist(folder):
    """Write a fresh list for all files of a folder."""
    lines = [
        f"{hashlib.md5(file.read_bytes()).hexdigest()}  {file.name}\n"
        for file in sorted(folder.iterdir())
        if file.suffix != ".chk"
    ]
    (folder / "checklist.chk").write_text("".join(lines))
