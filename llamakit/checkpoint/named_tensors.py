"""A checkpoint made of tensors that some tool has stored under names of its own.

Whoever knows where tensors are passes them by name. Whose names these are, what is before them,
what else a trainer has saved and in which order rows are is found out here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from llamakit.checkpoint.chunked_tensor import ChunkedTensor
from llamakit.checkpoint.dtypes import Array
from llamakit.checkpoint.families import WIDEST_TIED
from llamakit.checkpoint.family_detection import detect_family, embedding_axis
from llamakit.checkpoint.hf_config import parse_config
from llamakit.checkpoint.hf_names import is_rotated
from llamakit.checkpoint.json_fields import read_json
from llamakit.checkpoint.layout import EMBEDDING, OUTPUT, axis_of, expected_shapes
from llamakit.checkpoint.model_names import find_model
from llamakit.checkpoint.params import ModelParams, parse_params, read_params
from llamakit.checkpoint.rope_permutation import huggingface_rows
from llamakit.errors import ParametersError, ParamsError
from llamakit.printable import listed
from llamakit.protocols import Finding, Parameter, RawRegion, RowOrder

_COMPARED_ROWS = 1024


class NamedTensors:
    """A model whose tensors are chunks in files; names and rows are those of Meta's."""

    def __init__(
        self,
        path: Path,
        form: str,
        params: ModelParams,
        tensors: Mapping[str, ChunkedTensor],
        *,
        axis: int,
        order: RowOrder,
        left_out: Sequence[str],
    ) -> None:
        self.path = path
        self.form = form
        self.params = params
        self.tensors = tensors
        """By Meta's name."""
        self.order = order
        """Of the rows of query and key projections in the files."""
        self.left_out = left_out
        """What the files hold besides the model, a sentence each."""
        order_of_model = [name for name in expected_shapes(params) if name in tensors]
        self.parameters: Mapping[str, Parameter] = {
            name: Parameter(name, tensors[name].shape, tensors[name].dtype, axis_of(name, axis))
            for name in dict.fromkeys([*order_of_model, *tensors])
        }
        self.nbytes_read = 0
        self._lock = threading.Lock()

    def read(self, name: str, *, axis: int = 0, start: int = 0, stop: int | None = None) -> Array:
        """Read one parameter, or the slice ``start:stop`` of it along ``axis``; a copy.

        Raises:
            KeyError: no such parameter.
            ValueError: no such axis or slice.
            DamagedFileError: a file has changed since it was opened, or is damaged.
        """
        tensor = self.tensors[name]
        if stop is None:
            stop = tensor.shape[axis] if 0 <= axis < len(tensor.shape) else start
        if self.order == "huggingface" and is_rotated(name):
            array = self._read_rotated(tensor, axis, start, stop)
        else:
            array = tensor.read(axis, start, stop)
        with self._lock:
            self.nbytes_read += array.nbytes
        return array

    def raw_regions(self, name: str) -> list[RawRegion] | None:
        """Say where a parameter is; None if its chunks have to be put together.

        Raises: as ``read``.
        """
        parameter = self.parameters[name]
        is_turned = self.order == "huggingface" and is_rotated(name)
        order: RowOrder = "huggingface" if is_turned else "meta"
        regions = self.tensors[name].regions(parameter.axis or 0, order)
        if regions and is_turned and any(it.shape[0] % self.params.head_dim for it in regions):
            return None
        return regions

    def weight_files(self) -> list[Path]:
        """Return the files that hold the model, by name."""
        return sorted(
            {chunk.file.path for tensor in self.tensors.values() for chunk in tensor.chunks}
        )

    def companion_files(self, target: str) -> list[Path]:
        """Return the params.json that the numbers are from, which a conversion to Meta's keeps."""
        found = find_numbers(self.path)
        is_metas = self.params.multiple_of is not None and target == "meta"
        return [found] if is_metas and found is not None and found.name == "params.json" else []

    def deep_checks(self) -> Iterator[Finding]:
        """Read every value, and check that all are where the index says, and finite."""
        chunks = 0
        for name, tensor in self.tensors.items():
            chunks += len(tensor.chunks)
            odd = sum(int(np.count_nonzero(~np.isfinite(rows))) for rows in _rows_of(tensor))
            if odd:
                yield Finding(f"{name}: {odd} values are infinite or no numbers", "fault")
        yield Finding(
            f"the {chunks} pieces of {len(self.tensors)} parameters are where the index says",
            "checked",
        )

    def oddities(self) -> Iterator[str]:
        """Say what else is in the files."""
        yield from self.left_out

    def _read_rotated(self, tensor: ChunkedTensor, axis: int, start: int, stop: int) -> Array:
        head_dim = self.params.head_dim
        if axis != 0:
            return tensor.read(axis, start, stop)[huggingface_rows(0, tensor.shape[0], head_dim)]
        first = start - start % head_dim
        last = min(-(-stop // head_dim) * head_dim, tensor.shape[0])
        heads = tensor.read(0, first, max(first, last))
        rows: Array = heads[huggingface_rows(start, stop, head_dim) - first]
        return rows


def open_named_tensors(
    path: Path, form: str, tensors: Mapping[str, ChunkedTensor], others: Collection[str] = ()
) -> NamedTensors:
    """Make a checkpoint of tensors by the names of Meta, Hugging Face, torchtune or fairseq2.

    Prefixes such as ``model.`` are taken off, and what a trainer has saved beside the model (the
    states of its optimizer) is left out. The numbers of the model are in ``params.json`` or
    ``config.json``, in the folder or the one above it.

    Args:
        path: the folder.
        form: what the format is called, such as ``dcp``.
        tensors: all that there are, by their names.
        others: names of what is stored that is no tensor.

    Raises:
        ParametersError: they are no Llama's, or of two models.
        ParamsError: the numbers of the model are not there, or wrong.
        UnsupportedModelError: it is a model that is not read here.
    """
    model = find_model(tensors, str(path))
    stored = {new: tensors[old] for old, new in model.names.items()}
    params = read_numbers(path, _rows(stored))
    _check_whole_heads(path, params, stored)
    tied = _is_tied(params, stored)
    if tied and params.rope_scaling is not None:
        stored.pop(OUTPUT, None)
    params = replace(params, tied_embeddings=tied)
    axis = embedding_axis(None, params.dim, 1, path)
    family = detect_family(params, path, axis, stored)
    return NamedTensors(
        path,
        form,
        replace(params, family=family.name),
        stored,
        axis=family.embedding_axis if axis is None else axis,
        order="huggingface" if model.style == "huggingface" else "meta",
        left_out=_beside(path, model.left_out, others),
    )


def find_numbers(path: Path) -> Path | None:
    """Find the file with the numbers of a model: in its folder, or the one above it."""
    folders = (path, path.resolve().parent)
    files = (folder / name for folder in folders for name in ("params.json", "config.json"))
    return next((file for file in files if file.is_file()), None)


def read_numbers(path: Path, rows: int | None) -> ModelParams:
    """Read the numbers of a model.

    Args:
        path: its folder.
        rows: of the output layer or the embedding.

    Raises:
        ParamsError: they are not there, or wrong.
        UnsupportedModelError: it is a model that is not read here.
    """
    found = find_numbers(path)
    if found is None:
        raise ParamsError(
            f"{path} has neither params.json nor config.json, nor has the folder above it, so the "
            'numbers of the model are not known. Write one: {"dim": 4096, "n_layers": 32, '
            '"n_heads": 32, "vocab_size": -1, "multiple_of": 256, "norm_eps": 1e-05} are those of '
            "Llama 2 7B."
        )
    if found.name == "params.json":
        return parse_params(read_params(found), found, vocab_size=rows)
    return parse_config(read_json(found), found)


def _beside(path: Path, tensors: Collection[str], others: Collection[str]) -> list[str]:
    """Say in sentences what is stored beside the model; of tensors, warn too."""
    sentences = []
    if tensors:
        sentences.append(
            f"{len(tensors)} tensors beside the model are left out, such as "
            f"{listed(sorted(tensors)[:2])}"
        )
        logging.getLogger("llamakit").warning("%s: %s", path, sentences[0])
    if others:
        sentences.append(f"{len(others)} entries beside the model are no tensors, and left out")
    return sentences


def _rows(tensors: Mapping[str, ChunkedTensor]) -> int | None:
    shapes = (tensors[name].shape for name in (OUTPUT, EMBEDDING) if name in tensors)
    return next((shape[0] for shape in shapes if len(shape) == 2), None)


def _check_whole_heads(
    path: Path, params: ModelParams, tensors: Mapping[str, ChunkedTensor]
) -> None:
    for name, tensor in tensors.items():
        if is_rotated(name) and (len(tensor.shape) != 2 or tensor.shape[0] % params.head_dim):
            raise ParametersError(
                f"{path}: {name} is {tensor.shape}; {find_numbers(path)} implies heads of "
                f"{params.head_dim} rows. Bring both from the same model."
            )


def _rows_of(tensor: ChunkedTensor) -> Iterator[Array]:
    """Yield a tensor some rows at a time."""
    rows = tensor.shape[0] if tensor.shape else 1
    for at in range(0, rows, _COMPARED_ROWS):
        yield tensor.read(0, at, min(at + _COMPARED_ROWS, rows))


def _is_tied(params: ModelParams, tensors: Mapping[str, ChunkedTensor]) -> bool:
    """Say whether the output layer is the embedding, by its absence or its bytes."""
    if OUTPUT not in tensors:
        return params.tied_embeddings or (params.use_scaled_rope and params.dim <= WIDEST_TIED)
    if not params.tied_embeddings and not (params.use_scaled_rope and params.dim <= WIDEST_TIED):
        return False
    embedding, output = tensors.get(EMBEDDING), tensors[OUTPUT]
    if embedding is None or (embedding.shape, embedding.dtype) != (output.shape, output.dtype):
        return False
    pairs = zip(_rows_of(embedding), _rows_of(output), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)
