"""Works out the GGUF file that an export writes: its tensors, its metadata, and its exact size."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, LlamaFileType

from llamakit.checkpoint.layout import expected_parameters
from llamakit.convert.source_files import small_files_of
from llamakit.errors import OptionError, ParametersError, UnsupportedModelError
from llamakit.protocols import Checkpoint, Parameter
from llamakit_gguf.metadata import add_metadata, rope_divisors
from llamakit_gguf.names import ROPE_FREQS, to_gguf
from llamakit_gguf.vocabulary import Vocabulary, add_vocabulary, read_vocabulary

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
BLOCK = 1 << 20
"""Values of a tensor that are in memory at a time."""


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


@dataclass(frozen=True)
class GGUFPlan:
    """The file that is written."""

    checkpoint: Checkpoint
    outtype: str
    tensors: tuple[Tensor, ...]
    divisors: npt.NDArray[np.float32] | None
    """``(head_dim / 2,)``, the tensor ``rope_freqs.weight``."""
    vocabulary: Vocabulary

    @property
    def model_name(self) -> str:
        """What the file says the model is called."""
        return self.checkpoint.path.resolve().name.removesuffix(".gguf")

    @property
    def file_name(self) -> str:
        """Such as ``llama-2-7b-q8_0.gguf``."""
        return f"{self.model_name}-{self.outtype}.gguf"

    @property
    def nbytes_read(self) -> int:
        """How many bytes are read of the checkpoint's weights."""
        read = [tensor.parameter for tensor in self.tensors]
        return sum(it.numel * np.dtype(it.dtype).itemsize for it in read)

    def nbytes(self) -> int:
        """Return the exact size of the file, whose header is written aside for that."""
        with TemporaryDirectory(prefix="llamakit-") as folder:
            file = Path(folder, "header")
            with contextlib.closing(GGUFWriter(file, "llama")) as writer:
                self.write_header(writer)
                alignment = writer.data_alignment
            sizes = [file.stat().st_size, *(tensor.nbytes for tensor in self.tensors)]
        if self.divisors is not None:
            sizes.append(self.divisors.nbytes)
        return sum(GGUFWriter.ggml_pad(size, alignment) for size in sizes)

    def write_header(self, writer: GGUFWriter) -> None:
        """Write all that comes before the tensors' values."""
        add_metadata(writer, self.checkpoint, self.model_name, KINDS[self.outtype][1])
        add_vocabulary(writer, self.vocabulary)
        if (divisors := self.divisors) is not None:
            writer.add_tensor_info(ROPE_FREQS, divisors.shape, divisors.dtype, divisors.nbytes)
        for tensor in self.tensors:
            writer.add_tensor_info(
                tensor.name, tensor.parameter.shape, np.dtype("float32"), tensor.nbytes, tensor.kind
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()


def plan_file(checkpoint: Checkpoint, options: Mapping[str, Any]) -> GGUFPlan:
    """Work out the file.

    Args and options: as ``GGUFExporter``.

    Raises:
        OptionError: an option that there is not, or of a wrong value.
        ParametersError: parameters are missing, or are of another model.
        TokenizerError: the tokenizer is absent, or of another model.
        UnsupportedModelError: GGUF has no word for how its rotary embedding is scaled.
    """
    outtype = _outtype(checkpoint, options)
    tensors = plan_tensors(checkpoint, KINDS[outtype][0])
    divisors = rope_divisors(checkpoint)
    given, instruct = options.get("tokenizer"), options.get("instruct")
    with small_files_of(checkpoint) as (folder, own):
        tokenizer = Path(given) if given else own
        vocabulary = read_vocabulary(checkpoint, tokenizer, folder, instruct)
    return GGUFPlan(checkpoint, outtype, tuple(tensors), divisors, vocabulary)


def plan_export(checkpoint: Checkpoint, options: Mapping[str, Any]) -> dict[str, object]:
    """Say what an export writes, as llamakit's ``--plan`` asks it.

    Args, options and Raises: as ``plan_file``.
    """
    plan = plan_file(checkpoint, options)
    return {
        "files": [{"name": plan.file_name, "nbytes": plan.nbytes()}],
        "nbytes_read": plan.nbytes_read,
        "memory_nbytes": 3 * 4 * BLOCK,  # the values that are read, as float32, and as written
        "notes": [plan.vocabulary.note],
    }


def plan_tensors(checkpoint: Checkpoint, kind: GGMLQuantizationType) -> list[Tensor]:
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


def _kind(parameter: Parameter, wanted: GGMLQuantizationType) -> GGMLQuantizationType:
    if len(parameter.shape) < 2:
        return GGMLQuantizationType.F32
    values, _ = GGML_QUANT_SIZES[wanted]
    return GGMLQuantizationType.F16 if parameter.shape[-1] % values else wanted


def _name_uneven(tensors: list[Tensor], wanted: GGMLQuantizationType) -> None:
    uneven = [it.parameter for it in tensors if len(it.parameter.shape) > 1 and it.kind != wanted]
    if uneven:
        logging.getLogger("llamakit.gguf").warning(
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
