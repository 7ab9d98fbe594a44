"""The parameters of a model: their names, shapes, order, and the axis each is split on."""

from __future__ import annotations

import re

from llamakit.checkpoint import llama4
from llamakit.checkpoint.params import ModelParams, family_by_numbers
from llamakit.errors import ParametersError
from llamakit.printable import listed
from llamakit.protocols import Checkpoint, Parameter

EMBEDDING = "tok_embeddings.weight"
OUTPUT = "output.weight"
ROPE_FREQS = "rope.freqs"
"""A table that older shards carry; the model computes its own, so it is no parameter."""

_SOURCES = {"meta": "params.json", "huggingface": "config.json"}
"""Where the numbers of a model are, by the form of its checkpoint."""
_LAYER_AXES: dict[str, int | None] = {
    "attention.wq.weight": 0,
    "attention.wk.weight": 0,
    "attention.wv.weight": 0,
    "attention.wo.weight": 1,
    "feed_forward.w1.weight": 0,
    "feed_forward.w2.weight": 1,
    "feed_forward.w3.weight": 0,
    "attention_norm.weight": None,
    "ffn_norm.weight": None,
    **llama4.AXES,
}
_LAYER_NAME = re.compile(r"layers\.[0-9]+\.(.+)")
_KEY_VALUE_NAME = re.compile(r"layers\.[0-9]+\.attention\.w[kv]\.weight")


def axis_of(name: str, embedding_axis: int) -> int | None:
    """Say which axis of a parameter model parallelism splits.

    Args:
        name: Meta's name, such as ``layers.0.attention.wq.weight``.
        embedding_axis: 1 in Llama 1, 2 and Code Llama, 0 in Llama 3.
    Returns:
        0 or 1, or None where every rank holds the whole. Names that no model has are taken to
        be whole too; ``check_parameters`` refuses them.
    Source: the layers of the reference's ``llama/model.py``.
    """
    if name == EMBEDDING:
        return embedding_axis
    if name == OUTPUT:
        return 0
    expert = llama4.expert_matrix(name)
    if expert is not None:
        return llama4.AXES.get(expert)
    layer = _LAYER_NAME.fullmatch(name)
    return _LAYER_AXES.get(layer[1]) if layer else None


def is_parameter_name(name: str) -> bool:
    """Say whether a tensor of Meta's has this name, in one family or another."""
    if name in (EMBEDDING, OUTPUT, ROPE_FREQS, "norm.weight") or llama4.expert_matrix(name):
        return True
    layer = _LAYER_NAME.fullmatch(name)
    return layer is not None and layer[1] in _LAYER_AXES


def is_key_or_value(name: str) -> bool:
    """Say whether a parameter has one block of rows for each key/value head."""
    return _KEY_VALUE_NAME.fullmatch(name) is not None


def expected_shapes(params: ModelParams) -> dict[str, tuple[int, ...]]:
    """Work out the parameters that a model consists of.

    Returns:
        The whole shape of each, by name, in the order of the model. Without ``rope.freqs``, and
        without ``output.weight`` where the embeddings are tied.
    """
    dim, vocab = params.dim, params.vocab_size
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (vocab, dim)}
    for index in range(params.n_layers):
        layer = layer_shapes(params, index)
        shapes |= {f"layers.{index}.{name}": shape for name, shape in layer.items()}
    shapes["norm.weight"] = (dim,)
    if not params.tied_embeddings:
        shapes[OUTPUT] = (vocab, dim)
    return shapes


def layer_shapes(params: ModelParams, layer: int) -> dict[str, tuple[int, ...]]:
    """Return the whole shapes of one layer's parameters, by their names within the layer."""
    architecture = llama4.architecture_of(params)
    if architecture is not None:
        return llama4.layer_shapes(params, architecture, layer)
    dim, hidden = params.dim, params.hidden_dim
    key_rows = params.n_kv_heads * params.head_dim
    return {
        "attention.wq.weight": (dim, dim),
        "attention.wk.weight": (key_rows, dim),
        "attention.wv.weight": (key_rows, dim),
        "attention.wo.weight": (dim, dim),
        "feed_forward.w1.weight": (hidden, dim),
        "feed_forward.w2.weight": (dim, hidden),
        "feed_forward.w3.weight": (hidden, dim),
        "attention_norm.weight": (dim,),
        "ffn_norm.weight": (dim,),
    }


def expected_parameters(
    params: ModelParams, embedding_axis: int | None = None, dtype: str = "bfloat16"
) -> dict[str, Parameter]:
    """Describe every parameter of a model, in the order of the model.

    Args:
        params: the numbers of the model.
        embedding_axis: 1 in Llama 1, 2 and Code Llama, 0 in Llama 3; None: as the params say.
        dtype: what the values are stored as.
    """
    if embedding_axis is None:
        embedding_axis = family_by_numbers(params).embedding_axis
    return {
        name: Parameter(name, shape, dtype, axis_of(name, embedding_axis))
        for name, shape in expected_shapes(params).items()
    }


def check_parameters(checkpoint: Checkpoint) -> None:
    """Check that a checkpoint holds the parameters its params imply, and no others.

    ``rope.freqs`` may be there or not, and so may ``output.weight`` where embeddings are tied.

    Raises:
        ParametersError: some are missing, extra or of another shape; each is named.
    """
    expected = expected_shapes(checkpoint.params)
    shapes = {name: parameter.shape for name, parameter in checkpoint.parameters.items()}
    allowed = {ROPE_FREQS: shapes.get(ROPE_FREQS), OUTPUT: expected[EMBEDDING]} | expected
    source = _SOURCES.get(checkpoint.form, "its numbers")
    faults = {
        "missing": [name for name in expected if name not in shapes],
        "not of this model": [name for name in shapes if name not in allowed],
        "of another shape": [
            f"{name} is {shape}, {source} implies {allowed[name]}"
            for name, shape in shapes.items()
            if name in allowed and shape != allowed[name]
        ],
    }
    if any(faults.values()):
        described = "; ".join(
            f"{fault}: {listed(items)}" for fault, items in faults.items() if items
        )
        raise ParametersError(
            f"{checkpoint.path}: the parameters do not fit {source}. {described}. "
            f"Either the weights or {source} are of another model, or a part is missing; "
            "bring both from the same download."
        )
