"""Random checkpoints in Meta's format, split by numpy and saved by torch if there is torch."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from pth_files import save_pth

from llamakit.plugin_manager.entry_points import EntryPoint
from llamakit.plugin_manager.toolkit import default_toolkit

ROWS = ("wq", "wk", "wv", "w1", "w3", "output")
COLUMNS = ("wo", "w2")


@pytest.fixture(scope="session")
def make_meta():
    return write_meta


@pytest.fixture
def install_plugin(tmp_path, monkeypatch):
    """Install a plugin named mill, of this source; the toolkit that is made afterwards has it."""

    def install(source):
        (tmp_path / "llamakit_mill.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        default_toolkit.cache_clear()
        default_toolkit().load([EntryPoint("mill", "llamakit_mill", "", "llamakit-mill", "0.1")])

    yield install
    default_toolkit.cache_clear()
    sys.modules.pop("llamakit_mill", None)


@pytest.fixture(scope="session")
def tensor_bytes():
    """Every parameter of a checkpoint, as bytes."""

    def read(checkpoint):
        return {name: checkpoint.read(name).tobytes() for name in checkpoint.parameters}

    return read


@pytest.fixture(scope="session")
def big_meta(tmp_path_factory):
    """A checkpoint of 8 shards and some 100 MB, so that converting it takes a moment."""
    folder = tmp_path_factory.mktemp("big") / "big"
    params = {"dim": 512, "n_layers": 12, "n_heads": 8, "vocab_size": 8000, "multiple_of": 256}
    return write_meta(folder, params | {"norm_eps": 1e-5}, 8)


def write_meta(folder, params, size, *, axis=1, dtype="float16", seed=0, freqs=False):
    """Write random shards and params.json; how they are cut is spelled out here, by numpy."""
    folder.mkdir(parents=True)
    (folder / "params.json").write_text(json.dumps(params))
    weights = random_weights(params, dtype, seed)
    for rank in range(size):
        shard = {name: cut(name, it, rank, size, params, axis) for name, it in weights.items()}
        if freqs:
            shard["rope.freqs"] = np.arange(4, dtype="float32")
        save_pth(shard, folder / f"consolidated.{rank:02d}.pth")
    return folder


def random_weights(params, dtype, seed):
    generator = np.random.default_rng(seed)
    dim, vocab = params["dim"], params["vocab_size"]
    multiple_of = params["multiple_of"]
    hidden = -(-int(8 * dim / 3) // multiple_of) * multiple_of
    keys = params.get("n_kv_heads", params["n_heads"]) * (dim // params["n_heads"])
    layer = {"attention.wq": (dim, dim), "attention.wk": (keys, dim), "attention.wv": (keys, dim)}
    layer |= {"attention.wo": (dim, dim), "feed_forward.w1": (hidden, dim)}
    layer |= {"feed_forward.w2": (dim, hidden), "feed_forward.w3": (hidden, dim)}
    layer |= {"attention_norm": (dim,), "ffn_norm": (dim,)}
    shapes = {"tok_embeddings": (vocab, dim), "norm": (dim,), "output": (vocab, dim)}
    for index in range(params["n_layers"]):
        shapes |= {f"layers.{index}.{name}": shape for name, shape in layer.items()}
    return {
        f"{name}.weight": generator.standard_normal(shape, dtype="float32").astype(dtype)
        for name, shape in shapes.items()
    }


def cut(name, tensor, rank, size, params, axis):
    part = name.split(".")[-2]
    heads = params.get("n_kv_heads", params["n_heads"])
    if part in ("wk", "wv") and size > heads:
        return np.split(tensor, heads, 0)[rank * heads // size]
    if part in ROWS or (part == "tok_embeddings" and axis == 0):
        return np.split(tensor, size, 0)[rank]
    if part in COLUMNS or part == "tok_embeddings":
        return np.split(tensor, size, 1)[rank]
    return tensor
