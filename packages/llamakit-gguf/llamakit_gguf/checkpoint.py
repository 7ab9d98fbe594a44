"""A GGUF file of a Llama as a checkpoint in Meta's terms."""

from __future__ import annotations

import dataclasses
import functools
import logging
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from llamakit.checkpoint.layout import expected_parameters
from llamakit.checkpoint.params import ModelParams
from llamakit.errors import ParametersError, TokenizerError, UnsupportedModelError
from llamakit.printable import listed
from llamakit.protocols import Parameter, RawRegion
from llamakit.tokenizer.rank_tokenizer import RankTokenizer
from llamakit.tokenizer.sentencepiece import SentencePieceTokenizer
from llamakit_gguf.header import Header, Value
from llamakit_gguf.names import ROPE_FREQS, to_meta
from llamakit_gguf.params import check_architecture, read_params
from llamakit_gguf.tensors import PLAIN, Tensor, Values, find_tensors, read_headers, read_rows
from llamakit_gguf.tokenizers import load, tokenizer_files

_LONGEST_VECTOR = 1 << 17
"""Values: 405B's have 16,384."""
_EMBEDDING, _OUTPUT = "tok_embeddings.weight", "output.weight"


class GGUFCheckpoint:
    """A GGUF file, or several that a model is split into; quantized values are read as float32.

    Vectors are float32 in every file. Where the matrices are bfloat16 or float16 and these hold
    every value of a vector exactly, it is read as that: it was that before it became a GGUF.
    """

    form = "gguf"

    def __init__(
        self,
        path: Path,
        params: ModelParams,
        metadata: Mapping[str, Value],
        sources: Mapping[str, Tensor],
        parameters: Mapping[str, Parameter],
    ) -> None:
        self.path = path
        self.params = params
        self.metadata = metadata
        self.parameters = parameters
        self.nbytes_read = 0
        self._sources = sources
        self._lock = threading.Lock()

    def read(self, name: str, *, axis: int = 0, start: int = 0, stop: int | None = None) -> Values:
        """Read one parameter, or the slice ``start:stop`` of it along ``axis``.

        Raises:
            KeyError: no such parameter.
            ValueError: no such axis.
            DamagedFileError: the file ends before the bytes do.
        """
        tensor, parameter = self._sources[name], self.parameters[name]
        if axis not in range(len(tensor.shape)):
            raise ValueError(f"a tensor of shape {tensor.shape} has no axis {axis}")
        start, stop, _ = slice(start, stop).indices(tensor.shape[axis])
        stop = max(start, stop)
        if axis == 0:
            values = read_rows(tensor, start, stop)
        else:
            values = read_rows(tensor, 0, tensor.shape[0], slice(start, stop))
        if parameter.dtype != tensor.dtype:
            values = values.astype(parameter.dtype)
        with self._lock:
            self.nbytes_read += values.nbytes
        return values

    def raw_regions(self, name: str) -> list[RawRegion] | None:
        """Say where a parameter is whose bytes are its values; None for others."""
        tensor = self._sources[name]
        if tensor.kind not in PLAIN or self.parameters[name].dtype != tensor.dtype:
            return None
        return [RawRegion(tensor.path, tensor.offset, tensor.shape)]

    def stored_names(self) -> list[str]:
        """Return the names in the order of the bytes."""
        return sorted(
            self.parameters, key=lambda it: (self._sources[it].path, self._sources[it].offset)
        )

    def weight_files(self) -> list[Path]:
        """Return the files, in order."""
        return sorted({self.path, *(tensor.path for tensor in self._sources.values())})

    def embedded_files(self) -> dict[str, bytes]:
        """Return the tokenizer, chat template and stop tokens that are in the file.

        A tokenizer of another kind than Llama's is none: the weights are of use without it.
        """
        return dict(self._embedded_files)

    @functools.cached_property
    def _embedded_files(self) -> Mapping[str, bytes]:
        try:
            return tokenizer_files(self.metadata, self.path, self.params)
        except TokenizerError as error:
            logging.getLogger("llamakit").warning("the tokenizer is left out: %s", error)
            return {}

    def oddities(self) -> list[str]:
        """Say which types the tensors are of, where some are quantized."""
        kinds = [tensor.kind for tensor in self._sources.values()]
        counts = {kind.name: kinds.count(kind) for kind in dict.fromkeys(kinds)}
        if all(kind in PLAIN for kind in kinds):
            return []
        shown = ", ".join(f"{count} in {name}" for name, count in counts.items())
        return [f"quantized: {shown}; its values are read as float32"]


