"""A folder that ``llamakit quantize`` has made: rounded weights, whole, for any number of ranks.

``quantization.json`` says what the files hold. A rounded weight is two tensors: its integers,
called ``NAME`` in 8 bits and ``NAME_packed`` in 4, and ``NAME_scale``; both as ``QuantizedWeight``
has them. What is not rounded (the embedding, the norms) is there as the source had it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from llamakit.checkpoint.checklist import MODEL_CHECKLIST
from llamakit.checkpoint.dtypes import Array
from llamakit.checkpoint.families import FAMILIES
from llamakit.checkpoint.file_layout import TensorSpec
from llamakit.checkpoint.hf_weight_files import follow_index
from llamakit.checkpoint.json_fields import read_json
from llamakit.checkpoint.layout import EMBEDDING, OUTPUT, axis_of, expected_shapes
from llamakit.checkpoint.params import ModelParams, parse_params, read_params
from llamakit.checkpoint.rounding import GROUP, check_scales, kinds_of, multiplied_out
from llamakit.checkpoint.tensor_file import TensorFile
from llamakit.errors import ParametersError, ParamsError
from llamakit.protocols import Finding, Parameter, Quantization, QuantizedWeight

MARKER = "quantization.json"
VERSION = 1
_DTYPE = "float32"
"""Of the values that ``read`` multiplies out: what kernels multiply in, or finer."""


class QuantizedCheckpoint:
    """A model whose weights are stored rounded; ``read`` multiplies them out."""

    form = "quantized"

    def __init__(
        self,
        path: Path,
        params: ModelParams,
        tensors: Mapping[str, TensorFile],
        quantize: Quantization,
        embedding_axis: int,
    ) -> None:
        self.path, self.params = path, params
        self.tensors = tensors
        """The file that each tensor is in."""
        self.quantize = quantize
        self.kinds = kinds_of(params, quantize)
        self.parameters: Mapping[str, Parameter] = {
            name: Parameter(name, shape, self._dtype(name), axis_of(name, embedding_axis))
            for name, shape in expected_shapes(params).items()
        }
        self.nbytes_read = 0
        self._lock = threading.Lock()

    def read(self, name: str, *, axis: int = 0, start: int = 0, stop: int | None = None) -> Array:
        """Read one parameter, or a slice of it; rounded weights are multiplied out.

        Raises:
            KeyError: no such parameter.
            ValueError: no such axis or slice.
            DamagedFileError: a file has changed since it was opened, or a scale is no scale.
        """
        kind = self.kinds.get(name)
        if kind is None:
            return self._counted(self.tensors[name].read(name, axis=axis, start=start, stop=stop))
        stop = self.parameters[name].shape[axis] if stop is None else stop
        if kind == "int8" or axis == 0:
            rounded = self.read_quantized(name, axis=axis, start=start, stop=stop)
            return multiplied_out(rounded)
        first = start // GROUP * GROUP
        whole = self.read_quantized(name, axis=1, start=first, stop=-(-stop // GROUP) * GROUP)
        return multiplied_out(whole)[:, start - first : stop - first]

    def stored_as(self) -> str:
        """Say how many weights have 8 and 4 bits."""
        counts = Counter(self.kinds.values())
        described = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        return f"weights are stored rounded ({described})"

    def quantization(self) -> Quantization:
        """Return what the weights were rounded for."""
        return self.quantize

    def quantization_of(self, name: str) -> Quantization | None:
        """Return how a parameter is stored."""
        return self.kinds.get(name)

    def read_quantized(
        self, name: str, *, axis: int = 0, start: int = 0, stop: int | None = None
    ) -> QuantizedWeight:
        """Read a rounded weight, or a slice of it, as views of the files.

        Raises: as ``read``.
        """
        kind = self.kinds[name]
        values, scales = stored_names(name, kind)
        if axis == 1 and kind == "int8":  # a row has one scale, whatever its columns
            steps = self._read(scales)
        else:
            steps = self._read(scales, axis, start, stop, per=GROUP if axis else 1)
        per = 2 if axis and kind == "int4" else 1
        rounded = QuantizedWeight(kind, self._read(values, axis, start, stop, per=per), steps)
        check_scales(f"{self.tensors[scales].path}: {scales}", rounded)
        return rounded

    def weight_files(self) -> list[Path]:
        """Return the files of weights, by name."""
        return sorted({file.path for file in self.tensors.values()})

    def companion_files(self, target: str) -> list[Path]:
        """Return the params.json, which Meta's format keeps."""
        return [self.path / "params.json"] if target == "meta" else []

    def deep_checks(self) -> Iterator[Finding]:
        """Check that every scale is one."""
        for name, kind in self.kinds.items():
            scales = stored_names(name, kind)[1]
            weight = QuantizedWeight(kind, np.empty(0), self.tensors[scales].array(scales))
            check_scales(f"{self.tensors[scales].path}: {scales}", weight)
        yield Finding(f"the scales of {len(self.kinds)} weights are positive numbers", "checked")

    def oddities(self) -> Iterator[str]:
        """Say that there is no checklist."""
        if not (self.path / MODEL_CHECKLIST).is_file():
            yield f"no {MODEL_CHECKLIST}, so llamakit verify has no checksums to compare with"

    def _read(
        self, tensor: str, axis: int = 0, start: int = 0, stop: int | None = None, *, per: int = 1
    ) -> Array:
        """Read a slice of a tensor each of whose values is for ``per`` values of the weight."""
        first, last = start // per, None if stop is None else stop // per
        return self._counted(self.tensors[tensor].read(tensor, axis=axis, start=first, stop=last))

    def _counted(self, array: Array) -> Array:
        with self._lock:
            self.nbytes_read += array.nbytes
        return array

    def _dtype(self, name: str) -> str:
        return _DTYPE if name in self.kinds else self.tensors[name].tensors[name].dtype


