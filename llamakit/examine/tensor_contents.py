"""What looks into a file of tensors while its bytes pass by; it needs numpy, checksums do not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from llamakit.checkpoint.pth_reader import PthFile
from llamakit.checkpoint.safetensors_reader import SafetensorsFile
from llamakit.checkpoint.tensor_file import TensorFile
from llamakit.checkpoint.zip_index import Member, index_zip
from llamakit.errors import CheckpointError, UnsupportedModelError
from llamakit.examine.contents import MemberCrcs, NonFiniteCounts
from llamakit.files.regular_file import open_regular

_PICKLED = re.compile(r"(pytorch_model|ft-model|hf_model|meta_model|torchtune_model).*\.(bin|pt)")
"""Weights that are pickled under another ending; other files of that ending are a trainer's."""
_TENSOR_FILES: Mapping[str, Callable[[Path], TensorFile]] = {
    ".pth": PthFile.open,
    ".safetensors": SafetensorsFile.open,
}


def opener_of(path: Path) -> Callable[[Path], TensorFile] | None:
    """Return what opens a file of tensors, by its name; None if it is something else."""
    return PthFile.open if _PICKLED.fullmatch(path.name) else _TENSOR_FILES.get(path.suffix)


def look_inside(path: Path, faults: list[str]) -> tuple[MemberCrcs | None, NonFiniteCounts | None]:
    """Return what is to see the bytes of a file; faults of its index are added to ``faults``."""
    opened = _open_tensors(path, faults)
    has_crcs = path.suffix == ".pth" or isinstance(opened, PthFile)
    members = _members(path) if has_crcs else []
    return (
        MemberCrcs(members) if members else None,
        None if opened is None else NonFiniteCounts(opened),
    )


def _open_tensors(path: Path, faults: list[str]) -> TensorFile | None:
    opens = opener_of(path)
    if opens is None:
        return None
    try:
        return opens(path)
    except (CheckpointError, UnsupportedModelError) as error:
        faults.append(error.for_commands)
        return None


def _members(path: Path) -> list[Member]:
    try:
        with open_regular(path) as file:
            return list(index_zip(file).values())
    except (OSError, ValueError):
        return []  # opening its tensors has said so
