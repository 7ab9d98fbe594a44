"""A Meta checkpoint: a folder of consolidated.NN.pth and params.json."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from llamakit.checkpoint import llama4, vision
from llamakit.checkpoint.checklist import MODEL_CHECKLIST
from llamakit.checkpoint.dtypes import Array
from llamakit.checkpoint.families import LLAMA_4, WIDEST_TIED
from llamakit.checkpoint.family_detection import detect_family, embedding_axis, read_origin
from llamakit.checkpoint.layout import EMBEDDING, OUTPUT, axis_of, expected_shapes
from llamakit.checkpoint.other_checkpoints import explain_other
from llamakit.checkpoint.params import ModelParams, family_by_numbers, parse_params, read_params
from llamakit.checkpoint.shard_checks import check_shards
from llamakit.checkpoint.shard_plan import copies, pieces, valid_sizes
from llamakit.checkpoint.shards import (
    check_alike,
    check_none_missing,
    find_shards,
    open_shard,
    warn_of_renamed,
)
from llamakit.checkpoint.tensor_file import TensorFile
from llamakit.checkpoint.tensor_names import (
    AS_STORED,
    StateDictOptions,
    stripped,
)
from llamakit.protocols import Finding, Parameter, RawRegion


class MetaCheckpoint:
    """A model in Meta's format, opened from the indexes of its shards."""

    form = "meta"

    def __init__(
        self,
        path: Path,
        params: ModelParams,
        shards: Sequence[TensorFile],
        embedding_axis: int,
        *,
        left_out: Sequence[str] = (),
    ) -> None:
        self.path = path
        self.params = params
        self.shards = shards
        """In order of rank, all split alike."""
        self.embedding_axis = embedding_axis
        """The axis on which ``tok_embeddings.weight`` is split."""
        self.generation = family_by_numbers(params).name
        """``llama 1/2``, ``code llama``, ``llama 3`` or ``llama 4``."""
        self.left_out = left_out
        """What the files hold besides the text model, a sentence each."""
        self.parameters: Mapping[str, Parameter] = _whole_parameters(params, shards, embedding_axis)
        self.nbytes_read = 0
        self._lock = threading.Lock()

    def read(self, name: str, *, axis: int = 0, start: int = 0, stop: int | None = None) -> Array:
        """Read one parameter, or the slice ``start:stop`` of it along ``axis``.

        A slice of one shard is a view of the file; a slice of several shards is a copy.
        Of a parameter that every shard holds, shard 0's is read.

        Raises:
            KeyError: no such parameter.
            ValueError: no such axis or slice.
            DamagedFileError: a shard has changed since it was opened.
        """
        parameter = self.parameters[name]
        if not parameter.shape and (axis, start, stop) == (0, 0, None):
            array = self.shards[0].array(name)
        else:
            array = self._assemble(parameter, axis, start, stop)
        with self._lock:
            self.nbytes_read += array.nbytes
        return array

    def raw_regions(self, name: str) -> list[RawRegion] | None:
        """Say where a parameter is; None if its values are not one after the other.

        Raises:
            DamagedFileError: a shard has changed since it was opened.
        """
        parameter = self.parameters[name]
        step = copies(name, self.params, len(self.shards))
        shards = self.shards[:1] if parameter.axis is None else self.shards[::step]
        if not all(shard.tensors[name].contiguous for shard in shards):
            return None
        return [shard.region(shard.tensors[name]) for shard in shards]

    def stored_names(self) -> list[str]:
        """Return the names in the order that the shards have them in."""
        return list(self.shards[0].tensors)

    def model_parallel_size(self) -> int:
        """Return how many shards there are."""
        return len(self.shards)

    def weight_files(self) -> list[Path]:
        """Return the shards, by number."""
        return [shard.path for shard in self.shards]

    def companion_files(self, target: str) -> list[Path]:
        """Return params.json, which a reshard keeps unless Meta's code could not read it.

        It describes what is left out, or is Mistral's; weights of a trainer may have none.
        """
        params = self.path / "params.json"
        is_kept = not self.left_out and self.params.multiple_of is not None and params.exists()
        return [params] if target == "meta" and is_kept else []

    def deep_checks(self) -> Iterator[Finding]:
        """Check that several shards are of one model, each once and in its place."""
        return check_shards(self.shards, self.parameters, self.params)

    def oddities(self) -> Iterator[str]:
        """Say that there is no checklist, or a number of shards that does not fit the model."""
        yield from self.left_out
        if not (self.path / MODEL_CHECKLIST).is_file():
            yield f"no {MODEL_CHECKLIST}, so llamakit verify has no checksums to compare with"
        if len(self.shards) not in valid_sizes(self.params):
            yield (
                f"there are {len(self.shards)} shards, but the model cannot be split into so many"
            )

    def _assemble(self, parameter: Parameter, axis: int, start: int, stop: int | None) -> Array:
        start, stop = _checked_slice(parameter, axis, start, stop)
        split_axis = axis if parameter.axis is None else parameter.axis
        within = (start, stop) if axis == split_axis else (0, parameter.shape[split_axis])
        parts = []
        for piece in pieces(parameter, self.params, len(self.shards), *within):
            shard = self.shards[piece.shard]
            tensor = shard.tensors[parameter.name].narrow(split_axis, piece.start, piece.stop)
            parts.append(
                shard.view(tensor if axis == split_axis else tensor.narrow(axis, start, stop))
            )
        if not parts:
            return self.shards[0].read(parameter.name, axis=split_axis, start=0, stop=0)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=split_axis)


