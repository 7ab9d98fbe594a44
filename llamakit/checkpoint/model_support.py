"""Checks of whether a checkpoint can be run or converted, from its index and without torch."""

from __future__ import annotations

from llamakit.checkpoint.capabilities import quantization
from llamakit.checkpoint.layout import check_parameters
from llamakit.checkpoint.plain_weights import check_plain_weights
from llamakit.checkpoint.rope_scaling import scaling_of
from llamakit.checkpoint.shard_plan import check_size
from llamakit.errors import UsageError
from llamakit.protocols import Checkpoint


def check_loadable(
    checkpoint: Checkpoint,
    size: int,
    *,
    rope_factor: float | None = None,
    quantize: str | None = None,
) -> None:
    """Refuse a checkpoint that cannot be loaded, before any weight is read.

    Args:
        rope_factor: as ``runtime.loader.load``.
        quantize: ``int8``, ``int4`` or None.

    Raises:
        UsageError: its weights are stored for another ``quantize``.
        UnsupportedModelError: values that are no plain numbers, or an unknown RoPE scaling.
        ParamsError: a number of the RoPE scaling is absent or wrong.
        UnevenSplitError: ``size`` does not divide the model.
        ParametersError: parameters missing, extra or misshapen, with their names.
    """
    check_plain_weights(checkpoint)
    scaling_of(checkpoint.params, checkpoint.path, factor=rope_factor)
    check_parameters(checkpoint)
    check_size(checkpoint.params, size)
    stored = quantization(checkpoint)
    if stored is not None and quantize not in (None, stored):
        raise UsageError(
            f"--quantize {quantize}: the weights of {checkpoint.path} are stored in {stored}. "
            "Leave the option out, or name the model that they were made from."
        )
