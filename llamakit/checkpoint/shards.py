"""The shards in a folder: found, put in order, and checked against one another."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from llamakit.checkpoint.misnamed_files import hint_at_misnamed
from llamakit.checkpoint.pth_reader import PthFile
from llamakit.checkpoint.safetensors_reader import SafetensorsFile
from llamakit.checkpoint.tensor_file import TensorFile
from llamakit.errors import MissingShardError, ParametersError
from llamakit.printable import listed

_SHARD = re.compile(r"consolidated\.([0-9]{1,9})\.(pth|safetensors)")
_NO_WEIGHTS = re.compile(
    r"adapter|training_args|optim|sched|scaler|rng_state|random_states|recipe_state|trainer"
    r"|(fp8|int4)_scales|consolidated\."
)
"""What trainers save next to weights."""
_ARCHIVE = re.compile(r"consolidated\.([0-9]{1,9})")
_FIRST_QUERY = "layers.0.attention.wq.weight"


def open_shard(path: Path, key: str | None = None) -> TensorFile:
    """Open one shard from its index.

    Args:
        key: of the dict of tensors, where a .pth is a training checkpoint.

    Raises:
        CheckpointError: it is damaged, or something else.
    """
    return SafetensorsFile.open(path) if path.suffix == ".safetensors" else PthFile.open(path, key)


def loose_files(path: Path) -> list[Path]:
    """List the files of weights that other tools than Meta's call as they like.

    Args:
        path: a folder.
    """
    return sorted(
        file
        for file in path.iterdir()
        if file.suffix in (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
        and not _NO_WEIGHTS.match(file.name)
        and file.is_file()
    )


def find_shards(path: Path) -> list[Path]:
    """List the shards in a folder by their numbers.

    They are .pth; a folder without any may hold .safetensors, as ``export`` writes them.

    Args:
        path: a folder; anything else has no shards.

    Raises:
        MissingShardError: there is a gap in the numbers, or a number is there twice.
    """
    if not path.is_dir():
        return []
    matches = {
        file: match for file in path.iterdir() if (match := _SHARD.fullmatch(file.name)) is not None
    }
    suffix = "pth" if any(match[2] == "pth" for match in matches.values()) else "safetensors"
    numbered = [(int(match[1]), file) for file, match in matches.items() if match[2] == suffix]
    if not numbered:
        singles = (path / "consolidated.pth", path / "consolidated.safetensors")  # or Mistral's
        return [single for single in singles if single.exists()][:1]
    _check_numbers(path, Counter(number for number, _ in numbered), suffix)
    return [file for _, file in sorted(numbered)]


def _check_numbers(path: Path, numbers: Counter[int], suffix: str) -> None:
    twice = [number for number, count in numbers.items() if count > 1]
    if twice:
        raise MissingShardError(
            f"{path} has several shards of number {min(twice)}; expected one of each. "
            "Keep those that are named alike, and move the others away."
        )
    last = max(numbers)
    absent = [
        f"consolidated.{number:02d}.{suffix}"
        for number in range(min(last, 10_000))
        if number not in numbers
    ]
    if absent:
        raise MissingShardError(
            f"{path} has {len(numbers)} shards, the last of number {last:02d}; missing are "
            f"{listed(absent)}."
            f"{hint_at_misnamed(path / absent[0]) or ' Download what is missing.'}"
        )


def check_none_missing(dim: int, shards: Sequence[TensorFile]) -> None:
    """Check that the last shards are there too, which their numbers cannot show.

    Args:
        dim: width of the model, in values.
        shards: all that were found, by number.

    Raises:
        MissingShardError: each is split as one of more shards than there are.
    """
    query = shards[0].tensors.get(_FIRST_QUERY)
    if query is None or len(query.shape) != 2 or query.shape[1] != dim or not query.shape[0]:
        return
    size, rest = divmod(dim, query.shape[0])
    if rest == 0 and size > len(shards):
        raise MissingShardError(
            f"{shards[0].path.parent} has {len(shards)} shards, each split as one of {size}; "
            f"missing are those after {shards[-1].path.name}. Download them."
        )


def check_alike(shards: Sequence[TensorFile]) -> None:
    """Check that all shards hold the same parameters, split alike.

    Raises:
        ParametersError: one differs from the most; it and a parameter are named.
    """
    described = [
        frozenset((name, tensor.dtype, tensor.shape) for name, tensor in shard.tensors.items())
        for shard in shards
    ]
    usual, _ = Counter(described).most_common(1)[0]
    model = shards[described.index(usual)]
    for shard, found in zip(shards, described, strict=True):
        if found == usual:
            continue
        name = min(name for name, _, _ in found ^ usual)
        raise ParametersError(
            f"{shard.path} is of another model than {model.path.name}: {name} is "
            f"{_describe(shard, name)}; expected {_describe(model, name)}. "
            "Put the shards of one model into a folder of their own."
        )


def _describe(shard: TensorFile, name: str) -> str:
    tensor = shard.tensors.get(name)
    return "absent" if tensor is None else f"{tensor.dtype} {tensor.shape}"


def warn_of_renamed(shards: Sequence[TensorFile]) -> None:
    """Warn of shards that torch wrote under another number: in the wrong order they fit no less."""
    for number, shard in enumerate(shards):
        match = _ARCHIVE.fullmatch(shard.archive)
        if match is not None and int(match[1]) != number:
            logging.getLogger("llamakit").warning(
                "%s was written as %s.pth; if the shards have been renamed, put the names right",
                shard.path,
                shard.archive,
            )