def open_meta(path: Path, options: StateDictOptions = AS_STORED) -> MetaCheckpoint | None:
    """Open a folder of consolidated.NN.pth and params.json from its indexes.

    The shards may have any number of digits; a single consolidated.pth is a shard too.

    Args:
        options: where in each file the weights are, and what their names lose.
    Returns:
        The checkpoint, or None if the folder is in another format.

    Raises:
        NotACheckpointError: it is a model of another tool; the message says how it becomes one.
        MissingShardError: there is no shard, or a gap in their numbers, or too few for the model.
        DamagedFileError: a shard is damaged or something else.
        UnsafePickleError: a shard's pickle asks for something that no tensor needs.
        ParamsError: params.json is absent or wrong.
        ParametersError: the shards are not of one model.
    """
    files = find_shards(path)
    params_path = path / "params.json"
    if not files:
        if not (path / "config.json").exists():
            explain_other(path)
        return None
    values = read_params(params_path)
    opened = [open_shard(shard, options.key) for shard in files]
    warn_of_renamed(opened)
    check_alike(opened)
    stored = _with_metas_names(opened, options)
    left_out = tuple(vision.left_out(stored[0].tensors))
    values = vision.text_params(values) if left_out else values
    shards = [shard.renamed(vision.text_tensors(shard.tensors)) for shard in stored]
    vocab_size = _vocab_size(shards, values.get("dim"))
    params = parse_params(values, params_path, vocab_size=vocab_size)
    params, axis = resolve(params, path, shards)
    if params.family == LLAMA_4.name:
        shards = [
            shard.renamed(llama4.unstack(shard.tensors, params, len(shards))) for shard in shards
        ]
    check_none_missing(params.dim, shards)
    return MetaCheckpoint(path, params, shards, axis, left_out=left_out)


def _with_metas_names(
    shards: Sequence[TensorFile], options: StateDictOptions
) -> Sequence[TensorFile]:
    """Take the prefixes off names, or say that there are some.

    Raises:
        ParametersError: names have prefixes and are to keep them, or have none.
    """
    first = shards[0]
    if options.strip_prefix is None and any(vision.left_out(first.tensors)):
        return shards  # the prefix of its text model is Meta's
    new = stripped(first.tensors, options.strip_prefix, str(first.path))
    return [
        shard.renamed({new[name]: tensor for name, tensor in shard.tensors.items()})
        for shard in shards
    ]


def resolve(
    params: ModelParams, path: Path, shards: Sequence[TensorFile]
) -> tuple[ModelParams, int]:
    """Complete the params with what the shards show; return also the embedding's axis."""
    embedding = shards[0].tensors.get(EMBEDDING)
    shape = None if embedding is None else embedding.shape
    axis = embedding_axis(shape, params.dim, len(shards), path)
    family = detect_family(params, path, axis, shards[0].tensors)
    tied = _is_tied(params, path, shards[0])
    params = replace(params, family=family.name, tied_embeddings=tied)
    return params, family.embedding_axis if axis is None else axis


def _checked_slice(
    parameter: Parameter, axis: int, start: int, stop: int | None
) -> tuple[int, int]:
    if not 0 <= axis < len(parameter.shape):
        raise ValueError(f"{parameter.name} of shape {parameter.shape} has no axis {axis}")
    stop = parameter.shape[axis] if stop is None else stop
    if not 0 <= start <= stop <= parameter.shape[axis]:
        raise ValueError(
            f"{parameter.name} of shape {parameter.shape} has no slice {start}:{stop} "
            f"along axis {axis}"
        )
    return start, stop


def _vocab_size(shards: Sequence[TensorFile], dim: object) -> int | None:
    """Take the vocabulary from the output layer, else from the embedding."""
    for name in (OUTPUT, EMBEDDING):
        tensor = shards[0].tensors.get(name)
        if tensor is not None and len(tensor.shape) == 2 and tensor.shape[0]:
            cut_on_rows = name == OUTPUT or tensor.shape[1] == dim
            return tensor.shape[0] * (len(shards) if cut_on_rows else 1)
    return None


def _is_tied(params: ModelParams, path: Path, shard: TensorFile) -> bool:
    """Say whether the output layer is the embedding: both are stored once, or it is left out.

    What llamakit writes says so where the two are split on different axes, so stored twice.
    """
    output = shard.tensors.get(OUTPUT)
    if read_origin(path).get("tied_embeddings") is True:
        return True
    if output is None:
        return params.use_scaled_rope and params.dim <= WIDEST_TIED
    return output == shard.tensors.get(EMBEDDING)


def _whole_parameters(
    params: ModelParams, shards: Sequence[TensorFile], embedding_axis: int
) -> dict[str, Parameter]:
    """Describe what the shards hold together, in the order of the model, then what is extra."""
    tensors = shards[0].tensors
    order = [name for name in expected_shapes(params) if name in tensors]
    parameters = {}
    for name in dict.fromkeys([*order, *tensors]):
        shape = list(tensors[name].shape)
        axis = axis_of(name, embedding_axis)
        if axis is not None and axis < len(shape):
            shape[axis] *= len(shards) // copies(name, params, len(shards))
        else:
            axis = None
        parameters[name] = Parameter(name, tuple(shape), tensors[name].dtype, axis)
    return parameters
