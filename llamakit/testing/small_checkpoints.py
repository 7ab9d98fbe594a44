"""Small checkpoints for tests: the demo model's tokenizer, random weights, any number of shards."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamakit import demo
from llamakit.checkpoint.layout import expected_parameters
from llamakit.checkpoint.params import ModelParams, hidden_dim
from llamakit.protocols import Parameter, Tokenizer

if TYPE_CHECKING:
    import numpy


@functools.cache
def embedded_tokenizer() -> Tokenizer:
    """Load the tokenizer of the bundled demo model."""
    from llamakit.plugin_manager.toolkit import default_toolkit

    return default_toolkit().load_tokenizer(demo.path().parent / "tokenizer.model")


def write_checkpoint(folder: str | Path, shards: int = 1, *, seed: int = 0) -> Path:
    """Write a random checkpoint of Llama 2's shape: 2 layers, 8 heads, float32, under 1 MB.

    The same seed gives the same weights, whatever the number of shards. Its vocabulary is the
    bundled demo model's, whose tokenizer is written next to the weights.

    Args:
        folder: what to make; nothing may be there.
        shards: 1, 2, 4 or 8.
        seed: of the weights.
    Returns:
        ``folder``.
    """
    from llamakit.api import reshard

    folder = Path(folder)
    reshard(_Random(seed), folder, shards)
    return folder


class _Random:
    """A checkpoint on no disk: what ``read`` returns is made from the seed and the name."""

    form = "random"
    nbytes_read = 0

    def __init__(self, seed: int) -> None:
        self.path = demo.path()  # its tokenizer is taken along
        self.params = ModelParams(
            dim=32,
            n_layers=2,
            n_heads=8,
            n_kv_heads=8,
            vocab_size=embedded_tokenizer().vocab_size,
            hidden_dim=hidden_dim(32, 32),
            multiple_of=32,
        )
        self.parameters: Mapping[str, Parameter] = expected_parameters(self.params, 1, "float32")
        self._seed = seed

    def read(
        self, name: str, *, axis: int = 0, start: int = 0, stop: int | None = None
    ) -> numpy.ndarray[Any, Any]:
        import numpy as np

        shape = self.parameters[name].shape
        source = np.random.default_rng([self._seed, *name.encode()])
        values = source.normal(size=shape, scale=0.2).astype(np.float32)
        if len(shape) == 1:  # a norm's
            values += 1
        picked: list[slice] = [slice(None)] * len(shape)
        picked[axis] = slice(start, stop)
        return np.ascontiguousarray(values[tuple(picked)])
