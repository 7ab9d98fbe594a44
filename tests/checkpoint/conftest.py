"""Small checkpoints for the tests of what reads them."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from lazy_torch import torch
from pth_files import save_pth

REFERENCE_CASES = Path(__file__).parents[1] / "data" / "reference-cases"
CUT_ON_ROWS = ("wq", "wk", "wv", "w1", "w3", "output")
CUT_ON_COLUMNS = ("wo", "w2")


@pytest.fixture
def mha_mp8():
    return REFERENCE_CASES / "mha-mp8"


@pytest.fixture
def gqa_mp1():
    return REFERENCE_CASES / "gqa-mp1"


@pytest.fixture
def params():
    """The params.json of a model with 4 heads, 2 of them key/value heads."""
    return {"dim": 16, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": -1} | {
        "multiple_of": 8,
        "norm_eps": 1e-5,
    }


@pytest.fixture
def weights(params):
    """Whole random weights for ``params``: vocabulary 24, hidden 48."""
    return random_weights(params, vocab=24, hidden=48)


@pytest.fixture
def write_meta():
    """Write shards and params.json; how they are cut is spelled out here, apart from llamakit."""

    def write(folder, params, weights, size=1, embedding_axis=1):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "params.json").write_text(json.dumps(params))
        for rank in range(size):
            shard = {
                name: cut(name, tensor, rank, size, params, embedding_axis)
                for name, tensor in weights.items()
            }
            save_pth(shard, folder / f"consolidated.{rank:02d}.pth")
        return folder

    return write


@pytest.fixture
def whole_reference():
    """Put a reference case's shards together with torch.load and torch.cat."""

    @cache
    def whole(folder):
        shards = [torch.load(path) for path in sorted(folder.glob("consolidated.*.pth"))]
        return {
            name: torch.cat([shard[name] for shard in shards], 0)
            if part(name) in CUT_ON_ROWS
            else torch.cat([shard[name] for shard in shards], 1)
            if part(name) in (*CUT_ON_COLUMNS, "tok_embeddings")
            else shards[0][name]
            for name in shards[0]
        }

    return whole


@pytest.fixture
def as_torch():
    """View an array as a tensor, with no warning about it."""

    def view(array):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if array.dtype == ml_dtypes.bfloat16:
                return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
            return torch.from_numpy(array)

    return view


def random_weights(params, vocab, hidden):
    generator = np.random.default_rng(0)
    dim = params["dim"]
    key_rows = params.get("n_kv_heads", params["n_heads"]) * dim // params["n_heads"]
    weights = {"tok_embeddings.weight": (vocab, dim)}
    weights |= {"norm.weight": (dim,), "output.weight": (vocab, dim)}
    for index in range(params["n_layers"]):
        layer = {"attention.wq": (dim, dim), "attention.wk": (key_rows, dim)}
        layer |= {"attention.wv": (key_rows, dim), "attention.wo": (dim, dim)}
        layer |= {"feed_forward.w1": (hidden, dim), "feed_forward.w2": (dim, hidden)}
        layer |= {"feed_forward.w3": (hidden, dim), "attention_norm": (dim,), "ffn_norm": (dim,)}
        weights |= {f"layers.{index}.{name}.weight": shape for name, shape in layer.items()}
    return {
        name: generator.standard_normal(shape).astype("float16") for name, shape in weights.items()
    }


def cut(name, tensor, rank, size, params, embedding_axis):
    if part(name) in ("wk", "wv") and size > params["n_kv_heads"]:
        heads = np.split(tensor, params["n_kv_heads"], 0)
        return heads[rank * params["n_kv_heads"] // size]
    if part(name) in CUT_ON_ROWS or (part(name) == "tok_embeddings" and embedding_axis == 0):
        return np.split(tensor, size, 0)[rank]
    if part(name) in CUT_ON_COLUMNS or part(name) == "tok_embeddings":
        return np.split(tensor, size, 1)[rank]
    return tensor


def part(name):
    return name.split(".")[-2]
