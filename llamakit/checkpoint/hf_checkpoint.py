"""A Hugging Face folder of a Llama model: config.json and .safetensors, read as Meta's format."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from llamakit.checkpoint.dtypes import Array
from llamakit.checkpoint.family_detection import detect_family
from llamakit.checkpoint.hf_config import parse_config
from llamakit.checkpoint.hf_names import is_rotated, to_meta
from llamakit.checkpoint.json_fields import Fields, read_json
from llamakit.checkpoint.layout import EMBEDDING, OUTPUT, axis_of, expected_shapes
from llamakit.checkpoint.params import ModelParams, family_by_numbers
from llamakit.checkpoint.rope_permutation import huggingface_rows
from llamakit.checkpoint.safetensors_reader import SafetensorsFile
from llamakit.checkpoint.shards import find_shards
from llamakit.checkpoint.tensor_file import StoredTensor
from llamakit.errors import (
    DamagedFileError,
    MissingShardError,
    NotACheckpointError,
    ParametersError,
    UnsupportedModelError,
)
from llamakit.printable import listed, printable
from llamakit.protocols import Parameter, RawRegion, RowOrder

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_COMPARED_ROWS = 1024
_SAFETENSORS = re.compile(r"[^/\\]{1,200}\.safetensors")
"""Hugging Face's files are called model-00001-of-00191.safetensors."""


class HuggingFaceCheckpoint:
    """A model in Hugging Face's format; names, shapes and rows are those of Meta's."""

    form = "huggingface"

    def __init__(
        self, path: Path, params: ModelParams, sources: Mapping[str, tuple[SafetensorsFile, str]]
    ) -> None:
        self.path = path
        self.params = params
        self.sources = sources
        """By Meta's name: the file, and the name in it."""
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

    def raw_regions(self, name: str) -> list[RawRegion]:
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

    def _read_rotated(
        self, file: SafetensorsFile, tensor: StoredTensor, axis: int, start: int, stop: int | None
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


def open_huggingface(path: Path) -> HuggingFaceCheckpoint | None:
    """Open a folder of config.json and .safetensors from its indexes.

    Returns:
        The checkpoint, or None if the folder is in another format (Meta's shards come first).

    Raises:
        NotACheckpointError: its weights are pytorch_model.bin.
        MissingShardError: it has no weights, or fewer files than its index names.
        DamagedFileError: a file is damaged or something else.
        ParamsError: config.json or the index is wrong.
        UnsupportedModelError: it is not a Llama, or has biases.
        ParametersError: it holds tensors that no Llama has.
    """
    config = path / "config.json"
    if not config.exists() or find_shards(path):
        return None
    params = parse_config(read_json(config), config)
    sources = {}
    unknown = []
    for theirs, file in _find_tensors(path).items():
        name = _meta_name(theirs, file)
        if name is None:
            unknown.append(theirs)
        elif name:
            sources[name] = (file, theirs)
    _check_known(path, unknown)
    _check_whole_heads(params, sources)
    if params.tied_embeddings and OUTPUT in sources:
        if _is_tied(sources):
            del sources[OUTPUT]
        else:
            params = replace(params, tied_embeddings=False)
            logging.getLogger("llamakit").warning(
                "%s says tie_word_embeddings, but lm_head.weight differs from the embedding: "
                "lm_head.weight is used",
                config,
            )
    params = replace(params, family=detect_family(params, path).name)
    return HuggingFaceCheckpoint(path, params, sources)


def _is_tied(sources: Mapping[str, tuple[SafetensorsFile, str]]) -> bool:
    """Compare an output layer that is stored with the embedding, up to the first difference."""
    if EMBEDDING not in sources:
        return False
    (file, name), (other_file, other_name) = sources[EMBEDDING], sources[OUTPUT]
    embedding, output = file.tensors[name], other_file.tensors[other_name]
    if (embedding.shape, embedding.dtype) != (output.shape, output.dtype):
        return False
    rows = embedding.shape[0] if embedding.shape else 0
    starts = range(0, rows, _COMPARED_ROWS)
    return all(
        file.view(embedding.narrow(0, start, min(start + _COMPARED_ROWS, rows))).tobytes()
        == other_file.view(output.narrow(0, start, min(start + _COMPARED_ROWS, rows))).tobytes()
        for start in starts
    )


def _find_tensors(path: Path) -> dict[str, SafetensorsFile]:
    """Open the files of weights, and say which holds what."""
    if (path / _SINGLE).exists():
        file = SafetensorsFile.open(path / _SINGLE)
        return dict.fromkeys(file.tensors, file)
    if (path / _INDEX).exists():
        return _follow_index(path)
    if any(path.glob("pytorch_model*.bin")):
        raise NotACheckpointError(
            f"{path} holds its weights as pytorch_model.bin, which is not read here; expected "
            f"{_SINGLE}. Convert it with transformers: save_pretrained(..., "
            "safe_serialization=True)."
        )
    raise MissingShardError(
        f"{path} has config.json but no weights; expected {_SINGLE} or {_INDEX} and the files it "
        "names. Download them."
    )


def _follow_index(path: Path) -> dict[str, SafetensorsFile]:
    index = path / _INDEX
    places = Fields(read_json(index), index).optional_mapping("weight_map") or {}
    names = sorted({_file_name(index, name) for name in places.values()})
    absent = [name for name in names if not (path / name).exists()]
    if absent or not names:
        raise MissingShardError(
            f"{path} lacks {listed(absent) or 'every file of weights'} of the {len(names)} files "
            f"that {_INDEX} names. Download what is missing."
        )
    files = {name: SafetensorsFile.open(path / name) for name in names}
    for tensor, name in places.items():
        if tensor not in files[str(name)].tensors:
            raise DamagedFileError(
                f"{path / str(name)} has no {printable(tensor)}, which {_INDEX} says it has; "
                "download both again."
            )
    return {tensor: files[str(name)] for tensor, name in places.items()}


def _file_name(index: Path, name: object) -> str:
    fits = isinstance(name, str) and _SAFETENSORS.fullmatch(name) and name.isprintable()
    if not isinstance(name, str) or not fits:
        raise DamagedFileError(
            f"{index} names {name!r:.100} as a file of weights; expected the name of a "
            ".safetensors next to it. Download it again."
        )
    return name


def _meta_name(theirs: str, file: SafetensorsFile) -> str | None:
    """Return Meta's name; an empty one for what is computed again, None for what is unknown."""
    if theirs.endswith("rotary_emb.inv_freq"):
        return ""
    if theirs.endswith(".bias"):
        raise UnsupportedModelError(
            f"{file.path} holds the bias {theirs[:200]}; Meta's format has no biases, so this "
            "model cannot be read."
        )
    return to_meta(theirs)


def _check_known(path: Path, unknown: list[str]) -> None:
    if unknown:
        raise ParametersError(
            f"{path} holds tensors that no Llama has: {listed(unknown)}. Expected names such as "
            "model.layers.0.self_attn.q_proj.weight; save the model with transformers' "
            "save_pretrained."
        )


def _check_whole_heads(
    params: ModelParams, sources: Mapping[str, tuple[SafetensorsFile, str]]
) -> None:
    for name, (file, theirs) in sources.items():
        shape = file.tensors[theirs].shape
        if is_rotated(name) and (len(shape) != 2 or shape[0] % params.head_dim):
            raise ParametersError(
                f"{file.path}: {theirs} is {shape}; config.json implies heads of "
                f"{params.head_dim} rows. Bring both from the same download."
            )
