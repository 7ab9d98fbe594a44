"""Export in 8 bits, in the layout of compressed-tensors that vLLM and transformers load.

Each row of a weight has a scale of its own. ``int8`` is what compressed-tensors calls W8A8: each
row of the activations is rounded too, when it is multiplied, as ``--quantize int8`` does on a CPU
with VNNI. ``int8-weight-only`` is W8A16, whose integers vLLM reads packed into int32. The output
layer keeps its values, since vLLM loads no other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from llamakit.checkpoint.compressed_tensors import METHOD
from llamakit.checkpoint.file_layout import TensorSpec
from llamakit.checkpoint.layout import OUTPUT
from llamakit.checkpoint.rounding import kinds_of
from llamakit.checkpoint.safetensors_writer import SafetensorsLayout
from llamakit.convert.conversion_plan import SmallFile
from llamakit.convert.moves import Rounding, WeightFile
from llamakit.convert.quantize import check_not_quantized
from llamakit.errors import OptionError
from llamakit.protocols import Checkpoint, Parameter

SCHEMES = {"int8": "int-quantized", "int8-weight-only": "pack-quantized"}
"""The format of each, as compressed-tensors names it."""
_INT8 = {"num_bits": 8, "type": "int", "symmetric": True, "group_size": None}


def quantization_config(scheme: str) -> dict[str, object]:
    """Return the quantization_config of a config.json.

    Source: ``QuantizationConfig.model_dump`` of compressed-tensors 0.20.
    """
    activations = _INT8 | {"strategy": "token", "dynamic": True}
    group = {
        "targets": ["Linear"],
        "weights": _INT8 | {"strategy": "channel", "dynamic": False},
        "input_activations": activations if scheme == "int8" else None,
        "output_activations": None,
        "format": SCHEMES[scheme],
    }
    return {
        "config_groups": {"group_0": group},
        "quant_method": METHOD,
        "kv_cache_scheme": None,
        "format": SCHEMES[scheme],
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "ignore": ["lm_head"],
    }


def parse_scheme(checkpoint: Checkpoint, quantize: object) -> str | None:
    """Read the option of the exporter: one of ``SCHEMES`` or None.

    Raises:
        OptionError: another value.
        UnsupportedModelError: the checkpoint is quantized already.
    """
    if quantize is None:
        return None
    if not isinstance(quantize, str) or quantize not in SCHEMES:
        raise OptionError(f"quantize is {quantize!r:.60}; expected {' or '.join(SCHEMES)}")
    check_not_quantized(checkpoint)
    return quantize


def rounded_names(checkpoint: Checkpoint, scheme: str | None) -> Collection[str]:
    """Return Meta's names of the weights that an export rounds.

    Raises:
        UnsupportedModelError: it is of Llama 4.
    """
    if scheme is None:
        return ()
    return [name for name in kinds_of(checkpoint.params, "int8") if name != OUTPUT]


def is_packed(scheme: str | None) -> bool:
    """Say whether four integers share an int32."""
    return scheme is not None and SCHEMES[scheme] == "pack-quantized"


def hf_rounding(
    theirs: str, parameter: Parameter, scales_file: int, scheme: str | None
) -> Rounding:
    """Describe what a weight becomes: integers, and a scale a row in float32.

    Args:
        theirs: Hugging Face's name, which ends in ``.weight``.
        scheme: one of ``SCHEMES``.
    """
    rows, columns = parameter.shape
    scales = TensorSpec(f"{theirs}_scale", "float32", (rows, 1))
    integers = TensorSpec(theirs, "int8", parameter.shape)
    packed = is_packed(scheme)
    if packed:
        integers = TensorSpec(f"{theirs}_packed", "int32", (rows, -(-columns // 4)))
    return Rounding("int8", scales_file, integers, scales, packed)


def shapes_file(name: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[SmallFile, WeightFile]:
    """Return a file of the shapes of packed weights, and what it consists of.

    Args:
        shapes: by Hugging Face's name of the weight.
    """
    layout = SafetensorsLayout([TensorSpec(f"{theirs}_shape", "int64", (2,)) for theirs in shapes])
    values = np.array(list(shapes.values()), "<i8").tobytes()
    return SmallFile(name, layout.head + values), WeightFile(name, layout)
