"""What a checkpoint of any format offers besides ``read``, checked, or a default.

Each function is one optional method of ``protocols.CheckpointCapabilities``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from llamakit.checkpoint.checked_read import describe, is_builtin, naming_the_plugin, slice_shape
from llamakit.checkpoint.dtypes import itemsize
from llamakit.checkpoint.hf_names import is_rotated
from llamakit.checkpoint.quantized_checkpoint import stored_specs
from llamakit.errors import LlamakitError, PluginError, for_commands
from llamakit.protocols import (
    Checkpoint,
    Finding,
    Parameter,
    Quantization,
    QuantizedWeight,
    RawRegion,
)

if TYPE_CHECKING:
    from llamakit.protocols import CheckpointCapabilities


def raw_regions(checkpoint: Checkpoint, parameter: Parameter) -> list[RawRegion]:
    """Say where the bytes of a parameter are; nothing if only ``read`` knows.

    Raises:
        PluginError: a third-party checkpoint's regions contradict its index or its files.
    """
    regions = _sequence(checkpoint, "raw_regions", RawRegion, parameter.name)
    if is_builtin(checkpoint):
        return regions
    with naming_the_plugin(checkpoint, f"say where {parameter.name} is"):
        if fault := _fault_of(regions, parameter, checkpoint.params.head_dim):
            raise _refusal(checkpoint, f"raw_regions({parameter.name!r})", fault)
    return regions


def stored_names(checkpoint: Checkpoint) -> list[str]:
    """Return the names of all parameters in the order that conversions go through them.

    Raises:
        PluginError: a third-party checkpoint leaves some out, or names others.
    """
    names = _sequence(checkpoint, "stored_names", str)
    if names and sorted(names) != sorted(checkpoint.parameters):
        raise _refusal(checkpoint, "stored_names()", "other names than its index has")
    return names or list(checkpoint.parameters)


def model_parallel_size(checkpoint: Checkpoint) -> int:
    """Return how many shards the weights are split into.

    Raises:
        PluginError: a third-party checkpoint returns no number of shards.
    """
    size = _call(checkpoint, "model_parallel_size")
    if size is not None and (type(size) is not int or size < 1):
        raise _refusal(checkpoint, "model_parallel_size()", f"{size!r:.60}, no number of shards")
    return size or 1


def weight_files(checkpoint: Checkpoint) -> list[Path]:
    """List the files of weights; none where a checkpoint does not say.

    Raises:
        PluginError: a third-party checkpoint names no files.
    """
    return _files(checkpoint, "weight_files")


def companion_files(checkpoint: Checkpoint, target: str) -> list[Path]:
    """List the files that a conversion to the format ``target`` copies as they are.

    Raises:
        PluginError: a third-party checkpoint names no files, or two by one name.
    """
    files = _files(checkpoint, "companion_files", target)
    if len({file.name for file in files}) != len(files):
        raise _refusal(checkpoint, "companion_files", "several files of one name")
    return files


def embedded_files(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Return the small files that are in the file of the weights; none where there are none.

    Raises:
        PluginError: a third-party checkpoint returns no files.
    """
    files = _call(checkpoint, "embedded_files")
    if files is None:
        return {}
    if not isinstance(files, Mapping) or not all(map(_is_file, files.items())):
        raise _refusal(checkpoint, "embedded_files()", "no mapping of file names to bytes")
    return dict(files)


