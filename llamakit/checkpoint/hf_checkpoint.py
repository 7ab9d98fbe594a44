"""A Hugging Face folder of a Llama model, read as Meta's format.

Its weights are .safetensors, or pytorch_model.bin, which nothing unpickles: see ``pth_reader``.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from llamakit.checkpoint.compressed_tensors import CompressedWeight, find_compressed
from llamakit.checkpoint.family_detection import detect_family
from llamakit.checkpoint.hf_compressed import CompressedCheckpoint
from llamakit.checkpoint.hf_config import QUANTIZATION, parse_config
from llamakit.checkpoint.hf_names import is_rotated, to_meta
from llamakit.checkpoint.hf_parameters import HuggingFaceCheckpoint
from llamakit.checkpoint.hf_weight_files import find_tensors
from llamakit.checkpoint.json_fields import read_json
from llamakit.checkpoint.layout import EMBEDDING, OUTPUT
from llamakit.checkpoint.params import ModelParams
from llamakit.checkpoint.plain_weights import companion_of_quantized
from llamakit.checkpoint.shards import find_shards
from llamakit.checkpoint.tensor_file import TensorFile
from llamakit.checkpoint.tensor_names import (
    AS_STORED,
    StateDictOptions,
    is_computed,
    stripped,
    style_of,
)
from llamakit.errors import (
    ParametersError,
    UnsupportedModelError,
)
from llamakit.printable import listed, quoted

_COMPARED_ROWS = 1024


def open_huggingface(
    path: Path, options: StateDictOptions = AS_STORED
) -> HuggingFaceCheckpoint | None:
    """Open a folder of config.json and .safetensors, or pytorch_model.bin, from its indexes.

    Args:
        options: where in each file the weights are, and what their names lose.
    Returns:
        The checkpoint, or None if the folder is in another format (Meta's shards come first).

    Raises:
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
    tensors = find_tensors(path, options.key)
    names = stripped(tensors, options.strip_prefix, str(path))
    return from_state_dict(path, params, tensors, names)


def from_state_dict(
    path: Path, params: ModelParams, tensors: Mapping[str, TensorFile], names: Mapping[str, str]
) -> HuggingFaceCheckpoint:
    """Make a checkpoint of tensors with Hugging Face's names.

    Weights in compressed-tensors' layout are multiplied out where they are read. Other quantized
    weights are opened too, so that ``inspect`` can show them; nothing computes with them.

    Args:
        path: its folder.
        tensors: the file that each is in, by the name there.
        names: by the name there, the one without prefixes.

    Raises: as ``open_huggingface``.
    """
    extra = dict(params.extra)
    quantization = extra.pop(QUANTIZATION, None)
    params = replace(params, extra=extra, family=detect_family(params, path).name)
    stored = {new: (tensors[theirs], theirs) for theirs, new in names.items()}
    compressed: dict[str, CompressedWeight] = {}
    if quantization is not None or any(map(companion_of_quantized, stored)):
        try:
            compressed = find_compressed(path, params, stored, quantization)
        except UnsupportedModelError as error:
            every = {to_meta(name) or name: place for name, place in stored.items()}
            return HuggingFaceCheckpoint(path, params, every, str(error))
    used = {place for weight in compressed.values() for place in weight.tensors}
    sources: dict[str, tuple[TensorFile, str]] = {}
    unknown = []
    for theirs, file in tensors.items():
        name = "" if (file, theirs) in used else _meta_name(names[theirs], file)
        if name is None or name in sources:
            unknown.append(min(theirs, sources[name][1], key=len) if name else theirs)
        elif name:
            sources[name] = (file, theirs)
    _check_known(path, unknown)
    sources |= {name: weight.values for name, weight in compressed.items()}
    _check_has_output(path, params, names.values(), sources)
    _check_whole_heads(params, sources)
    if params.tied_embeddings and OUTPUT in sources:
        if _is_tied(sources):
            del sources[OUTPUT]
        else:
            params = replace(params, tied_embeddings=False)
            logging.getLogger("llamakit").warning(
                "%s says tie_word_embeddings, but lm_head.weight differs from the embedding: "
                "lm_head.weight is used",
                path / "config.json",
            )
    if compressed:
        return CompressedCheckpoint(path, params, sources, compressed)
    return HuggingFaceCheckpoint(path, params, sources)


def _is_tied(sources: Mapping[str, tuple[TensorFile, str]]) -> bool:
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


def _meta_name(theirs: str, file: TensorFile) -> str | None:
    """Return Meta's name; an empty one for what is computed again, None for what is unknown."""
    if is_computed(theirs):
        return ""
    if theirs.endswith(".bias"):
        raise UnsupportedModelError(
            f"{file.path} holds the bias {theirs[:200]}; Meta's format has no biases, so this "
            "model cannot be read."
        )
    return to_meta(theirs)


def _check_known(path: Path, unknown: list[str]) -> None:
    if style_of(unknown) == "torchtune":
        raise ParametersError(
            f"{path} holds weights with torchtune's names, such as {listed(unknown[:1])}. Import "
            f"them with llamakit import {quoted(path)} DST."
        )
    if unknown:
        raise ParametersError(
            f"{path} holds tensors that no Llama has: {listed(unknown)}. Expected names such as "
            "model.layers.0.self_attn.q_proj.weight; save the model with transformers' "
            "save_pretrained."
        )


def _check_has_output(
    path: Path, params: ModelParams, names: Collection[str], sources: Collection[str]
) -> None:
    """Explain why a model that ``AutoModel`` saved, without ``model.`` in its names, is not one."""
    is_base = not any(name.startswith("model.") for name in names)
    if is_base and EMBEDDING in sources and OUTPUT not in sources and not params.tied_embeddings:
        raise ParametersError(
            f"{path} holds a model without its output layer (lm_head.weight), as AutoModel saves "
            "it. Save it with AutoModelForCausalLM, or bring that layer from the model that it is "
            "made from."
        )


def _check_whole_heads(params: ModelParams, sources: Mapping[str, tuple[TensorFile, str]]) -> None:
    for name, (file, theirs) in sources.items():
        shape = file.tensors[theirs].shape
        if is_rotated(name) and (len(shape) != 2 or shape[0] % params.head_dim):
            raise ParametersError(
                f"{file.path}: {theirs} is {shape}; config.json implies heads of "
                f"{params.head_dim} rows. Bring both from the same download."
            )
