"""A random checkpoint in Meta's format, and the same weights as Hugging Face folder and GGUF."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np

import llamakit
from llamakit.checkpoint.file_layout import TensorSpec
from llamakit.checkpoint.layout import EMBEDDING, OUTPUT, expected_parameters
from llamakit.checkpoint.params import parse_params
from llamakit.checkpoint.pth_writer import PthLayout

SHAPES = {
    "7b": {"dim": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "vocab_size": 32000},
    "1.1b": {"dim": 2048, "n_layers": 22, "n_heads": 32, "n_kv_heads": 8, "vocab_size": 32000},
    "3.2-1b": {"dim": 2048, "n_layers": 16, "n_heads": 32, "n_kv_heads": 8, "vocab_size": 128256}
    | {"ffn_dim_multiplier": 1.5, "rope_theta": 500000.0, "use_scaled_rope": True},
    "tiny": {"dim": 256, "n_layers": 2, "n_heads": 8, "n_kv_heads": 4, "vocab_size": 512},
}

GGUF = Path(__file__).with_name("write_gguf.py")


def make_checkpoint(folder: Path, shape: str) -> Path:
    """Write one random bfloat16 shard, unless it is there already."""
    path = folder / "consolidated.00.pth"
    if path.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    values = SHAPES[shape] | {"multiple_of": 256, "norm_eps": 1e-5}
    (folder / "params.json").write_text(json.dumps(values))
    params = parse_params(values, folder / "params.json")
    # Llama 3.2's output layer is its embedding.
    params = replace(params, tied_embeddings=params.use_scaled_rope)
    parameters = expected_parameters(params, 1, "bfloat16")
    tensors = [TensorSpec(it.name, "bfloat16", it.shape) for it in parameters.values()]
    rng = np.random.default_rng(0)
    layout = PthLayout(path.stem, tensors)
    crcs = []
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(layout.head)
        for index, tensor in enumerate(tensors):
            file.write(layout.before(index))
            data = random_values(tensor, rng, tied=params.tied_embeddings).view(np.uint8)
            crcs.append(zlib.crc32(data))
            file.write(data)
            file.write(layout.after(index, crcs[-1]))
        file.write(layout.tail(crcs))
    partial.rename(path)
    return folder


def random_values(tensor: TensorSpec, rng: np.random.Generator, *, tied: bool) -> np.ndarray:
    """Draw weights as a model begins with; the output layer larger, so that tokens stand apart."""
    if "norm" in tensor.name:
        return np.ones(tensor.shape, ml_dtypes.bfloat16).reshape(-1)
    size = 0.2 if tensor.name == (EMBEDDING if tied else OUTPUT) else 0.02
    values = rng.standard_normal(tensor.shape, np.float32) * np.float32(size)
    return values.astype(ml_dtypes.bfloat16).reshape(-1)


def make_huggingface(checkpoint: Path, folder: Path) -> Path:
    """Export the checkpoint for transformers, unless it is there already."""
    if not folder.exists():
        llamakit.export(checkpoint, folder, "hf")
    return folder


def make_gguf(checkpoint: Path, path: Path, form: str, python: str) -> Path:
    """Write the checkpoint as GGUF in ``bf16``, ``f16``, ``q8_0`` or ``q4_0``, unless it is there.

    Args:
        python: an interpreter that has the package gguf.
    """
    if path.exists():
        return path
    raw = path.with_suffix(".raw")
    opened = llamakit.open_checkpoint(checkpoint)
    index = {}
    with raw.open("wb") as file:
        for name, parameter in opened.parameters.items():
            index[name] = {"offset": file.tell(), "shape": parameter.shape}
            opened.read(name).view(np.uint16).tofile(file)
    about = {"params": json.loads((checkpoint / "params.json").read_text()), "index": index}
    about["hidden_dim"] = opened.params.hidden_dim
    arguments = [str(raw), str(path), form]
    subprocess.run([python, str(GGUF), *arguments], input=json.dumps(about), text=True, check=True)
    raw.unlink()
    return path


def tokens(count: int, vocab_size: int, seed: int = 0) -> list[int]:
    """Draw tokens of a prompt."""
    return np.random.default_rng(seed).integers(300, vocab_size, count).tolist()


if __name__ == "__main__":
    make_checkpoint(Path(sys.argv[1]), sys.argv[2])