def deep_checks(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Check the values in the way of the format; an error that stops that is a fault too."""
    try:
        yield from _each(checkpoint, "deep_checks", Finding)
    except (LlamakitError, OSError) as error:
        yield Finding(for_commands(error), "fault")


def oddities(checkpoint: Checkpoint) -> list[str]:
    """Say what is unusual in the way of the format, a sentence each.

    Raises:
        PluginError: a third-party checkpoint yields no strings.
    """
    return list(_each(checkpoint, "oddities", str))


def provenance_sources(checkpoint: Checkpoint) -> list[Checkpoint]:
    """Return the checkpoints that a checkpoint is computed from: itself, if it does not say.

    Raises:
        PluginError: a third-party checkpoint returns no checkpoints.
    """
    return _sequence(checkpoint, "provenance_sources", Checkpoint) or [checkpoint]


def unsupported(checkpoint: Checkpoint) -> str:
    """Say why the weights cannot be computed with or converted; ``""`` if they can be.

    Raises:
        PluginError: a third-party checkpoint returns no string.
    """
    return _text(checkpoint, "unsupported")


def stored_as(checkpoint: Checkpoint) -> str:
    """Say how the weights are stored that ``read`` multiplies out; ``""`` if there are none.

    Raises:
        PluginError: a third-party checkpoint returns no string.
    """
    return _text(checkpoint, "stored_as")


def quantization(checkpoint: Checkpoint, name: str | None = None) -> Quantization | None:
    """Return what the weights are stored for, or how one parameter is stored; None as numbers.

    Raises:
        PluginError: a third-party checkpoint returns no quantization that there is.
    """
    method, args = ("quantization", ()) if name is None else ("quantization_of", (name,))
    kind: Quantization | None = _call(checkpoint, method, *args)
    if kind is not None and kind not in get_args(Quantization):
        raise _refusal(checkpoint, method, f"{kind!r:.60}, no quantization")
    return kind


def read_quantized(
    checkpoint: Checkpoint,
    parameter: Parameter,
    *,
    axis: int = 0,
    start: int = 0,
    stop: int | None = None,
) -> QuantizedWeight:
    """Read a parameter that is stored quantized, or a slice of it, as integers and scales.

    Raises:
        PluginError: a third-party checkpoint fails, or returns other shapes than its index implies.
        DamagedFileError: the file ends before the bytes do, or scales are no positive numbers.
    """
    name = parameter.name
    kind = quantization(checkpoint, name)
    reader = cast("CheckpointCapabilities", checkpoint)
    with naming_the_plugin(checkpoint, f"read {name}"):
        weight: object = reader.read_quantized(name, axis=axis, start=start, stop=stop)
    if not isinstance(weight, QuantizedWeight):
        answer = f"{type(weight).__name__}, no QuantizedWeight"
        raise _refusal(checkpoint, f"read_quantized({name!r})", answer)
    specs = stored_specs(name, weight.kind, slice_shape(parameter, axis, start, stop))
    found = (np.shape(weight.values), np.shape(weight.scales))
    if weight.kind != kind or found != tuple(spec.shape for spec in specs):
        raise _refusal(checkpoint, f"read_quantized({name!r})", f"{weight.kind} of {found}")
    return weight


def has_capability(checkpoint: Checkpoint, name: str) -> bool:
    """Tell whether a checkpoint's class has an optional method, and no newer ``read`` without it.

    A derived class or a wrapper that changes what ``read`` returns would otherwise pass on where
    the unchanged bytes are.
    """
    definers = type(checkpoint).__mro__
    reads = next((at for at, base in enumerate(definers) if "read" in vars(base)), -1)
    offers = next((at for at, base in enumerate(definers) if name in vars(base)), len(definers))
    return offers <= reads and "read" not in getattr(checkpoint, "__dict__", {})


def _call(checkpoint: Checkpoint, name: str, *args: str) -> Any:
    """Call an optional method; return None if there is none."""
    if not has_capability(checkpoint, name):
        return None
    method: Callable[..., Any] = getattr(checkpoint, name)
    with naming_the_plugin(checkpoint, f"answer {name}({', '.join(map(repr, args))})"):
        return method(*args)


def _text(checkpoint: Checkpoint, name: str) -> str:
    text = _call(checkpoint, name)
    if not isinstance(text, str | None):
        raise _refusal(checkpoint, f"{name}()", f"{text!r:.60}, no sentence")
    return text or ""


def _each(checkpoint: Checkpoint, name: str, kind: type[Any], *args: str) -> Iterator[Any]:
    """Yield what an optional method returns, each of the kind that it should be."""
    values = _call(checkpoint, name, *args)
    if values is None:
        return
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise _refusal(checkpoint, name, f"{type(values).__name__}, no sequence")
    with naming_the_plugin(checkpoint, f"answer {name}"):
        for value in values:
            if not isinstance(value, kind):
                raise _refusal(checkpoint, name, f"{value!r:.60}, no {kind.__name__}")
            yield value


def _sequence(checkpoint: Checkpoint, name: str, kind: type[Any], *args: str) -> list[Any]:
    return list(_each(checkpoint, name, kind, *args))


def _files(checkpoint: Checkpoint, name: str, *args: str) -> list[Path]:
    files: list[Path] = _sequence(checkpoint, name, Path, *args)
    if absent := next((file for file in files if not file.is_file()), None):
        raise _refusal(checkpoint, name, f"{absent}, which is no file")
    return files


def _is_file(item: tuple[object, object]) -> bool:
    """Tell whether it is the name of a file, without a folder, and its content."""
    name, content = item
    is_name = isinstance(name, str) and Path(name).name == name
    return is_name and isinstance(content, bytes)


def _fault_of(regions: list[RawRegion], parameter: Parameter, head_dim: int) -> str:
    """Say how regions contradict the index of a checkpoint or its files, if they do."""
    axis = parameter.axis or 0
    for region in regions:
        numbers = (*region.shape, region.offset)
        if not all(type(number) is int and number >= 0 for number in numbers):
            return f"{region!r:.200}, whose shape and offset are no counts"
        if region.order not in ("meta", "huggingface") or region.order != regions[0].order:
            return f"rows in the order {region.order!r:.60}"
        if is_rotated(parameter.name) and region.shape[0] % head_dim:
            return f"a region of {region.shape[0]} rows, which splits a head of {head_dim} rows"
        end = region.offset + math.prod(region.shape) * itemsize(parameter.dtype)
        nbytes = region.path.stat().st_size if region.path.is_file() else 0
        if end > nbytes:
            return f"a region that ends at byte {end} of {region.path}, which has {nbytes}"
    shapes = [region.shape for region in regions]
    if not shapes or _joined(shapes, axis) == parameter.shape:
        return ""
    return f"regions of {', '.join(map(str, shapes[:8]))}; its index says {parameter.shape}"


def _joined(shapes: list[tuple[int, ...]], axis: int) -> tuple[int, ...] | None:
    """Return the shape of what follows one another along an axis; None if it does not fit."""
    first = shapes[0]
    if len(shapes) == 1:
        return first
    rests = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    if len(rests) > 1 or not all(len(shape) == len(first) > axis for shape in shapes):
        return None
    return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])


def _refusal(checkpoint: Checkpoint, method: str, fault: str) -> PluginError:
    return PluginError(
        f"{describe(checkpoint)} answers {method} with {fault}: "
        "tell the author of the plugin that opens it"
    )
