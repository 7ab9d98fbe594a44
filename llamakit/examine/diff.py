"""Diff: two checkpoints of any format and any number of shards, parameter by parameter."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from llamakit.checkpoint.capabilities import weight_files
from llamakit.checkpoint.checked_read import read_checked
from llamakit.checkpoint.dtypes import DTYPES, itemsize
from llamakit.checkpoint.layout import OUTPUT, ROPE_FREQS
from llamakit.checkpoint.rope_scaling import as_config, scaling_of
from llamakit.cores import available_cores
from llamakit.errors import LlamakitError
from llamakit.examine.steps import StepProgress, Steps
from llamakit.examine.values import Comparison, compare, merge
from llamakit.files.file_stamp import stamps, unchanged
from llamakit.protocols import Checkpoint, Parameter

_CHUNK_VALUES = 1 << 19
"""How many values are compared at a time: float64 copies of them stay under 20 MB."""
_MOST_WORKERS = 4

_NUMBERS = (
    *("dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "hidden_dim"),
    *("norm_eps", "rope_theta", "use_scaled_rope"),
)
"""The params that change what a model computes."""

Kind = Literal["equal", "only in A", "only in B", "shape", "dtype", "values", "bytes"]


@dataclass(frozen=True)
class ParameterDiff:
    """How one parameter differs."""

    name: str
    kind: Kind
    """``bytes``: the values are equal, their bytes are not (-0.0 and 0.0, two sorts of NaN).
    ``dtype``: they are stored as different dtypes; ``values`` tells whether the values agree."""
    a: Parameter | None
    b: Parameter | None
    bits: int = 0
    """How many values are stored as other bytes (of one dtype only)."""
    values: int = 0
    """How many are another value."""
    nan_in_one: int = 0
    """How many are NaN in one checkpoint only."""
    first: tuple[int, ...] | None = None
    """The index of the first that differs, in the whole parameter."""
    first_values: tuple[float, float] | None = None
    """The values there, in A and in B."""
    max_abs: float = 0.0
    max_rel: float = 0.0
    """Against the larger of the two magnitudes: 0 to 2."""
    worst: tuple[int, ...] | None = None
    """The index of the largest absolute difference."""


@dataclass(frozen=True)
class DiffReport:
    """How two checkpoints differ."""

    a: Path
    b: Path
    numbers: Mapping[str, tuple[object, object]]
    """The params that differ: in A, in B."""
    parameters: tuple[ParameterDiff, ...]
    """Every parameter of either, the equal ones too."""
    notes: tuple[str, ...]
    """What was seen and does not count."""

    @property
    def differing(self) -> tuple[ParameterDiff, ...]:
        """The parameters that differ."""
        return tuple(difference for difference in self.parameters if difference.kind != "equal")

    @property
    def same(self) -> bool:
        """Whether both are one model: the same numbers, names, shapes, dtypes and bytes."""
        return not self.numbers and not self.differing

    def as_json(self) -> Mapping[str, Any]:
        """Return the report in JSON's terms; infinity and NaN are text."""
        return {
            "same": self.same,
            "a": str(self.a),
            "b": str(self.b),
            "params": {name: list(values) for name, values in self.numbers.items()},
            "equal": len(self.parameters) - len(self.differing),
            "differing": [_plain(asdict(difference)) for difference in self.differing],
            "notes": list(self.notes),
        }


def diff(a: Checkpoint, b: Checkpoint) -> Steps[DiffReport]:
    """Compare two checkpoints in bounded memory.

    ``rope.freqs``, which is no parameter, and a tied output layer may be in one only.

    Args:
        a: a checkpoint.
        b: another, in any format.

    Raises:
        DamagedFileError: a file has changed since it was opened.
        ParametersError, PluginError: as ``read_checked``.
    """
    numbers = {
        name: (getattr(a.params, name), getattr(b.params, name))
        for name in _NUMBERS
        if getattr(a.params, name) != getattr(b.params, name)
    }
    if (scalings := (_rope_scaling(a), _rope_scaling(b)))[0] != scalings[1]:
        numbers["rope_scaling"] = scalings
    notes = []
    names = list(dict.fromkeys([*a.parameters, *b.parameters]))
    for name in list(names):
        if name not in a.parameters or name not in b.parameters:
            side = "A" if name in a.parameters else "B"
            if reason := _does_not_count(name, a, b):
                notes.append(f"{name} is in {side} only: {reason}")
                names.remove(name)
    total = sum(_nbytes(a, name) for name in names)
    differences: dict[str, ParameterDiff] = {}
    yield StepProgress(0, total)
    done = 0
    with unchanged(stamps([*weight_files(a), *weight_files(b)])):
        for result in _compare_all(a, b, names):
            differences[result.name] = result
            done += _nbytes(a, result.name)
            yield StepProgress(done, total)
    return DiffReport(
        a.path, b.path, numbers, tuple(differences[name] for name in names), tuple(notes)
    )


