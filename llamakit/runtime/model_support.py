"""A check of whether the runtime supports a checkpoint, from its index and without torch."""

from __future__ import annotations

from llamakit.checkpoint.layout import check_parameters
from llamakit.checkpoint.quantized_files import check_not_quantized
from llamakit.checkpoint.rope_scaling import scaling_of
from llamakit.checkpoint.shard_plan import check_size
from llamakit.protocols import Checkpoint


def check_loadable(checkpoint: Checkpoint, size: int, *, rope_factor: float | None = None) -> None:
    """Refuse a checkpoint that cannot be loaded, before any weight is read.

    Args:
        rope_factor: as ``loader.load``.

    Raises:
        UnsupportedModelError: quantized weights, or a RoPE scaling that is not computed here.
        ParamsError: a number of the RoPE scaling is absent or wrong.
        UnevenSplitError: ``size`` does not divide the model.
        ParametersError: parameters missing, extra or misshapen, with their names.
    """
    check_not_quantized(checkpoint)
    scaling_of(checkpoint.params, checkpoint.path, factor=rope_factor)
    check_parameters(checkpoint)
    check_size(checkpoint.params, size)