def open_gguf(path: Path) -> GGUFCheckpoint:
    """Open a GGUF file of a Llama, from its index and its norms.

    Raises:
        DamagedFileError: it is truncated, or damaged.
        MissingShardError: it is one of several, and one is not there.
        UnsupportedModelError: it is another kind of model, or of a type that is not read.
        ParametersError: it holds tensors that no Llama has, or lacks the embedding.
        ParamsError: its numbers are missing or wrong.
    """
    headers = read_headers(path)
    for header in headers[:1]:
        check_architecture(header.metadata, path)
    tensors = find_tensors(headers)
    divisors = tensors.pop(ROPE_FREQS, None)
    sources = _named(tensors, path)
    params = _params(headers, path, sources, divisors)
    parameters = {
        name: dataclasses.replace(
            parameter, shape=sources[name].shape, dtype=_dtype(sources[name], sources)
        )
        for name, parameter in _expected(params, sources).items()
    }
    return GGUFCheckpoint(path, params, headers[0].metadata, sources, parameters)


def _params(
    headers: list[Header], path: Path, sources: Mapping[str, Tensor], divisors: Tensor | None
) -> ModelParams:
    embedding = sources.get(_EMBEDDING)
    if embedding is None or len(embedding.shape) != 2:
        raise ParametersError(
            f"{path} has no matrix token_embd.weight, so it is a vocabulary alone or a part of a "
            "model; take the whole file."
        )
    values = None
    if divisors is not None:
        if len(divisors.shape) != 1 or divisors.shape[0] > _LONGEST_VECTOR:
            raise ParametersError(
                f"{path}: {ROPE_FREQS} is {divisors.shape}; expected a number for each frequency."
            )
        values = read_rows(divisors, 0, divisors.shape[0])
    return read_params(
        headers[0].metadata, path, embedding.shape[0], tied=_OUTPUT not in sources, divisors=values
    )


def _named(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return tensors by Meta's names."""
    names = {theirs: to_meta(theirs) for theirs in tensors}
    unknown = [theirs for theirs, name in names.items() if name is None]
    if biases := [theirs for theirs in unknown if theirs.endswith(".bias")]:
        raise UnsupportedModelError(
            f"{path} has the bias {listed(biases[:1])}; Meta's format has no biases, so this model "
            "cannot be read. Run it with llama.cpp."
        )
    if unknown:
        raise ParametersError(
            f"{path} has tensors that no Llama has: {listed(unknown)}. Expected names such as "
            "blk.0.attn_q.weight; run the model with llama.cpp."
        )
    if flat := [theirs for theirs, it in tensors.items() if len(it.shape) > 2]:
        raise ParametersError(f"{path}: {listed(flat)} have more than two axes; no Llama's do.")
    return {name: tensors[theirs] for theirs, name in names.items() if name is not None}


def _expected(params: ModelParams, sources: Mapping[str, Tensor]) -> dict[str, Parameter]:
    """Return the parameters that are there, those of the model in its order first."""
    expected = expected_parameters(params)
    return {name: it for name, it in expected.items() if name in sources} | {
        name: Parameter(name, sources[name].shape, "", None)
        for name in sources
        if name not in expected
    }


def _dtype(tensor: Tensor, sources: Mapping[str, Tensor]) -> str:
    """Return what a tensor is read as: a vector as the matrices are, if that keeps every value."""
    wanted = sources[_EMBEDDING].dtype
    is_short = len(tensor.shape) == 1 and tensor.shape[0] <= _LONGEST_VECTOR
    if not is_short or tensor.dtype != "float32" or wanted == "float32":
        return tensor.dtype
    values = read_rows(tensor, 0, tensor.shape[0])
    with np.errstate(all="ignore"):
        narrowed = values.astype(wanted).astype(np.float32)
    return wanted if narrowed.tobytes() == values.tobytes() else tensor.dtype


def load_tokenizer(path: Path) -> SentencePieceTokenizer | RankTokenizer | None:
    """Load the tokenizer of a GGUF file; None where it has none.

    Raises: as ``open_gguf``, and
        TokenizerError: it is of another kind than Llama's, or damaged.
    """
    header = read_headers(path)[0]
    try:
        params = open_gguf(path).params
    except ParametersError:  # a vocabulary alone
        params = None
    return load(header.metadata, path, params)
