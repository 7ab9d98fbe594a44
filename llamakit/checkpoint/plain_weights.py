"""The one check that the values of a checkpoint are plain numbers, which is all that is computed.

A matrix of integers or of float8 means something only together with its scales, and packed int4
only together with its packing. Computed as it is, it gives garbage without a word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from llamakit.checkpoint.capabilities import unsupported
from llamakit.checkpoint.dtypes import PLAIN_DTYPES
from llamakit.errors import UnsupportedModelError
from llamakit.protocols import Checkpoint

_SCALES = ("fp8_scales_*.pt", "int4_scales_*.pt")
_TABLE = "rope.freqs"  # no parameter: nothing reads it
_COMPANIONS = (
    (r"\.weight_scale_inv", "float8 in blocks"),
    (r"\.weight_scale_2", "NVIDIA's ModelOpt"),
    (r"\.weight_(packed|shape|zero_point|g_idx|scale|global_scale)", "llm-compressor or FBGEMM"),
    (r"\.(input|output|activation|k|v|q)_scale(_ub)?", "float8 with scales of activations"),
    (r"\.g_idx", "GPTQ"),
    (r"\.(qweight|qzeros)", "GPTQ or AWQ"),
    (r"\.(nested_)?(absmax|quant_map)|\.quant_state\..+", "bitsandbytes with 4 bits"),
    (r"\.(SCB|weight_format)", "bitsandbytes with 8 bits"),
    (r"\.(W_q|W_nbits|zero|meta)", "HQQ"),
    (r"\.(codes|codebooks)", "AQLM"),
    (r"\.(q_weight|q_scale|q_scale_max|q_groups|q_invperm|trellis|suh|svh)", "ExLlama"),
    (r"\.(Qidxs|SU|SV)", "QuIP#"),
    (r"\.(scales_and_zeros|zeros)", "gpt-fast's int4"),
    (r"(?<!norm)\.(scales?|scaling_factor|zero_point|zp)", "a format of integers and scales"),
)
"""The ends of names of what is stored next to quantized weights, and whose they are."""
_KINDS = (
    (r"uint8|int8", "8-bit integers, or 4-bit ones in pairs, without the scales"),
    (r"float8.*", "float8 without the scales"),
    (r"u?int16", "16-bit integers, or the bits of bfloat16"),
    (r"u?int(32|64)", "indices, or 4-bit integers packed into larger ones"),
    (r"bool", "a mask of true and false"),
    (r"complex.*", "complex numbers, such as a table of rotations"),
)


def check_plain_weights(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint with values that are not plain floating-point numbers.

    Raises:
        UnsupportedModelError: it has; the tensor, its dtype and what it seems to be are named.
    """
    if reason := unsupported(checkpoint):
        raise UnsupportedModelError(reason)
    if reason := _scaled_as_metas(checkpoint):
        raise UnsupportedModelError(
            f"{checkpoint.path}: its weights are quantized ({reason}), and how Meta's files hold "
            "the scales is not confirmed, so they are not run or converted; take the bfloat16 files"
        )
    dtypes = {name: parameter.dtype for name, parameter in checkpoint.parameters.items()}
    if reason := describe_quantized(dtypes):
        raise UnsupportedModelError(
            f"{checkpoint.path}: {reason}; expected {', '.join(PLAIN_DTYPES)}. Only plain numbers "
            "are run or converted: take the model's bfloat16 or float16 files, or convert these "
            "back with the tool that made them."
        )


def describe_quantized(dtypes: Mapping[str, str]) -> str:
    """Say what shows that weights are quantized, or else no numbers to compute with.

    Args:
        dtypes: of each tensor, by name.
    Returns:
        A clause such as ``a.weight is int8, which …``; empty if all are plain.
    """
    odd = [name for name, dtype in dtypes.items() if dtype not in PLAIN_DTYPES and name != _TABLE]
    scales = next(filter(companion_of_quantized, dtypes), "")
    evidence = f"{scales[:200]} is stored too, as {companion_of_quantized(scales)} does"
    if not odd:
        return evidence if scales else ""
    name = min(odd, key=lambda name: not name.endswith("weight"))
    more = f" (and {len(odd) - 1} tensors more)" if len(odd) > 1 else ""
    kind = evidence if scales else f"it seems to be {_kind(dtypes[name])}"
    return f"{name[:200]} is {dtypes[name]}{more}: {kind}"


def companion_of_quantized(name: str) -> str:
    """Return the tool that stores a tensor of this name next to quantized weights, else ``""``."""
    return next((tool for end, tool in _COMPANIONS if re.search(f"(?:{end})$", name)), "")


def _kind(dtype: str) -> str:
    return next((kind for end, kind in _KINDS if re.fullmatch(end, dtype)), "no weight")


def _scaled_as_metas(checkpoint: Checkpoint) -> str:
    """Say what shows that the weights are Meta's fp8 or int4, whose layout is not confirmed."""
    quantization = checkpoint.params.extra.get("quantization_args")
    if isinstance(quantization, dict):
        return f"params.json: quantization_args {str(quantization.get('scheme', ''))[:60]}".strip()
    scales = sorted(file.name for pattern in _SCALES for file in checkpoint.path.glob(pattern))
    return scales[0] if scales else ""
