"""Says what is at a path that other tools open as a model, and how it becomes a checkpoint."""

from __future__ import annotations

from pathlib import Path

from llamakit.checkpoint.misnamed_files import hint_at_misnamed
from llamakit.checkpoint.not_weights import (
    HEAD_NBYTES,
    describe_not_weights,
    describe_other_format,
    remedy,
)
from llamakit.checkpoint.shards import loose_files
from llamakit.errors import MissingShardError, NotACheckpointError
from llamakit.files.regular_file import open_regular
from llamakit.printable import quoted

_ZIP = b"PK\3\4"


def explain_other(path: Path) -> None:
    """Do nothing with what is unknown, and explain what is a model of another tool.

    Args:
        path: a folder without shards and without config.json, or a file.

    Raises:
        NotACheckpointError: a file of weights, or a folder of torch's distributed checkpoints.
        MissingShardError: a folder in Meta's format, by its params.json or by a file that a
            browser has renamed.
    """
    if path.is_file():
        _explain_file(path)
    elif (path / ".metadata").is_file() and any(path.glob("*.distcp")):
        raise NotACheckpointError(
            f"{path} is a distributed checkpoint of torch (DCP), a part for each rank of its "
            "trainer. The package llamakit-dcp opens it: pip install packages/llamakit-dcp, from a "
            "clone of llamakit."
        )
    elif (path / "adapter_config.json").is_file():
        raise NotACheckpointError(
            f"{path} is an adapter of PEFT, such as a LoRA: the change to a model, not the model. "
            f"Merge it: llamakit merge-lora MODEL {quoted(path)} DST, of the package "
            "llamakit-merge, or PEFT's merge_and_unload."
        )
    elif path.is_dir():
        _explain_folder(path)


def _explain_file(path: Path) -> None:
    has_checkpoint = any((path.parent / name).exists() for name in ("params.json", "config.json"))
    try:
        with open_regular(path) as file:
            head = file.read(HEAD_NBYTES)
    except OSError:
        return
    if problem := describe_not_weights(head):
        raise NotACheckpointError(f"{path} is {problem}. {remedy(problem)}")
    is_tensors = head.startswith(_ZIP) or (path.suffix == ".safetensors" and head[8:9] == b"{")
    if not is_tensors and (problem := describe_other_format(head)):
        raise NotACheckpointError(f"{path} is no checkpoint: it is {problem}.")
    if is_tensors and not has_checkpoint:
        raise NotACheckpointError(
            f"{path} is a file of weights, and a checkpoint is a folder with its params.json or "
            f"config.json. Put that next to it; then llamakit import {quoted(path)} DST "
            "makes one."
        )


def _explain_folder(path: Path) -> None:
    has_params = (path / "params.json").exists()
    hint = hint_at_misnamed(path / "consolidated.00.pth")
    if not hint and not has_params:
        return
    if others := loose_files(path):
        hint = f" {others[0].name} is there: try llamakit import {quoted(path)} DST."
    found = "params.json but no shard" if has_params else "no shard"
    expected = "" if has_params else ", next to params.json"
    raise MissingShardError(
        f"{path} has {found}; expected consolidated.00.pth and so on{expected}."
        f"{hint or ' Download the weights of the model.'}"
    )
