"""Recognizes Meta's fp8 and int4 files, whose layout is not confirmed by any file seen so far."""

from __future__ import annotations

from llamakit.errors import UnsupportedModelError
from llamakit.protocols import Checkpoint

_SCALES = ("fp8_scales_*.pt", "int4_scales_*.pt")


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
