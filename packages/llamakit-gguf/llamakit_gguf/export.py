"""Carries an export out: a plan of tensors, the metadata, then the rows of each tensor.

The tokenizer and the chat template are those of a Hugging Face export, which llama.cpp's own
converter starts from; so keys and values are the converter's.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and ``LlamaModel`` in llama.cpp's
``conversion/llama.py``.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize

from llamakit.checkpoint.atomic_folder import check_space
from llamakit.protocols import Checkpoint, Parameter
from llamakit_gguf.plan import BLOCK, KINDS, GGUFPlan, Tensor, plan_file
from llamakit_gguf.tensors import Values

_ROOM_FOR_METADATA = 16 << 20
"""The exact size takes a second to find where the vocabulary is large."""


def export(
    checkpoint: Checkpoint, destination: Path, options: Mapping[str, Any]
) -> dict[str, object]:
    """Write ``NAME-OUTTYPE.gguf`` into a folder to be made; memory does not grow with the model.

    Args and options: as ``GGUFExporter``.
    Returns:
        ``files`` with the name and size of each, ``nbytes``, ``nbytes_read``, ``notes``.

    Raises: as ``plan_file``, and
        NoSpaceError: there is no room.
    """
    plan = plan_file(checkpoint, options)
    check_space(destination.parent, sum(it.nbytes for it in plan.tensors) + _ROOM_FOR_METADATA)
    read_before = checkpoint.nbytes_read
    destination.mkdir()
    file = destination / plan.file_name
    with contextlib.closing(GGUFWriter(file, "llama")) as writer:
        plan.write_header(writer)
        _write_tensors(writer, plan, options.get("progress"))
    nbytes = file.stat().st_size
    return {
        "files": [{"name": file.name, "nbytes": nbytes}],
        "nbytes": nbytes,
        "nbytes_read": checkpoint.nbytes_read - read_before,
        "notes": [plan.vocabulary.note],
    }


def _write_tensors(
    writer: GGUFWriter, plan: GGUFPlan, progress: Callable[[int], None] | None
) -> None:
    """Write every tensor a block of rows after the other."""
    if plan.divisors is not None:
        writer.write_tensor_data(plan.divisors)
    for tensor in plan.tensors:
        rows = _Rows(plan.checkpoint, tensor, progress)
        writer.write_tensor_data(rows)  # type: ignore[arg-type]  # it calls tofile alone


class _Rows:
    """Passes for an array: what ``write_tensor_data`` asks of one is its size and ``tofile``.

    The rows are read when they are written, so that no tensor is in memory as a whole.
    """

    def __init__(
        self, checkpoint: Checkpoint, tensor: Tensor, progress: Callable[[int], None] | None
    ) -> None:
        self.nbytes = tensor.nbytes
        self._checkpoint = checkpoint
        self._tensor = tensor
        self._progress = progress

    def tofile(self, file: IO[bytes]) -> None:
        infinite = 0
        for rows in _blocks(self._checkpoint, self._tensor.parameter):
            made = _converted(rows, self._tensor.kind)
            if made is not rows and self._tensor.kind == GGMLQuantizationType.F16:
                infinite += np.count_nonzero(np.isinf(made)) - np.count_nonzero(np.isinf(rows))
            file.write(np.ascontiguousarray(made).view(np.uint8).data)
            if self._progress is not None:
                self._progress(rows.nbytes)
        if infinite:
            _log().warning(
                "%s: %d values were too large for float16 and are infinite now; "
                "--option outtype=bf16 or f32 has room for them",
                *(self._tensor.parameter.name, infinite),
            )


def _blocks(checkpoint: Checkpoint, parameter: Parameter) -> Iterator[Values]:
    step = max(1, BLOCK // math.prod(parameter.shape[1:]))
    for start in range(0, parameter.shape[0], step):
        stop = min(start + step, parameter.shape[0])
        yield checkpoint.read(parameter.name, start=start, stop=stop)


def _converted(rows: Values, kind: GGMLQuantizationType) -> Values:
    if any(kind == known and rows.dtype.name == dtype for known, _, dtype in KINDS.values()):
        return rows
    with np.errstate(all="ignore"):
        values: Values = quantize(rows.astype(np.float32), kind)
    return values


def _log() -> logging.Logger:
    return logging.getLogger("llamakit.gguf")
