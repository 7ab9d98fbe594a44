"""Weights in the layout of compressed-tensors, which llm-compressor writes and vLLM loads.

Read are integers of 8 or 4 bits, symmetric about zero, with a scale for each row or each group of
columns: ``int-quantized``, ``naive-quantized`` and ``pack-quantized``. How a weight is stored
follows from its tensors; the config has to allow it. Its patterns of names are not run: they are
programs of others, and the tensors say the same.

Source: compressed-tensors 0.20, ``compressors/pack_quantized`` and ``compressors/naive_quantized``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llamakit.checkpoint.dtypes import PLAIN_DTYPES
from llamakit.checkpoint.hf_names import to_meta
from llamakit.checkpoint.layout import EMBEDDING, OUTPUT, expected_shapes
from llamakit.checkpoint.params import ModelParams
from llamakit.checkpoint.plain_weights import companion_of_quantized, describe_quantized
from llamakit.checkpoint.tensor_file import StoredTensor, TensorFile
from llamakit.errors import UnsupportedModelError

Place = tuple[TensorFile, str]
"""A file, and the name of a tensor in it."""

METHOD = "compressed-tensors"
_FORMATS = ("int-quantized", "naive-quantized", "pack-quantized")
_ADVICE = "Take the model's bfloat16 or float16 files."
_PACKED, _SCALE, _SHAPE = "weight_packed", "weight_scale", "weight_shape"


@dataclass(frozen=True)
class Scheme:
    """One of the ways in which a config says that weights are stored."""

    bits: int
    strategy: str
    """``tensor``, ``channel`` or ``group``: what shares a scale."""
    group: int | None
    rounds_activations: bool

    def __str__(self) -> str:
        shared = f"groups of {self.group}" if self.group else f"a scale a {self.strategy}"
        return f"{self.bits} bits, {shared}"


@dataclass(frozen=True)
class CompressedWeight:
    """Where the integers and the scales of one weight are."""

    scheme: Scheme
    shape: tuple[int, int]
    """Of the weight: ``(N, K)``."""
    values: Place
    scales: Place
    packed: bool
    """Several integers share an int32; else each is an int8."""
    more: tuple[Place, ...] = ()

    @property
    def tensors(self) -> tuple[Place, ...]:
        """Every tensor that the weight is stored as."""
        return (self.values, self.scales, *self.more)


def find_compressed(
    path: Path, params: ModelParams, stored: Mapping[str, Place], config: object
) -> dict[str, CompressedWeight]:
    """Find the weights of a Hugging Face folder that are stored quantized.

    Args:
        path: the folder, for messages.
        stored: every tensor, by its name without prefixes.
        config: the ``quantization_config`` of config.json, or None.
    Returns:
        By Meta's name.

    Raises:
        UnsupportedModelError: they are stored otherwise, or a tensor is missing or does not fit.
    """
    if config is None:
        reason = describe_quantized(dict.fromkeys(stored, PLAIN_DTYPES[0]))
        raise UnsupportedModelError(
            f"{path}: {reason}: the weights are quantized, and config.json does not say how, so "
            f"those are not run or converted. {_ADVICE}"
        )
    schemes = _schemes(path / "config.json", config)
    shapes = expected_shapes(params)
    shapes |= {OUTPUT: shapes[EMBEDDING]}
    weights = {}
    for module in dict.fromkeys(name.rpartition(".")[0] for name in stored):
        parts = {end: f"{module}.{end}" for end in ("weight", _PACKED, _SCALE, _SHAPE)}
        have = {end: stored[name] for end, name in parts.items() if name in stored}
        name = to_meta(parts["weight"]) or ""
        if name in shapes and (_PACKED in have or _is_integer(have.get("weight"))):
            weights[name] = _weight(path, module, have, shapes[name], schemes)
        elif _SCALE in have or _SHAPE in have:
            raise _refusal(path, f"{module} has scales, but no weight in 8 or 4 bits of this model")
    used = {place for weight in weights.values() for place in weight.tensors}
    others = [name for name, place in stored.items() if place not in used]
    if odd := next(filter(companion_of_quantized, others), None):
        raise _refusal(path, f"it stores {odd[:200]} too, as no scheme that is read here does")
    if not weights:
        raise _refusal(path, f"config.json says {METHOD}, and no weight is stored in 8 or 4 bits")
    if ignored := [name for name in _ignored(config) if (to_meta(f"{name}.weight") in weights)]:
        raise _refusal(
            path, f"{ignored[0]} is stored quantized, and config.json lists it in ignore"
        )
    return weights


def _schemes(config_path: Path, config: object) -> list[Scheme]:
    """Read the schemes that a config allows.

    Raises:
        UnsupportedModelError: one is not read here; it is named.
    """
    values = config if isinstance(config, dict) else {}
    method = values.get("quant_method")
    if method != METHOD:
        named = f"set (to {method!r:.80})" if method else "set"
        raise UnsupportedModelError(
            f"{config_path}: 'quantization_config' is {named}; expected None or {METHOD!r}, the "
            f"quantized weights that are read here. {_ADVICE}"
        )
    for key, what in (
        ("kv_cache_scheme", "a quantized KV cache"),
        ("transform_config", "weights that were rotated"),
    ):
        if values.get(key):
            raise _refusal(config_path, f"{key} is set: {what}")
    sparsity = values.get("sparsity_config")
    if isinstance(sparsity, dict) and sparsity.get("format", "dense") != "dense":
        raise _refusal(config_path, f"sparse weights ({sparsity['format']!r:.60})")
    groups = values.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise _refusal(config_path, "its config_groups are absent or no object")
    return [
        _scheme(config_path, str(name), group, values.get("format"))
        for name, group in list(groups.items())[:64]
    ]


def _scheme(config_path: Path, name: str, group: object, usual: object) -> Scheme:
    where = f"config_groups {name[:60]!r}"
    values: dict[str, Any] = group if isinstance(group, dict) else {}
    stored = values.get("format") or usual
    if stored not in _FORMATS:
        raise _refusal(config_path, f"{where}: the format {stored!r:.60}")
    weights = values.get("weights")
    if not isinstance(weights, dict):
        raise _refusal(config_path, f"{where}: no description of weights")
    strategy = weights.get("strategy") or ("group" if weights.get("group_size") else "tensor")
    expected: tuple[tuple[str, object, Sequence[object]], ...] = (
        ("type", weights.get("type"), ("int",)),
        ("num_bits", weights.get("num_bits"), (8, 4)),
        ("symmetric", weights.get("symmetric", True), (True,)),
        ("strategy", strategy, ("tensor", "channel", "group")),
        ("dynamic", weights.get("dynamic", False), (False,)),
        ("actorder", weights.get("actorder"), (None, False, "weight", "static")),
    )
    for key, value, known in expected:
        if value not in known:
            raise _refusal(config_path, f"{where}: weights of {key} {value!r:.60}")
    size = weights.get("group_size") if strategy == "group" else None
    if strategy == "group" and (type(size) is not int or not 0 < size < 1 << 20):
        raise _refusal(config_path, f"{where}: a group_size of {size!r:.60}")
    rounds = _rounds_activations(config_path, where, values)
    return Scheme(int(weights["num_bits"]), strategy, size, rounds)  # 8.0 is read as 8, as theirs


def _rounds_activations(config_path: Path, where: str, group: Mapping[str, Any]) -> bool:
    """Say whether activations are rounded to 8 bits too, each row by itself."""
    if group.get("output_activations"):
        raise _refusal(config_path, f"{where}: rounded outputs (output_activations)")
    inputs = group.get("input_activations")
    if not inputs:
        return False
    expected = {
        "type": "int",
        "num_bits": 8,
        "symmetric": True,
        "dynamic": True,
        "strategy": "token",
    }
    for key, wanted in expected.items():
        found = inputs.get(key) if isinstance(inputs, dict) else inputs
        if found != wanted:
            raise _refusal(config_path, f"{where}: input_activations of {key} {found!r:.60}")
    return True


def _weight(
    path: Path,
    module: str,
    have: Mapping[str, Place],
    shape: tuple[int, ...],
    schemes: Sequence[Scheme],
) -> CompressedWeight:
    """Describe a weight by its tensors.

    Raises:
        UnsupportedModelError: one is missing, or their shapes fit no scheme.
    """
    packed = _PACKED in have
    needed = (_PACKED, _SCALE, _SHAPE) if packed else ("weight", _SCALE)
    if absent := [end for end in needed if end not in have]:
        raise _refusal(path, f"{module}.{absent[0]} is missing, beside {module}.{needed[0]}")
    rows, columns = shape
    values, scales = have[needed[0]], have[_SCALE]
    found, scale = _stored(values), _stored(scales)
    if scale.dtype not in PLAIN_DTYPES:
        raise _refusal(path, f"{module}.{_SCALE} is {scale.dtype}; expected floating-point numbers")
    if packed and tuple(_integers(have[_SHAPE])) != shape:
        raise _refusal(path, f"{module}.{_SHAPE} is not {shape}, as config.json implies")
    for scheme in schemes:
        width = math.ceil(columns * scheme.bits / 32) if packed else columns
        dtype = "int32" if packed else "int8"
        fits = (found.dtype, found.shape) == (dtype, (rows, width))
        if fits and scale.shape in _scale_shapes(scheme, rows, columns):
            more = (have[_SHAPE],) if packed else ()
            return CompressedWeight(scheme, (rows, columns), values, scales, packed, more)
    undivided = [s for s in schemes if s.group and columns % s.group]
    raise _refusal(
        path,
        f"{module}.{needed[0]} is {found.dtype} {found.shape} with scales {scale.shape}; its "
        f"weight is {shape}, and config.json says {' or '.join(map(str, schemes))[:300]}"
        + (f", which does not divide {columns} columns" if undivided else ""),
    )


def _scale_shapes(scheme: Scheme, rows: int, columns: int) -> list[tuple[int, ...]]:
    if scheme.strategy == "tensor":
        return [(1,), (), (1, 1)]
    if scheme.group is None:
        return [(rows, 1), (rows,)]
    return [] if columns % scheme.group else [(rows, columns // scheme.group)]


def _is_integer(place: Place | None) -> bool:
    return place is not None and _stored(place).dtype == "int8"


def _stored(place: Place) -> StoredTensor:
    file, name = place
    return file.tensors[name]


def _integers(place: Place) -> list[int]:
    """Read the two numbers of a shape."""
    file, name = place
    tensor = file.tensors[name]
    if tensor.shape != (2,) or tensor.dtype not in ("int64", "int32"):
        return []
    return [int(length) for length in np.asarray(file.array(name))]


def _ignored(config: object) -> list[str]:
    names = config.get("ignore") if isinstance(config, dict) else None
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _refusal(path: Path, fault: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{path}: {fault}. Of the quantized weights of {METHOD}, those of 8 or 4 bits are read, "
        f"symmetric, with a scale a row or group. {_ADVICE}"
    )
