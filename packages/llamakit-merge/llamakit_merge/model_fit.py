"""Whether models fit one another, so that their weights can be merged."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import llamakit
from llamakit import LlamakitError
from llamakit.checkpoint.hf_names import to_huggingface
from llamakit.checkpoint.layout import check_parameters
from llamakit.checkpoint.rope_scaling import scaling_of
from llamakit.protocols import Checkpoint, Parameter
from llamakit_merge.rounding import MERGE_DTYPES

OUTPUT = "output.weight"


def check_models(models: Sequence[Checkpoint]) -> None:
    """Check that all models are of one architecture, up to the number of layers.

    Raises:
        LlamakitError: two do not fit; the sentence says in what.
    """
    first = models[0]
    for model in models:
        check_readable(model)
        for what, ours, theirs in zip(_FACTS, _facts(first), _facts(model), strict=True):
            if ours != theirs:
                raise LlamakitError(
                    f"{what} {ours} in {first.path} and {theirs} in {model.path}; only models of "
                    "one architecture can be merged."
                )
        if model.params.norm_eps != first.params.norm_eps:
            _log().warning(
                "the epsilon of the norms is %s in %s and %s in %s; the first is kept",
                *(first.params.norm_eps, first.path, model.params.norm_eps, model.path),
            )


_FACTS = (
    "the number of attention heads is",
    "the number of key/value heads is",
    "rope_theta is",
    "the RoPE scaling is",
    "the embeddings are",
)


def _facts(model: Checkpoint) -> tuple[object, ...]:
    params = model.params
    return (
        params.n_heads,
        params.n_kv_heads,
        params.rope_theta,
        scaling_of(params, model.path) or "none",
        "tied" if params.tied_embeddings else "not tied",
    )


def check_readable(model: Checkpoint) -> None:
    """Check that a model is one whose weights are computed with here.

    Raises:
        LlamakitError: it is of Llama 4, or quantized.
        ParametersError: parameters are missing, or of another shape than its numbers imply.
    """
    for parameter in merged_parameters(model).values():
        if to_huggingface(parameter.name) is None:
            raise LlamakitError(
                f"{model.path} has the parameter {parameter.name}, and only models of Llama 1 to 3 "
                "are merged."
            )
        if parameter.dtype not in MERGE_DTYPES:
            raise LlamakitError(
                f"{model.path}: {parameter.name} is {parameter.dtype}, and quantized weights are "
                "not merged; take the model's bfloat16 or float16 files."
            )
    check_parameters(model)


def merged_parameters(model: Checkpoint) -> dict[str, Parameter]:
    """Return the parameters of a model, without the table of frequencies that old shards carry."""
    return {
        name: parameter
        for name, parameter in model.parameters.items()
        if name != "rope.freqs" and not (name == OUTPUT and model.params.tied_embeddings)
    }


def check_shapes(parts: Sequence[tuple[Checkpoint, str]]) -> None:
    """Check that tensors have one shape.

    Args:
        parts: the checkpoint and the name in it of each.

    Raises:
        LlamakitError: two differ, or one is not there; both are named.
    """
    first, name = parts[0]
    for model, theirs in parts:
        if theirs not in model.parameters:
            raise LlamakitError(f"{model.path} has no {theirs}, which is to be merged.")
        ours, found = first.parameters[name].shape, model.parameters[theirs].shape
        if found != ours:
            hint = (
                " Their vocabularies differ." if name in (OUTPUT, "tok_embeddings.weight") else ""
            )
            raise LlamakitError(
                f"{theirs} is {found} in {model.path} and {name} is {ours} in {first.path}; only "
                f"tensors of one shape can be merged.{hint}"
            )


def compare_tokenizers(models: Sequence[Checkpoint], *, is_asked: bool) -> None:
    """Compare the tokenizers of models with the first one's; models without one are left out.

    Args:
        is_asked: the merge says whose tokenizer is taken, so mergekit would move the rows of the
            embedding: to be refused where they would move, else a warning.

    Raises:
        LlamakitError: two differ, and ``is_asked``.
    """
    found = [(model.path, tokenizer) for model in models if (tokenizer := _tokenizer(model.path))]
    for path, tokenizer in found[1:]:
        if not (difference := _difference(found[0][1], tokenizer)):
            continue
        sentence = f"the tokenizers of {found[0][0]} and {path} differ: {difference}"
        if is_asked:
            raise LlamakitError(
                f"{sentence}. Rows of the embedding are merged under their ID here, so "
                "tokenizer_source needs models of one vocabulary; without it the rows are merged "
                "as they are."
            )
        _log().warning("%s; rows of the embedding are merged under their ID all the same", sentence)


def _tokenizer(path: Path) -> llamakit.Tokenizer | None:
    try:
        return llamakit.load_tokenizer(path)
    except LlamakitError:
        return None


def _difference(ours: llamakit.Tokenizer, theirs: llamakit.Tokenizer) -> str:
    if ours.vocab_size != theirs.vocab_size:
        return f"{ours.vocab_size} and {theirs.vocab_size} tokens"
    differing = [
        token for token in range(ours.vocab_size) if ours.decode([token]) != theirs.decode([token])
    ]
    if differing:
        return f"token {differing[0]} is another in each, as {len(differing)} are"
    return "" if ours.special_tokens == theirs.special_tokens else "their special tokens"


def _log() -> logging.Logger:
    return logging.getLogger("llamakit")
