"""Writes a distributed checkpoint: a file for each shard, and the index that torch reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llamakit.checkpoint.capabilities import model_parallel_size
from llamakit.checkpoint.file_layout import TensorSpec
from llamakit.checkpoint.hf_names import to_huggingface
from llamakit.checkpoint.saved_tensors_layout import SavedTensorsLayout
from llamakit.convert.companion_files import meta_companions
from llamakit.convert.conversion_plan import ConversionPlan, SmallFile
from llamakit.convert.export import check_options
from llamakit.convert.moves import WeightFile
from llamakit.convert.slices_plan import ParameterSlice, plan_slices, slice_parameters
from llamakit.errors import OptionError
from llamakit.protocols import Checkpoint, Parameter, RowOrder, ToolCommand
from llamakit_dcp import __version__
from llamakit_dcp.metadata import METADATA, ChunkPlace, TensorEntry
from llamakit_dcp.metadata_writer import metadata_bytes

OPTIONS = ("shards", "names", "prefix")
_NAMES: Mapping[str, tuple[Callable[[str], str | None], RowOrder]] = {
    "torchtitan": (str, "meta"),
    "huggingface": (to_huggingface, "huggingface"),
}
"""By option: what a parameter is called, and in which order rows of queries and keys are."""


def plan_export(
    checkpoint: Checkpoint, destination: Path, options: Mapping[str, Any]
) -> ConversionPlan:
    """Plan a folder that torch's readers load; its writer's memory does not grow with the model.

    Args:
        checkpoint: what is read.
        destination: the folder to make.
        options: those of ``DCPExporter``.

    Raises:
        OptionError: an option that there is not, or of a wrong value.
        ParametersError: parameters are missing, or are of another model.
        UnsupportedModelError: a model that the format's names do not fit.
    """
    check_options(options, OPTIONS)
    size = _size(options.get("shards") or model_parallel_size(checkpoint))
    style = options.get("names") or "torchtitan"
    if style not in _NAMES:
        raise OptionError(f"names is {style!r}; it has to be one of {', '.join(_NAMES)}")
    translate, order = _NAMES[style]
    prefix = _prefix(options.get("prefix") or "")
    slices = [
        [it for it in parts if translate(it.name)]  # Hugging Face has no rope.freqs
        for parts in slice_parameters(checkpoint, size)
    ]
    slices = [parts for parts in slices if parts]
    layouts = [
        SavedTensorsLayout(
            [TensorSpec(f"{prefix}{translate(it.name)}", it.source.dtype, it.shape) for it in parts]
        )
        for parts in slices
    ]
    files = [WeightFile(f"__{rank}_0.distcp", layout) for rank, layout in enumerate(layouts)]
    small = meta_companions(checkpoint)
    small.append(SmallFile(METADATA, _metadata(slices, layouts, files, prefix)))
    asked = {name: options[name] for name in OPTIONS if name in options}
    command = ToolCommand("export", {"format": "dcp", **asked}, f"llamakit-dcp {__version__}")
    return plan_slices(checkpoint, destination, slices, files, small, order=order, command=command)


def _metadata(
    slices: Sequence[Sequence[ParameterSlice]],
    layouts: Sequence[SavedTensorsLayout],
    files: Sequence[WeightFile],
    prefix: str,
) -> bytes:
    chunks: dict[str, list[ChunkPlace]] = {}
    sources: dict[str, Parameter] = {}
    for parts, layout, file in zip(slices, layouts, files, strict=True):
        for part, spec, place in zip(parts, layout.stored, layout.places, strict=True):
            chunk = ChunkPlace(part.offsets, part.shape, file.name, *place)
            chunks.setdefault(spec.name, []).append(chunk)
            sources[spec.name] = part.source
    tensors = {
        name: TensorEntry(sources[name].shape, sources[name].dtype, tuple(places))
        for name, places in chunks.items()
    }
    return metadata_bytes(tensors, {name: _path(name, prefix) for name in tensors})


def _path(name: str, prefix: str) -> tuple[str, ...]:
    """Say in which dicts of a state dict a tensor is: those of the prefix, and its name."""
    return (*prefix.split(".")[:-1], name.removeprefix(prefix))


def _size(value: Any) -> int:
    try:
        return int(value)
    except ValueError:
        raise OptionError(f"shards is {value!r:.60}; it has to be a number of files") from None


def _prefix(prefix: str) -> str:
    if prefix and (not prefix.endswith(".") or not prefix.isprintable() or prefix.startswith(".")):
        raise OptionError(f"prefix is {prefix!r:.60}; it has to end with a dot, such as model.")
    return prefix
