"""The files of weights in a Hugging Face folder, and which tensor is in which."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from llamakit.checkpoint.json_fields import Fields, read_json
from llamakit.checkpoint.misnamed_files import hint_at_misnamed
from llamakit.checkpoint.shards import loose_files, open_shard
from llamakit.checkpoint.tensor_file import TensorFile
from llamakit.errors import DamagedFileError, MissingShardError, ParametersError
from llamakit.printable import listed, printable

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_LAYOUTS = ((_SINGLE, _INDEX), ("pytorch_model.bin", "pytorch_model.bin.index.json"))
STANDARD_NAMES = [name for layout in _LAYOUTS for name in layout]
_NAME = re.compile(r"[^/\\]{1,200}")
"""Hugging Face's files are called model-00001-of-00191.safetensors."""
_NUMBERED = re.compile(r"-of-([0-9]{1,6})\.")


def find_tensors(path: Path, key: str | None = None) -> dict[str, TensorFile]:
    """Open the files of weights in a folder, and say which holds what.

    A .safetensors is preferred to a pickle, and an index to what is there without one.

    Args:
        key: of the dict of tensors, where a pickle is a training checkpoint.
    """
    for single, index in _LAYOUTS:
        if (path / single).exists():
            file = open_shard(path / single, key)
            return dict.fromkeys(file.tensors, file)
        if (path / index).exists():
            return follow_index(path / index, key)
    files = loose_files(path)
    if not files:
        hint = hint_at_misnamed(path / _SINGLE) or hint_at_misnamed(path / _INDEX)
        has_config = "config.json but " if (path / "config.json").exists() else ""
        raise MissingShardError(
            f"{path} has {has_config}no weights; expected {_SINGLE} or {_INDEX} and the files "
            f"it names.{hint or ' Download them.'}"
        )
    return join_files([open_shard(file, key) for file in files])


def join_files(files: Sequence[TensorFile]) -> dict[str, TensorFile]:
    """Say which tensor is in which of several files that no index lists.

    Raises:
        MissingShardError: there are fewer files than their names say.
        ParametersError: a tensor is in two of them.
    """
    _check_numbers([file.path for file in files])
    tensors: dict[str, TensorFile] = {}
    for file in files:
        if twice := next((name for name in file.tensors if name in tensors), None):
            raise ParametersError(
                f"{file.path} and {tensors[twice].path.name} both hold {printable(twice)}; "
                "expected the files of one model. Move those of the other elsewhere, or name one "
                "file."
            )
        tensors |= dict.fromkeys(file.tensors, file)
    return tensors


def _check_numbers(files: Sequence[Path]) -> None:
    """Check that there are as many files as their names say, such as -00001-of-00004."""
    sizes = {int(match[1]) for file in files if (match := _NUMBERED.search(file.name))}
    if sizes and max(sizes) != len(files):
        raise MissingShardError(
            f"{files[0].parent} has {len(files)} files of weights, {files[0].name} and so on; "
            f"expected {max(sizes)}, as their names say. Download what is missing."
        )


def follow_index(index: Path, key: str | None = None) -> dict[str, TensorFile]:
    """Open the files that an index names, and say which holds what.

    Args and Raises: as ``find_tensors``.
    """
    path = index.parent
    places = Fields(read_json(index), index).optional_mapping("weight_map") or {}
    names = sorted({_file_name(index, name) for name in places.values()})
    absent = [name for name in names if not (path / name).exists()]
    if absent or not names:
        raise MissingShardError(
            f"{path} lacks {listed(absent) or 'every file of weights'} of the {len(names)} files "
            f"that {index.name} names."
            f"{hint_at_misnamed(path / absent[0]) if absent else ''} Download what is missing."
        )
    files = {name: open_shard(path / name, key) for name in names}
    for tensor, name in places.items():
        if tensor not in files[str(name)].tensors:
            raise DamagedFileError(
                f"{path / str(name)} has no {printable(tensor)}, which {index.name} says it has; "
                "download both again."
            )
    # An index may leave out a tensor, such as the lm_head of a tied model: it counts all the same.
    unlisted = {tensor: file for file in files.values() for tensor in file.tensors}
    return unlisted | {tensor: files[str(name)] for tensor, name in places.items()}


def _file_name(index: Path, name: object) -> str:
    ending = ".bin" if index.name.startswith("pytorch_model") else ".safetensors"
    fits = isinstance(name, str) and _NAME.fullmatch(name) and name.isprintable()
    fits = fits and str(name).endswith(ending)
    if not isinstance(name, str) or not fits:
        raise DamagedFileError(
            f"{index} names {name!r:.100} as a file of weights; expected the name of a {ending} "
            "beside it. Download it again."
        )
    return name