def _does_not_count(name: str, a: Checkpoint, b: Checkpoint) -> str:
    if name == ROPE_FREQS:
        return "it is no parameter of the model"
    if name == OUTPUT and a.params.tied_embeddings and b.params.tied_embeddings:
        return "the output layer is the embedding"
    return ""


def _rope_scaling(checkpoint: Checkpoint) -> Mapping[str, object] | None:
    """Return how RoPE is scaled, whichever way the files say it."""
    try:
        scaling = scaling_of(checkpoint.params, checkpoint.path)
    except LlamakitError:  # of a type that is not computed
        return checkpoint.params.rope_scaling
    return None if scaling is None else as_config(scaling)


def _compare_all(a: Checkpoint, b: Checkpoint, names: list[str]) -> Iterator[ParameterDiff]:
    """Compare several parameters at the same time; yield each when it is done."""
    done: queue.SimpleQueue[ParameterDiff | BaseException] = queue.SimpleQueue()
    stop = threading.Event()

    def work(name: str) -> None:
        try:
            done.put(_compare_parameter(a, b, name, stop))
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            done.put(error)

    workers = ThreadPoolExecutor(min(available_cores(), _MOST_WORKERS), "llamakit-diff")
    try:
        for name in names:
            workers.submit(work, name)
        for _ in names:
            result = done.get()
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        stop.set()
        workers.shutdown(cancel_futures=True)


def _compare_parameter(
    a: Checkpoint, b: Checkpoint, name: str, stop: threading.Event
) -> ParameterDiff:
    one, other = a.parameters.get(name), b.parameters.get(name)
    if one is None or other is None:
        return ParameterDiff(name, "only in B" if one is None else "only in A", one, other)
    if one.shape != other.shape:
        return ParameterDiff(name, "shape", one, other)
    comparison = Comparison()
    width = math.prod(one.shape[1:])
    for start, end in _chunks(one.shape):
        if stop.is_set():
            break
        bounds = {"start": start, "stop": end} if one.shape else {}
        part = compare(read_checked(a, name, **bounds), read_checked(b, name, **bounds))
        if part != Comparison():
            comparison = merge(comparison, part, start * width)
    return _describe(a, b, one, other, comparison)


def _chunks(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Split a parameter along its first axis."""
    if 0 in shape:
        return
    rows = shape[0] if shape else 1
    step = max(1, _CHUNK_VALUES // math.prod(shape[1:]))
    for row in range(0, rows, step):
        yield row, min(row + step, rows)


def _describe(
    a: Checkpoint, b: Checkpoint, one: Parameter, other: Parameter, comparison: Comparison
) -> ParameterDiff:
    kind: Kind = "equal"
    if one.dtype != other.dtype:
        kind = "dtype"
    elif comparison.bits:
        kind = "values" if comparison.values else "bytes"
    first = _index(comparison.first, one.shape)
    return ParameterDiff(
        one.name,
        kind,
        one,
        other,
        bits=comparison.bits if one.dtype == other.dtype else 0,
        values=comparison.values,
        nan_in_one=comparison.nan_in_one,
        first=first,
        first_values=None if first is None else (_value(a, one, first), _value(b, other, first)),
        max_abs=comparison.max_abs,
        max_rel=comparison.max_rel,
        worst=_index(comparison.worst, one.shape),
    )


def _index(place: int | None, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    if place is None:
        return None
    return tuple(int(index) for index in np.unravel_index(place, shape))


def _value(checkpoint: Checkpoint, parameter: Parameter, index: tuple[int, ...]) -> float:
    if not index:
        return float(np.real(read_checked(checkpoint, parameter.name)))
    row = read_checked(checkpoint, parameter.name, start=index[0], stop=index[0] + 1)
    return float(np.real(row[0][index[1:]]))


def _nbytes(checkpoint: Checkpoint, name: str) -> int:
    parameter = checkpoint.parameters.get(name)
    if parameter is None:
        return 0
    width = itemsize(parameter.dtype) if parameter.dtype in DTYPES else 1
    return parameter.numel * width


def _plain(value: Any) -> Any:
    """Make a value JSON's: infinity and NaN as text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
