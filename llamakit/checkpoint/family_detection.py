"""Decides which family of Llama a checkpoint is of, from everything that is there.

No number alone decides: finetunes of Llama 2 have Llama 3's rotary base, and tokenizers of other
models are in parent folders. Each piece of evidence has a weight, and the sum decides.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llamakit.checkpoint.families import FAMILIES, LLAMA_3, Family
from llamakit.checkpoint.params import ModelParams, family_by_numbers
from llamakit.checkpoint.provenance_reader import read_steps
from llamakit.errors import DamagedFileError
from llamakit.files.regular_file import open_regular
from llamakit.files.tokenizer_kind import tokenizer_kind

if TYPE_CHECKING:
    from llamakit.protocols import Checkpoint

_EMBEDDING, _ROPE_FREQS = "tok_embeddings.weight", "rope.freqs"
_KINDS = {"ranks": 1, "sentencepiece": -1, None: 0}
_TOKENIZER_JSON_HEAD = 1 << 20
"""The settings of a tokenizer.json come before its vocabulary."""


def family_of(checkpoint: Checkpoint) -> Family:
    """Return the family of a checkpoint of any format."""
    if checkpoint.params.family in FAMILIES:
        return FAMILIES[checkpoint.params.family]
    embedding = checkpoint.parameters.get(_EMBEDDING)
    axis = None if embedding is None else embedding.axis
    return detect_family(checkpoint.params, checkpoint.path, axis, checkpoint.parameters)


def detect_family(
    params: ModelParams,
    path: Path | None = None,
    axis: int | None = None,
    names: Collection[str] = (),
) -> Family:
    """Decide which family a model is of.

    Args:
        params: the numbers of the model.
        path: the folder of the checkpoint; the tokenizer is in it or one above.
        axis: the axis on which the embedding is split, where several shards show it.
        names: of the parameters.
    """
    return family_by_numbers(params, sum(_evidence(path, axis, names)))


def _evidence(path: Path | None, axis: int | None, names: Collection[str]) -> Iterator[int]:
    """Yield the weight of what is no number: for Llama 3 if positive, else for Llama 2."""
    if axis is not None:
        yield 2 if axis == LLAMA_3.embedding_axis else -2
    if path is not None:
        yield 2 * _tokenizer_evidence(path)
    if _ROPE_FREQS in names:  # a table that Llama 3's shards no longer have
        yield -1


def _tokenizer_evidence(path: Path) -> int:
    """Return 1 for a tokenizer such as Llama 3's, -1 for one such as Llama 2's, else 0."""
    for folder in (path, path.resolve().parent):
        if (folder / "tokenizer.model").is_file():
            with contextlib.suppress(OSError):
                return _KINDS[tokenizer_kind(folder / "tokenizer.model")]
            return 0
    try:
        with open_regular(path / "tokenizer.json") as file:
            head = file.read(_TOKENIZER_JSON_HEAD)
    except OSError:
        return 0
    if re.search(rb'"byte_fallback":\s*true', head):
        return -1
    return 1 if b'"ByteLevel"' in head else 0


def embedding_axis(
    shard_shape: tuple[int, ...] | None, dim: int, shards: int, path: Path
) -> int | None:
    """Find the axis on which the embedding is split, where the files show it.

    Several shards show it by their shape. One shard does not: there, the ``llamakit.json`` of
    whoever made it may say it.

    Args:
        shard_shape: shape of ``tok_embeddings.weight`` in one shard, if there is one.
        dim: width of the model, in values.
        shards: how many shards there are.
        path: the folder of the checkpoint.
    Returns:
        1 as in Llama 1, 2 and Code Llama, 0 as in Llama 3, or None if nothing shows it.
    """
    if shards > 1 and shard_shape is not None and len(shard_shape) == 2:
        return 0 if shard_shape[1] == dim else 1
    axis = read_origin(path).get("embedding_axis")
    return axis if type(axis) is int and axis in (0, 1) else None


def read_origin(path: Path) -> Mapping[str, object]:
    """Read what llamakit.json says of the model; nothing if there is none that can be read.

    A damaged one is reported by ``inspect`` and ``verify``: the model is loaded without.
    """
    try:
        steps = read_steps(path)
    except DamagedFileError:
        return {}
    return steps[-1].model if steps else {}
