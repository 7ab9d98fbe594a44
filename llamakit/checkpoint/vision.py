"""The text part of a model with images: in Llama 3.2 Vision, a Llama 3.1 under a prefix.

Without an image Meta's code skips the layers that attend to one, so the text model is complete
without them.
Source: ``text_only_inference`` in the ``models/llama3/multimodal/model.py`` of llama-models.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from llamakit.checkpoint.tensor_file import StoredTensor

_PREFIX = "text_model."
_CROSS, _LEARNABLE = "text_model.cross_attention_layers.", "text_model.learnable_embedding."
_LEFT_OUT = ("vision_", _CROSS, _LEARNABLE)


def text_tensors(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Return the tensors of the text model by their names in a model of text alone."""
    return {
        name.removeprefix(_PREFIX): tensor
        for name, tensor in tensors.items()
        if not name.startswith(_LEFT_OUT)
    }


def text_params(values: Mapping[str, object]) -> dict[str, object]:
    """Return the values of a params.json without those of the images' side."""
    return {key: value for key, value in values.items() if not key.startswith("vision_")}


def left_out(names: Collection[str]) -> Iterator[str]:
    """Say what of the files is not read, as ``inspect`` lists it."""
    parts = (
        ("the vision encoder", "vision_"),
        ("the cross-attention layers", _CROSS),
        ("the embeddings of image tokens", _LEARNABLE),
    )
    present = [part for part, start in parts if any(name.startswith(start) for name in names)]
    if present:
        yield f"only the text model is read; left out: {', '.join(present)}"
