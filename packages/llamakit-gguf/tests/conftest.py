"""Checkpoints to export: the bundled demo model, and ones that are not on any disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import llamakit
from llamakit.demo import path
from llamakit.protocols import Parameter


class Changed:
    """The bundled demo model, with other numbers, parameters or values."""

    form = "changed"
    nbytes_read = 0

    def __init__(self, *, parameters=None, values=None, **numbers) -> None:
        base = llamakit.open_checkpoint(path())
        self.path = base.path
        self.params = dataclasses.replace(base.params, **numbers)
        self.parameters = base.parameters if parameters is None else parameters
        self._read = values or base.read

    def read(self, name, *, axis=0, start=0, stop=None):
        """Read the bundled demo model, or what replaces it."""
        return self._read(name, axis=axis, start=start, stop=stop)


def shapes(params) -> dict[str, tuple[int, ...]]:
    """Say what a model of these numbers consists of, spelled out for the tests."""
    dim, hidden, keys = params.dim, params.hidden_dim, params.n_kv_heads * params.head_dim
    found = {"tok_embeddings.weight": (params.vocab_size, dim)}
    for index in range(params.n_layers):
        found |= {
            f"layers.{index}.{name}.weight": shape
            for name, shape in {
                "attention_norm": (dim,),
                "attention.wq": (dim, dim),
                "attention.wk": (keys, dim),
                "attention.wv": (keys, dim),
                "attention.wo": (dim, dim),
                "ffn_norm": (dim,),
                "feed_forward.w1": (hidden, dim),
                "feed_forward.w2": (dim, hidden),
                "feed_forward.w3": (hidden, dim),
            }.items()
        }
    return found | {"norm.weight": (dim,), "output.weight": (params.vocab_size, dim)}


def made_of(value: float, dtype: str = "float32", **numbers) -> Changed:
    """Return a checkpoint of any size, all of whose values are one."""
    checkpoint = Changed(**numbers)
    checkpoint.parameters = {
        name: Parameter(name, shape, dtype, None)
        for name, shape in shapes(checkpoint.params).items()
    }

    def read(name, *, axis, start, stop):
        shape = list(checkpoint.parameters[name].shape)
        shape[axis] = (shape[axis] if stop is None else stop) - start
        return np.full(shape, value, dtype)

    checkpoint._read = read
    return checkpoint


@pytest.fixture(scope="session")
def base():
    return llamakit.open_checkpoint(path())


@pytest.fixture
def export(tmp_path):
    """Export a checkpoint as users do; return the file."""

    def run(checkpoint, **options) -> Path:
        llamakit.export(checkpoint, tmp_path / "made", "gguf", force=True, **options)
        (file,) = (tmp_path / "made").glob("*.gguf")
        return file

    return run
