"""Which slice of a parameter a rank holds, and which rows of which shards make a slice.

Everything here is a plain value worked out from shapes: nothing is read. A *slice* counts in the
whole parameter, a *piece* in one shard. Key/value heads are special: where there are more ranks
than such heads, neighbouring ranks hold copies of the same head, and the copies do not count.
"""

from __future__ import annotations

from dataclasses import dataclass

from llamakit.checkpoint.layout import is_key_or_value
from llamakit.checkpoint.llama4 import architecture_of
from llamakit.checkpoint.params import ModelParams
from llamakit.errors import UnevenSplitError
from llamakit.protocols import Parameter


@dataclass(frozen=True)
class Slice:
    """``start:stop`` along ``axis`` of a whole parameter."""

    axis: int
    start: int
    stop: int


@dataclass(frozen=True)
class Piece:
    """``start:stop`` of one shard's tensor, along the axis on which its parameter is split."""

    shard: int
    start: int
    stop: int


def valid_sizes(params: ModelParams) -> list[int]:
    """List the model parallel sizes that a model can be split into, 1 first."""
    sizes = range(1, params.n_heads + 1)
    return [size for size in sizes if not _reasons(params, size)]


def check_size(params: ModelParams, size: int) -> None:
    """Check that a model can be split into ``size`` equal shards.

    Args:
        params: the numbers of the model.
        size: the model parallel size.

    Raises:
        UnevenSplitError: it cannot; every reason and the sizes that fit are in the message.
    """
    reasons = _reasons(params, size)
    if reasons:
        fits = ", ".join(map(str, valid_sizes(params)))
        raise UnevenSplitError(
            f"cannot split the model into {size} equal shards: {'; '.join(reasons)}. "
            f"Sizes that fit: {fits}."
        )


def _reasons(params: ModelParams, size: int) -> list[str]:
    if size < 1:
        return ["a size is at least 1"]
    # An embedding that is split on its columns needs dim to divide; where the heads do, it does.
    divisible = {
        "attention heads": params.n_heads,
        "feed-forward rows": params.hidden_dim,
        "vocabulary entries": params.vocab_size,
    }
    architecture = architecture_of(params)
    if architecture is not None:
        divisible["rows of an expert"] = architecture.expert_dim
    reasons = [
        f"{length} {what} do not divide by {size}"
        for what, length in divisible.items()
        if length % size
    ]
    heads = params.n_kv_heads
    if heads % size and size % heads:
        reasons.append(f"{size} neither divides {heads} key/value heads nor is a multiple of them")
    return reasons


def copies(name: str, params: ModelParams, size: int) -> int:
    """Say on how many neighbouring ranks each part of a parameter is repeated.

    Args:
        name: Meta's name of the parameter.
        params: the numbers of the model.
        size: the model parallel size.
    Returns:
        1, except for key/value heads that there are fewer of than ranks.
    """
    if not is_key_or_value(name):
        return 1
    return max(1, size // params.n_kv_heads)


def slice_for_rank(parameter: Parameter, params: ModelParams, rank: int, size: int) -> Slice:
    """Say which slice of a whole parameter one rank holds.

    Args:
        parameter: the parameter, whole.
        params: the numbers of the model.
        rank: 0 to ``size - 1``.
        size: the model parallel size; ``check_size`` has passed it.
    Returns:
        A slice along the parameter's axis; all of axis 0 if every rank holds the whole.
    Raises:
        UnevenSplitError: the axis does not divide.
    Source: fairscale ``nn/model_parallel/layers.py``; copies as in torch's ``repeat_interleave``.
    """
    assert 0 <= rank < size
    if parameter.axis is None:
        return Slice(0, 0, parameter.shape[0])
    repeated = copies(parameter.name, params, size)
    step = _part(parameter, size // repeated)
    part = rank // repeated
    return Slice(parameter.axis, part * step, (part + 1) * step)


def pieces(
    parameter: Parameter, params: ModelParams, shards: int, start: int, stop: int
) -> list[Piece]:
    """Say which rows of which shards make ``start:stop`` of a parameter along its axis.

    Args:
        parameter: the parameter, whole.
        params: the numbers of the model.
        shards: how many shards the checkpoint has.
        start: first row (or column, if that is the axis) in the whole parameter.
        stop: the row after the last.
    Returns:
        Pieces in order, none empty; their lengths sum to ``stop - start``. Of copies the first is
        read, and of a parameter that every shard holds, shard 0's.
    Raises:
        UnevenSplitError: the axis does not divide.
    """
    if stop <= start:
        return []
    if parameter.axis is None:
        return [Piece(0, start, stop)]
    repeated = copies(parameter.name, params, shards)
    step = _part(parameter, shards // repeated)
    return [
        Piece(part * repeated, max(start - part * step, 0), min(stop - part * step, step))
        for part in range(start // step, (stop - 1) // step + 1)
    ]


def _part(parameter: Parameter, parts: int) -> int:
    assert parameter.axis is not None
    length = parameter.shape[parameter.axis]
    if length % parts:
        raise UnevenSplitError(
            f"{parameter.name}: cannot split {length} along axis {parameter.axis} into {parts} "
            "equal parts; choose a model parallel size that divides it."
        )
    return length // parts
