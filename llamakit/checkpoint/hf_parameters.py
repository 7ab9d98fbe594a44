"""The parameters of a Hugging Face folder, read as Meta's."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from llamakit.checkpoint.dtypes import Array
from llamakit.checkpoint.hf_names import is_rotated
from llamakit.checkpoint.layout import axis_of, expected_shapes
from llamakit.checkpoint.params import ModelParams, family_by_numbers
from llamakit.checkpoint.rope_permutation import huggingface_rows
from llamakit.checkpoint.tensor_file import StoredTensor, TensorFile
from llamakit.protocols import Parameter, RawRegion, RowOrder

Sources = Mapping[str, tuple[TensorFile, str]]
"""By Meta's name: the file, and the name in it."""


class HuggingFaceCheckpoint:
    """A model in Hugging Face's format; names, shapes and rows are those of Meta's."""

    form = "huggingface"

    def __init__(
        self,
        path: Path,
        params: ModelParams,
        sources: Sources,
        refusal: str = "",
    ) -> None:
        self._refusal = refusal
        self.path = path
        self.params = params
        self.sources = sources
        self.embedding_axis = family_by_numbers(params).embedding_axis
        """The axis on which Meta's format of this model splits ``tok_embeddings.weight``."""
        self.parameters: Mapping[str, Parameter] = {
            name: self._parameter(name) for name in expected_shapes(params) if name in sources
        } | {name: self._parameter(name) for name in sources}
        self.nbytes_read = 0
        self._lock = threading.Lock()

    def read(self, name: str, *, axis: int = 0, start: int = 0, stop: int | None = None) -> Array:
        """Read one parameter, or the slice ``start:stop`` of it along ``axis``, as Meta has it.

        The query and key projections are copies, their rows in Meta's order; the rest are views.

        Raises:
            KeyError: no such parameter.
            ValueError: no such axis or slice.
            DamagedFileError: a file has changed since it was opened.
        """
        file, theirs = self.sources[name]
        if is_rotated(name):
            array = self._read_rotated(file, file.tensors[theirs], axis, start, stop)
        else:
            array = file.read(theirs, axis=axis, start=start, stop=stop)
        with self._lock:
            self.nbytes_read += array.nbytes
        return array

    def raw_regions(self, name: str) -> list[RawRegion] | None:
        """Say where a parameter is, its rows perhaps in Hugging Face's order.

        Raises:
            DamagedFileError: the file has changed since it was opened.
        """
        file, theirs = self.sources[name]
        order: RowOrder = "huggingface" if is_rotated(name) else "meta"
        return [file.region(file.tensors[theirs], order)]

    def weight_files(self) -> list[Path]:
        """Return the files of weights, by name."""
        return sorted({file.path for file, _ in self.sources.values()})

    def unsupported(self) -> str:
        """Say why the weights cannot be computed with, if they cannot."""
        return self._refusal

    def _read_rotated(
        self, file: TensorFile, tensor: StoredTensor, axis: int, start: int, stop: int | None
    ) -> Array:
        if axis not in (0, 1):
            raise ValueError(f"a tensor of shape {tensor.shape} has no axis {axis}")
        stop = tensor.shape[axis] if stop is None else stop
        narrowed = tensor.narrow(axis, start, stop)
        if axis == 0:
            rows = huggingface_rows(start, stop, self.params.head_dim)
            return file.view(tensor)[rows]
        return file.view(narrowed)[huggingface_rows(0, tensor.shape[0], self.params.head_dim)]

    def _parameter(self, name: str) -> Parameter:
        file, theirs = self.sources[name]
        tensor = file.tensors[theirs]
        axis = axis_of(name, self.embedding_axis)
        return Parameter(name, tensor.shape, tensor.dtype, axis)
