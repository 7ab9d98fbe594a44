"""A Hugging Face folder whose weights are integers with scales, read as Meta's parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from llamakit.checkpoint.compressed_tensors import METHOD, CompressedWeight
from llamakit.checkpoint.dtypes import DTYPES, Array
from llamakit.checkpoint.hf_names import is_rotated
from llamakit.checkpoint.hf_parameters import HuggingFaceCheckpoint, Sources
from llamakit.checkpoint.layout import EMBEDDING, axis_of
from llamakit.checkpoint.params import ModelParams
from llamakit.checkpoint.rope_permutation import huggingface_rows
from llamakit.errors import DamagedFileError
from llamakit.protocols import Finding, Parameter, Quantization, QuantizedWeight, RawRegion

_BLOCK = 1 << 20
"""About how many values are multiplied out at a time."""


class CompressedCheckpoint(HuggingFaceCheckpoint):
    """A model in compressed-tensors' layout; ``read`` multiplies its weights out.

    A value is ``integer * scale`` in the dtype of the scale, as compressed-tensors has it.
    """

    def __init__(
        self,
        path: Path,
        params: ModelParams,
        sources: Sources,
        compressed: Mapping[str, CompressedWeight],
    ) -> None:
        self.compressed = compressed
        super().__init__(path, params, sources)

    def read(self, name: str, *, axis: int = 0, start: int = 0, stop: int | None = None) -> Array:
        """Read one parameter, or a slice of it, as Meta has it.

        Raises: as ``HuggingFaceCheckpoint.read``, and
            DamagedFileError: a scale is no positive number.
        """
        weight = self.compressed.get(name)
        if weight is None:
            return super().read(name, axis=axis, start=start, stop=stop)
        rows, columns = self._bounds(weight, axis, start, stop)
        dtype = DTYPES[self.parameters[name].dtype]
        out = np.empty((len(rows), columns.stop - columns.start), dtype)
        step = max(1, _BLOCK // weight.shape[1])
        for at in range(0, len(rows), step):
            some = rows[at : at + step]
            integers, scales = self._integers(name, weight, some), self._scales(name, weight, some)
            wide = integers.reshape(*scales.shape, -1).astype(np.float32) * scales[
                ..., None
            ].astype(np.float32)
            out[at : at + step] = wide.reshape(integers.shape)[:, columns].astype(dtype)
        self._count(out)
        return out

    def raw_regions(self, name: str) -> list[RawRegion] | None:
        """Say where a parameter is; None if it is multiplied out."""
        return None if name in self.compressed else super().raw_regions(name)

    def weight_files(self) -> list[Path]:
        """Return the files of weights and of scales, by name."""
        places = [place for weight in self.compressed.values() for place in weight.tensors]
        return sorted({file.path for file, _ in [*self.sources.values(), *places]})

    def quantization(self) -> Quantization | None:
        """Return int8 if activations are to be rounded too, as those kernels do."""
        weights = self.compressed.values()
        rounds = all(weight.scheme.rounds_activations for weight in weights)
        return "int8" if rounds and all(map(self.quantization_of, self.compressed)) else None

    def quantization_of(self, name: str) -> Quantization | None:
        """Return int8 for integers of 8 bits with a scale a row; others are multiplied out."""
        weight = self.compressed.get(name)
        by_rows = weight is not None and weight.scheme.bits == 8 and weight.scheme.group is None
        return "int8" if by_rows and name != EMBEDDING else None

    def read_quantized(
        self, name: str, *, axis: int = 0, start: int = 0, stop: int | None = None
    ) -> QuantizedWeight:
        """Read a weight of 8 bits, or a slice of it, its rows as Meta has them.

        Raises: as ``read``.
        """
        weight = self.compressed[name]
        rows, columns = self._bounds(weight, axis, start, stop)
        integers = np.ascontiguousarray(self._integers(name, weight, rows)[:, columns])
        scales = self._scales(name, weight, rows)[:, 0].astype(np.float32)
        self._count(integers)
        return QuantizedWeight("int8", integers, scales)

    def deep_checks(self) -> Iterator[Finding]:
        """Check that every scale is one."""
        for name, weight in self.compressed.items():
            self._scales(name, weight, np.arange(weight.shape[0]))
        yield Finding(
            f"the scales of {len(self.compressed)} weights are positive numbers", "checked"
        )

    def stored_as(self) -> str:
        """Say how many weights have which scheme."""
        counts = Counter(str(weight.scheme) for weight in self.compressed.values())
        described = "; ".join(f"{count} in {scheme}" for scheme, count in sorted(counts.items()))
        return f"weights are stored by {METHOD} ({described})"

    def _parameter(self, name: str) -> Parameter:
        weight = self.compressed.get(name)
        if weight is None:
            return super()._parameter(name)
        file, scales = weight.scales
        axis = axis_of(name, self.embedding_axis)
        return Parameter(name, weight.shape, file.tensors[scales].dtype, axis)

    def _bounds(
        self, weight: CompressedWeight, axis: int, start: int, stop: int | None
    ) -> tuple[Array, slice]:
        """Return the rows, in Meta's order, and the columns of a slice."""
        if axis not in (0, 1):
            raise ValueError(f"a weight of shape {weight.shape} has no axis {axis}")
        length = weight.shape[axis]
        stop = length if stop is None else stop
        if not 0 <= start <= stop <= length:
            raise ValueError(f"no slice {start}:{stop} along axis {axis} of shape {weight.shape}")
        if axis == 0:
            return np.arange(start, stop), slice(0, weight.shape[1])
        return np.arange(weight.shape[0]), slice(start, stop)

    def _stored_rows(self, name: str, rows: Array) -> Array | slice:
        """Return where rows of Meta's order are in the file."""
        if not len(rows):
            return slice(0, 0)
        first, last = int(rows[0]), int(rows[-1]) + 1
        if is_rotated(name):
            return huggingface_rows(first, last, self.params.head_dim)
        return slice(first, last)

    def _integers(self, name: str, weight: CompressedWeight, rows: Array) -> Array:
        """Return some rows of integers, ``(N, K)`` int8."""
        file, stored = weight.values
        values = file.array(stored)[self._stored_rows(name, rows)]
        if not weight.packed:
            return np.asarray(values)
        data = np.ascontiguousarray(values).view(np.uint8)  # the lowest bits come first
        if weight.scheme.bits == 4:
            data = np.stack((data & 15, data >> 4), -1).reshape(len(data), -1)
        middle = 1 << (weight.scheme.bits - 1)
        return (data[:, : weight.shape[1]].astype(np.int16) - middle).astype(np.int8)

    def _scales(self, name: str, weight: CompressedWeight, rows: Array) -> Array:
        """Return the scales of some rows, ``(N, groups of a row)``.

        Raises:
            DamagedFileError: one is negative, zero where an integer is not, or so large that a
                value would be infinite.
        """
        file, stored = weight.scales
        scales = file.array(stored)
        if weight.scheme.strategy == "tensor":
            scales = np.broadcast_to(scales.reshape(1, 1), (weight.shape[0], 1))
        chosen = scales.reshape(weight.shape[0], -1)[self._stored_rows(name, rows)]
        with np.errstate(over="ignore"):  # of float64, and refused
            wide = chosen.astype(np.float32)
        finfo: Any = ml_dtypes.finfo  # has no annotations
        most = min(float(finfo(kind).max) for kind in (np.float32, chosen.dtype))
        wrong = ~((wide >= 0) & (wide <= most / (1 << (weight.scheme.bits - 1))))
        if (wide == 0).any():
            integers = self._integers(name, weight, rows).reshape(*wide.shape, -1)
            wrong |= (wide == 0) & integers.any(-1)
        if wrong.any():
            row, group = np.argwhere(wrong)[0]
            raise DamagedFileError(
                f"{file.path}: {stored} has the scale {wide[row, group]:g} in one of its rows; "
                f"expected a positive number, and no value over {most:.3g}. Download the file "
                "again."
            )
        return chosen

    def _count(self, array: Array) -> None:
        with self._lock:
            self.nbytes_read += array.nbytes