def open_quantized(path: Path) -> QuantizedCheckpoint | None:
    """Open a folder with a ``quantization.json``, from the indexes of its files.

    Raises:
        ParamsError: params.json or quantization.json is absent or wrong.
        MissingShardError: a file of weights is not there.
        DamagedFileError: a file of weights is damaged.
        ParametersError: a tensor is missing, or of another shape or dtype.
    """
    marker = path / MARKER
    if not marker.is_file():
        return None
    values = read_json(marker)
    tensors = follow_index(marker)
    quantize, axis, family = (values.get(key) for key in ("quantize", "embedding_axis", "family"))
    if (
        values.get("version") != VERSION
        or quantize not in get_args(Quantization)
        or axis not in (0, 1)
        or family not in list(FAMILIES)  # what JSON says may not be hashable
    ):
        raise ParamsError(
            f"{marker} is not of version {VERSION}, int8 or int4, as this llamakit reads it: "
            "make the folder again with llamakit quantize, or use the llamakit that made it."
        )
    embedding = tensors[EMBEDDING].tensors[EMBEDDING] if EMBEDDING in tensors else None
    rows = embedding.shape[0] if embedding and embedding.shape else None
    params = parse_params(read_params(path / "params.json"), path / "params.json", vocab_size=rows)
    tied = values.get("tied_embeddings") is True
    params = replace(params, family=family, tied_embeddings=tied)
    kind: Literal["int8", "int4"] = "int8" if quantize == "int8" else "int4"
    _check_tensors(path, tensors, params, kind)
    return QuantizedCheckpoint(path, params, tensors, kind, 1 if axis == 1 else 0)


def stored_names(name: str, kind: Quantization) -> tuple[str, str]:
    """Return the names of the tensors of integers and of scales."""
    return (name if kind == "int8" else f"{name}_packed"), f"{name}_scale"


def stored_specs(
    name: str, kind: Quantization, shape: tuple[int, ...]
) -> tuple[TensorSpec, TensorSpec]:
    """Describe the tensors of integers and of scales of a weight.

    Args:
        shape: of the weight, ``(N, K)``.
    """
    rows, columns = shape
    values, scales = stored_names(name, kind)
    if kind == "int8":
        return TensorSpec(values, "int8", shape), TensorSpec(scales, "float32", (rows,))
    return (
        TensorSpec(values, "uint8", (rows, columns // 2)),
        TensorSpec(scales, "bfloat16", (rows, columns // GROUP, 2)),
    )


def _check_tensors(
    path: Path, tensors: Mapping[str, TensorFile], params: ModelParams, quantize: Quantization
) -> None:
    """Check that every tensor is there, with the shape and dtype that the numbers imply."""
    kinds = kinds_of(params, quantize)
    shapes = expected_shapes(params) | {OUTPUT: expected_shapes(params)[EMBEDDING]}
    for name, shape in shapes.items():
        kind = kinds.get(name)
        for spec in stored_specs(name, kind, shape) if kind else [TensorSpec(name, "", shape)]:
            stored = spec.name in tensors and tensors[spec.name].tensors[spec.name]
            if not stored:
                raise ParametersError(
                    f"{path} has no tensor {spec.name}, which {MARKER} implies. Copy the whole "
                    "folder again, or make it again with llamakit quantize."
                )
            if (stored.shape, stored.dtype) != (spec.shape, spec.dtype or stored.dtype):
                raise ParametersError(
                    f"{tensors[spec.name].path}: {spec.name} is {stored.dtype} {stored.shape}; "
                    f"expected {spec.dtype} {spec.shape}, as params.json and {MARKER} imply. "
                    "Copy the folder again, or make it again with llamakit quantize."
                )
