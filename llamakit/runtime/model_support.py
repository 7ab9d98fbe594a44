"""A check of whether the runtime supports a checkpoint, from its index and without torch."""

from __future__ import annotations

from llamakit.checkpoint.families import LLAMA_4
from llamakit.checkpoint.layout import check_parameters
from llamakit.checkpoint.llama_generation import family_of
from llamakit.checkpoint.rope_scaling import scaling_of
from llamakit.checkpoint.shard_plan import check_size
from llamakit.errors import UnsupportedModelError
from llamakit.protocols import Checkpoint


def check_loadable(checkpoint: Checkpoint, size: int, *, rope_factor: float | None = None) -> None:
    """Refuse a checkpoint that cannot be loaded, before any weight is read.

    Args:
        rope_factor: as ``loader.load``.

    Raises:
        UnsupportedModelError: a Llama 4, or a RoPE scaling that is not computed here.
        ParamsError: a number of the RoPE scaling is absent or wrong.
        UnevenSplitError: ``size`` does not divide the model.
        ParametersError: parameters missing, extra or misshapen, with their names.
    """
    if family_of(checkpoint) is LLAMA_4:
        raise UnsupportedModelError(
            f"{checkpoint.path}: this is a Llama 4 model; generate and chat compute Llama 1 to 3 "
            "and Code Llama"
        )
    scaling_of(checkpoint.params, checkpoint.path, factor=rope_factor)
    check_parameters(checkpoint)
    check_size(checkpoint.params, size)
