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
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, LlamaFileType
from gguf.quants import quantize

from llamakit.checkpoint.atomic_folder import check_space
from llamakit.checkpoint.layout import expected_parameters
from llamakit.convert.source_files import small_files_of
from llamakit.errors import OptionError, ParametersError, UnsupportedModelError
from llamakit.protocols import Checkpoint, Parameter
from llamakit_gguf.metadata import add_metadata, rope_divisors
from llamakit_gguf.names import ROPE_FREQS, to_gguf
from llamakit_gguf.tensors import Values
from llamakit_gguf.vocabulary import add_vocabulary, read_vocabulary

OPTIONS = ("outtype", "tokenizer", "instruct", "progress", "direct")
"""``progress`` and ``direct`` are what the command and the built-in exporters know, too."""
KINDS = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32, "float32"),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16, "float16"),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16, "bfloat16"),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0, None),
    "q4_0": (GGMLQuantizationType.Q4_0, LlamaFileType.MOSTLY_Q4_0, None),
}
"""By outtype: what tensors and the file are called, and the dtype whose bytes are the same."""
_BLOCK = 1 << 20  # values that are in memory at a time
_ROOM_FOR_METADATA = 16 << 20


@dataclass(frozen=True)
class Tensor:
    """A tensor of the file, and the parameter that it is made of."""

    name: str
    parameter: Parameter
    kind: GGMLQuantizationType

    @property
    def nbytes(self) -> int:
        """How many bytes it takes in the file, without padding."""
        values, nbytes = GGML_QUANT_SIZES[self.kind]
        return self.parameter.numel // values * nbytes


def export(
    checkpoint: Checkpoint, destination: Path, options: Mapping[str, Any]
) -> dict[str, object]:
    """Write ``NAME-OUTTYPE.gguf`` into a folder to be made; memory does not grow with the model.

    Args and options: as ``export_gguf``.
    Returns:
        ``files`` with the name and size of each, ``nbytes``, ``nbytes_read``, ``notes``.

    Raises:
        OptionError: an option that there is not, or of a wrong value.
        ParametersError: parameters are missing, or are of another model.
        TokenizerError: the tokenizer is absent, or of another model.
        UnsupportedModelError: GGUF has no word for how its rotary embedding is scaled.
        NoSpaceError: there is no room.
    """
    outtype = _outtype(checkpoint, options)
    tensors = plan(checkpoint, KINDS[outtype][0])
    divisors = rope_divisors(checkpoint)
    given, instruct = options.get("tokenizer"), options.get("instruct")
    with small_files_of(checkpoint) as (folder, own):
        tokenizer = Path(given) if given else own
        vocabulary = read_vocabulary(checkpoint, tokenizer, folder, instruct)
    check_space(destination.parent, sum(it.nbytes for it in tensors) + _ROOM_FOR_METADATA)
    name = checkpoint.path.resolve().name.removesuffix(".gguf")
    read_before = checkpoint.nbytes_read
    destination.mkdir()
    file = destination / f"{name}-{outtype}.gguf"
    with contextlib.closing(GGUFWriter(file, "llama")) as writer:
        add_metadata(writer, checkpoint, name, KINDS[outtype][1])
        add_vocabulary(writer, vocabulary)
        write_tensors(writer, checkpoint, tensors, divisors, options.get("progress"))
    nbytes = file.stat().st_size
    return {
        "files": [{"name": file.name, "nbytes": nbytes}],
        "nbytes": nbytes,
        "nbytes_read": checkpoint.nbytes_read - read_before,
        "notes": [vocabulary.note],
    }


