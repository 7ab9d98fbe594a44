"""Opens checkpoints and tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamakit.errors import NotACheckpointError
from llamakit.llama.loading import find_tokenizer, fit_tokenizer
from llamakit.llama.tokenizer import Tokenizer
from llamakit.plugin_manager.toolkit import default_toolkit
from llamakit.protocols import Checkpoint

if TYPE_CHECKING:
    import numpy
    import torch


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a folder as a checkpoint, from its indexes alone.

    Raises:
        CheckpointError: no plugin knows its format, or it is damaged.
    """
    return default_toolkit().open_checkpoint(Path(path))


def opened(source: str | Path | Checkpoint) -> Checkpoint:
    """Open a path; a checkpoint that is open is itself."""
    return open_checkpoint(source) if isinstance(source, str | Path) else source


def open_for_import(
    source: str | Path, *, key: str | None = None, strip_prefix: str | bool = False
) -> Checkpoint:
    """Open a checkpoint of any format, or weights that a training program has saved.

    Args:
        source: a folder, or a file of weights with params.json or config.json next to it.
        key: of the dict of weights in a training checkpoint, such as ``model``; with dots where it
            is in a dict in it.
        strip_prefix: what the names of tensors lose at their beginning; True: what
            torch.compile, DDP, FSDP and their like add.

    Raises:
        CheckpointError: it is neither, or damaged.
        UnsupportedModelError: it is a model that is not read here.
    """
    from llamakit.checkpoint.state_dict import open_for_import as run
    from llamakit.checkpoint.tensor_names import AUTOMATIC, StateDictOptions

    prefix = AUTOMATIC if strip_prefix is True else strip_prefix or None
    options = StateDictOptions(key, prefix)
    return run(Path(source), options, default_toolkit().open_checkpoint)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Load a tokenizer file, or the tokenizer of a model folder.

    Raises:
        TokenizerError: there is none, or it is something else.
    """
    path = Path(path)
    if not path.is_dir():
        return Tokenizer(path)
    tokenizer = default_toolkit().load_tokenizer(find_tokenizer(path))
    try:
        return Tokenizer.of(fit_tokenizer(tokenizer, lambda: open_checkpoint(path)))
    except NotACheckpointError:  # a folder with a tokenizer alone
        return Tokenizer.of(tokenizer)


def to_torch(array: numpy.ndarray[Any, Any]) -> torch.Tensor:
    """View an array as a tensor, bfloat16 included; memory is shared.

    Args:
        array: such as ``Checkpoint.read`` returns. One that cannot be written to, such as a mapped
            file's, is copied: torch has no such tensors.
    """
    from llamakit.runtime.stored_weights import to_torch as view

    return view(array)
