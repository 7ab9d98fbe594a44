"""The tensors of an adapter by what they are, under Meta's names: PEFT's file and torchtune's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from llamakit import LlamakitError
from llamakit.checkpoint.hf_names import is_rotated, to_meta
from llamakit.checkpoint.rope_permutation import huggingface_rows
from llamakit.checkpoint.shards import open_shard
from llamakit.checkpoint.tensor_file import TensorFile
from llamakit.checkpoint.tensor_names import from_torchtune
from llamakit.printable import printable
from llamakit_merge.rounding import MERGE_DTYPES, Array

_PEFT = re.compile(
    r"base_model\.model\.(.+?)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B"
    r"|lora_magnitude_vector|base_layer|modules_to_save)?(?:\.default)?(?:\.?(weight))?"
)
_TORCHTUNE = re.compile(r"(.+)\.(lora_a|lora_b|magnitude)(?:\.weight)?")
_KINDS = {
    "lora_A": "right",
    "lora_B": "left",
    "lora_embedding_A": "left",
    "lora_embedding_B": "right",
    "lora_magnitude_vector": "magnitude",
    "base_layer": "base",
    "modules_to_save": "whole",
    "lora_a": "right",
    "lora_b": "left",
    "magnitude": "magnitude",
}


@dataclass(frozen=True)
class Matrix:
    """A tensor of an adapter, read row by row as Meta has them."""

    file: TensorFile
    name: str
    is_transposed: bool = False
    head_dim: int | None = None
    """Rows in a head, where they are in Hugging Face's order."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, in Meta's orientation."""
        shape = self.file.tensors[self.name].shape
        return shape[::-1] if self.is_transposed else shape

    def rows(self, start: int, stop: int) -> Array:
        """Return rows ``start:stop`` in float32."""
        if self.is_transposed:
            values = self.file.read(self.name, axis=1, start=start, stop=stop).T
        elif self.head_dim is None:
            values = self.file.read(self.name, start=start, stop=stop)
        else:
            values = self.file.array(self.name)[huggingface_rows(start, stop, self.head_dim)]
        floats: Array = values.astype(np.float32)
        return floats

    def all(self) -> Array:
        """Return all rows in float32."""
        return self.rows(0, self.shape[0])


@dataclass
class ModuleTensors:
    """The tensors of one module. ``left @ right`` is what LoRA adds."""

    module: str
    """As PEFT or torchtune call it."""
    tensors: dict[str, Matrix] = field(default_factory=dict)
    """``left`` ``(rows, rank)``, ``right`` ``(rank, columns)``, ``magnitude``, ``base``, ``whole``.

    ``base`` is what the model had before, saved along."""


def read_tensors(path: Path, head_dim: int) -> Mapping[str, ModuleTensors]:
    """Read the index of an adapter's weights; nothing in it is unpickled.

    Args:
        path: the file.
        head_dim: rows in one head of the model.
    Returns:
        The tensors of each parameter that the adapter changes, by Meta's name.

    Raises:
        CheckpointError: it is damaged, or something else.
        LlamakitError: it holds something that is not merged.
    """
    file = open_shard(path)
    modules: dict[str, ModuleTensors] = {}
    for theirs, tensor in file.tensors.items():
        found = _placed(theirs)
        if found is None:
            raise LlamakitError(f"{path}: {printable(theirs)!r} {_reason(theirs)}")
        if tensor.dtype not in MERGE_DTYPES:
            raise LlamakitError(
                f"{path}: {printable(theirs)!r} is {tensor.dtype}; expected one of "
                f"{', '.join(MERGE_DTYPES)}."
            )
        name, module, kind = found
        is_theirs = theirs.startswith("base_model.")
        turned = is_theirs and is_rotated(name) and kind != "right"
        matrix = Matrix(
            file,
            theirs,
            is_transposed="lora_embedding" in theirs,
            head_dim=head_dim if turned and not (tensor.shape or (1,))[0] % head_dim else None,
        )
        modules.setdefault(name, ModuleTensors(module)).tensors[kind] = matrix
    return modules


def _placed(theirs: str) -> tuple[str, str, str] | None:
    """Return Meta's name of the parameter, the module, and which of its tensors it is."""
    peft = _PEFT.fullmatch(theirs)
    if peft is not None:
        name = to_meta(f"{peft[1]}.weight")
        kind = _KINDS[peft[2]] if peft[2] else "whole"
        return (name, peft[1], kind) if name and (peft[2] or peft[3]) else None
    tune = _TORCHTUNE.fullmatch(theirs)
    name = from_torchtune(f"{tune[1]}.weight") if tune else None
    return (name, tune[1], _KINDS[tune[2]]) if tune and name else None


def _reason(theirs: str) -> str:
    if theirs.endswith("bias"):
        return "is a bias, and Meta's format has none: this adapter cannot be merged."
    return (
        "is no tensor of a LoRA of a Llama's layers, embedding or output. Merge this adapter with "
        "PEFT's merge_and_unload, and import the result."
    )