def plan(checkpoint: Checkpoint, kind: GGMLQuantizationType) -> list[Tensor]:
    """Say which tensors the file has, in order.

    Vectors are float32, which is what GGML adds and multiplies with. A matrix whose rows cannot be
    cut into the blocks of ``kind`` is float16, and one warning names it.

    Raises:
        ParametersError: parameters are missing, or are of another model.
        UnsupportedModelError: it is a Llama 4.
    """
    if "moe_args" in checkpoint.params.extra:
        raise UnsupportedModelError(
            f"{checkpoint.path} is a Llama 4, a mixture of experts, and only Llama 1, 2, 3 and "
            "Code Llama are written as GGUF here: export it with --format hf, and convert that "
            "with llama.cpp's convert_hf_to_gguf.py"
        )
    names = tensor_names(checkpoint)
    found = set(checkpoint.parameters) - {"rope.freqs"}
    if checkpoint.params.tied_embeddings:
        found -= {"output.weight"}
    for fault, odd in (("missing", set(names) - found), ("unknown", found - set(names))):
        if odd:
            raise ParametersError(
                f"{checkpoint.path}: parameters are {fault}: {', '.join(sorted(odd)[:8])}. "
                "The weights and their params are of two models, or a part is missing; bring "
                "both from the same download."
            )
    tensors = [
        Tensor(theirs, checkpoint.parameters[name], _kind(checkpoint.parameters[name], kind))
        for name, theirs in names.items()
    ]
    _name_uneven(tensors, kind)
    return tensors


def tensor_names(checkpoint: Checkpoint) -> dict[str, str]:
    """Map Meta's names to GGUF's, in the order of the model."""
    names = expected_parameters(checkpoint.params)
    # llama.cpp takes the embedding where there is no output layer
    return {name: to_gguf(name) for name in names}


def write_tensors(
    writer: GGUFWriter,
    checkpoint: Checkpoint,
    tensors: list[Tensor],
    divisors: npt.NDArray[np.float32] | None,
    progress: Callable[[int], None] | None,
) -> None:
    """Write the header and the index, then every tensor a block of rows after the other."""
    if divisors is not None:
        writer.add_tensor_info(ROPE_FREQS, divisors.shape, divisors.dtype, divisors.nbytes)
    for tensor in tensors:
        writer.add_tensor_info(
            tensor.name, tensor.parameter.shape, np.dtype("float32"), tensor.nbytes, tensor.kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if divisors is not None:
        writer.write_tensor_data(divisors)
    for tensor in tensors:
        writer.write_tensor_data(_Rows(checkpoint, tensor, progress))  # type: ignore[arg-type]


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
    step = max(1, _BLOCK // math.prod(parameter.shape[1:]))
    for start in range(0, parameter.shape[0], step):
        stop = min(start + step, parameter.shape[0])
        yield checkpoint.read(parameter.name, start=start, stop=stop)


def _converted(rows: Values, kind: GGMLQuantizationType) -> Values:
    if any(kind == known and rows.dtype.name == dtype for known, _, dtype in KINDS.values()):
        return rows
    with np.errstate(all="ignore"):
        values: Values = quantize(rows.astype(np.float32), kind)
    return values


def _kind(parameter: Parameter, wanted: GGMLQuantizationType) -> GGMLQuantizationType:
    if len(parameter.shape) < 2:
        return GGMLQuantizationType.F32
    values, _ = GGML_QUANT_SIZES[wanted]
    return GGMLQuantizationType.F16 if parameter.shape[-1] % values else wanted


def _name_uneven(tensors: list[Tensor], wanted: GGMLQuantizationType) -> None:
    uneven = [it.parameter for it in tensors if len(it.parameter.shape) > 1 and it.kind != wanted]
    if uneven:
        _log().warning(
            "%s%s: rows of %d values cannot be split into the blocks of %d that %s has; "
            "stored as f16",
            uneven[0].name,
            f" and {len(uneven) - 1} more" if len(uneven) > 1 else "",
            uneven[0].shape[-1],
            GGML_QUANT_SIZES[wanted][0],
            wanted.name.lower(),
        )


def _outtype(checkpoint: Checkpoint, options: Mapping[str, Any]) -> str:
    for name in options:
        if name not in OPTIONS:
            raise OptionError(
                f"the gguf export has no option {name!r}; it has outtype, tokenizer, instruct"
            )
    given = options.get("outtype")
    if given is not None and given not in KINDS:
        raise OptionError(f"outtype is {given!r}; it has to be one of {', '.join(KINDS)}")
    stored = max(checkpoint.parameters.values(), key=lambda it: it.numel).dtype
    own = {dtype: outtype for outtype, (_, _, dtype) in KINDS.items()}
    if given is None and stored not in own:
        raise OptionError(
            f"{checkpoint.path} is stored as {stored}, which GGUF has no name for; say what to "
            f"write with --option outtype=, one of {', '.join(KINDS)}"
        )
    return given or own[stored]


def _log() -> logging.Logger:
    return logging.getLogger("llamakit.gguf")
