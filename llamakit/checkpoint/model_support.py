"""Checks of whether a checkpoint can be run or converted, from its index and without torch."""

from __future__ import annotations

from llamakit.checkpoint.layout import check_parameters
from llamakit.checkpoint.rope_scaling import scaling_of
from llamakit.checkpoint.shard_plan import check_size
from llamakit.errors import UnsupportedModelError
from llamakit.protocols import Checkpoint

_SCALES = ("fp8_scales_*.pt", "int4_scales_*.pt")
"""Next to Meta's quantized weights; how they hold the scales is not confirmed by any file seen."""


def check_loadable(checkpoint: Checkpoint, size: int, *, rope_factor: float | None = None) -> None:
    """Refuse a checkpoint that cannot be loaded, before any weight is read.

    Args:
        rope_factor: as ``runtime.loader.load``.

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


def check_not_quantized(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint whose values are only right together with scales.

    Raises:
        UnsupportedModelError: it is one; what shows it is in the message.
    """
    reason = _reason(checkpoint)
    if reason:
        raise UnsupportedModelError(
            f"{checkpoint.path}: its weights are quantized ({reason}), and how Meta's files hold "
            "the scales is not confirmed, so they are not run or converted; take the bfloat16 files"
        )


def _reason(checkpoint: Checkpoint) -> str:
    quantization = checkpoint.params.extra.get("quantization_args")
    if isinstance(quantization, dict):
        return f"params.json: quantization_args {str(quantization.get('scheme', ''))[:60]}".strip()
    scales = sorted(file.name for pattern in _SCALES for file in checkpoint.path.glob(pattern))
    return scales[0] if scales else ""
