"""A check of whether the runtime supports a checkpoint, from its index and without torch."""

from __future__ import annotations

from llamakit.checkpoint.layout import check_parameters
from llamakit.checkpoint.shard_plan import check_size
from llamakit.errors import UnsupportedModelError
from llamakit.protocols import Checkpoint


def check_loadable(checkpoint: Checkpoint, size: int) -> None:
    """Refuse a checkpoint that cannot be loaded, before any weight is read.

    Raises:
        UnsupportedModelError: not Llama 1, Llama 2 or Code Llama.
        UnevenSplitError: ``size`` does not divide the model.
        ParametersError: parameters missing, extra or misshapen, with their names.
    """
    params = checkpoint.params
    embedding = checkpoint.parameters.get("tok_embeddings.weight")
    embedding_axis = 1 if embedding is None else embedding.axis
    if embedding_axis != 1 or params.use_scaled_rope or params.rope_scaling:
        raise UnsupportedModelError(
            f"{checkpoint.path}: this is a Llama 3 model; generate and chat compute Llama 2 and "
            "Code Llama for now"
        )
    check_parameters(checkpoint)
    check_size(params, size)
