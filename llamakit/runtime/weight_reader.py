"""Reads the weights of one rank, as they are stored or rounded for its kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from llamakit.checkpoint.layout import EMBEDDING, OUTPUT, layer_shapes
from llamakit.checkpoint.llama4 import architecture_of
from llamakit.checkpoint.params import ModelParams
from llamakit.checkpoint.rounding import fits_int4, kinds_of
from llamakit.checkpoint.shard_plan import Slice, slice_for_rank
from llamakit.protocols import Checkpoint, Parameter, Quantization
from llamakit.runtime.kernels.choice import Packer
from llamakit.runtime.kernels.rounded import Rounded, Weight, to_int8
from llamakit.runtime.stored_weights import (
    as_output,
    read_ahead,
    read_rounded,
    read_slice,
    round_groups,
    round_slice,
    takes_stored,
    to_torch,
)

Weights = dict[str, Any]
"""By the name within a layer: a ``Weight``, or the tensor of a norm."""


@dataclass(frozen=True)
class WeightReader:
    """Reads what one rank holds of each weight.

    Args:
        rank: which slice, of ``size``.
        quantize: what the user asks for; None is what the checkpoint was made for.
        kinds: how a weight is rounded, by its name; one that is not named is left to the packer.
    """

    checkpoint: Checkpoint
    rank: int
    size: int
    quantize: str | None
    kinds: Mapping[str, Quantization]

    @property
    def params(self) -> ModelParams:
        """The model's."""
        return self.checkpoint.params

    @property
    def embedding(self) -> Parameter:
        """Which parameter the embeddings are."""
        return self.checkpoint.parameters[EMBEDDING]

    def slice_of(self, parameter: Parameter) -> Slice:
        """Return which part of a parameter this rank holds."""
        return slice_for_rank(parameter, self.params, self.rank, self.size)

    def first_row(self) -> int | None:
        """Return the token of the first row of an embedding that is split by vocabulary."""
        return self.slice_of(self.embedding).start if self.embedding.axis == 0 else None

    def tensor(self, name: str, parameter: Parameter | None = None) -> torch.Tensor:
        """Read the values as they are.

        Args:
            parameter: says how they are split; None: as they are stored.
        """
        where = self.slice_of(parameter or self.checkpoint.parameters[name])
        array = read_slice(self.checkpoint, name, where)
        read_ahead(array)
        return to_torch(array)

    def weight(self, name: str) -> Weight:
        """Read a weight; what the packer could not round by this rank's slice alone is rounded."""
        parameter = self.checkpoint.parameters.get(name) or as_output(self.embedding)
        where = self.slice_of(parameter)
        if takes_stored(self.checkpoint, name, self.quantize):
            return read_rounded(self.checkpoint, parameter, where)
        kind = self.kinds.get(name)
        if kind == "int8" and where.axis == 1 and self.size > 1:
            return round_slice(self.checkpoint, parameter, where)
        if kind == "int8" and self.quantize == "int4" and name != OUTPUT:
            return Rounded("int8", *to_int8(self.tensor(name)))
        if kind == "int4" and not fits_int4(name.split(".", 2)[2], self.params, self.size):
            return round_groups(self.checkpoint, parameter, where)
        return self.tensor(name)

    def output(self, embeddings: torch.Tensor) -> Weight:
        """Read the weight of the output layer.

        Args:
            embeddings: this rank's, which it is where they are tied and split alike.
        """
        if not self.params.tied_embeddings or takes_stored(self.checkpoint, OUTPUT, self.quantize):
            return self.weight(OUTPUT)
        if self.size == 1 or self.embedding.axis == 0:
            return embeddings
        # This rank's rows of what it has its columns of.
        return self.tensor(EMBEDDING, as_output(self.embedding))

    def layer(self, number: int) -> Weights:
        """Map the weights of a layer, and start reading them."""
        names = layer_shapes(self.params, number)
        return {name: self.weight(f"layers.{number}.{name}") for name in names}


def kinds_for(params: ModelParams, packer: Packer) -> dict[str, Quantization]:
    """Say how each weight is rounded; nothing where the packer decides by what a rank holds.

    It does for Llama 4, whose experts are stored transposed, and in 4 bits on a GPU, whose
    operators take other shapes than a CPU's.
    """
    match packer.quantize:
        case "int4" if packer.device.type != "cpu":
            return {}
        case "int8" | "int4" if architecture_of(params) is None:
            return kinds_of(params, packer.quantize)
    return {}
