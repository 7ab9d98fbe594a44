"""Inspect: describes a checkpoint from its indexes, without reading weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from llamakit.checkpoint.capabilities import (
    oddities,
    quantization,
    stored_as,
    unsupported,
    weight_files,
)
from llamakit.checkpoint.family_detection import family_of
from llamakit.checkpoint.layout import EMBEDDING, OUTPUT, ROPE_FREQS, check_parameters
from llamakit.checkpoint.params import ModelParams
from llamakit.checkpoint.plain_weights import check_plain_weights
from llamakit.checkpoint.provenance import Step
from llamakit.checkpoint.provenance_reader import read_steps
from llamakit.checkpoint.rope_scaling import scaling_of
from llamakit.checkpoint.shard_plan import valid_sizes
from llamakit.errors import DamagedFileError, LlamakitError, ParametersError
from llamakit.examine.memory_estimate import RankMemory, rank_memory
from llamakit.examine.steps import Opener, warnings_of
from llamakit.examine.vocabulary import Vocabulary, find_vocabulary
from llamakit.protocols import Checkpoint, Parameter

_LARGEST_SIZE = 16
"""Memory is estimated for sizes up to this."""


@dataclass(frozen=True)
class Inspection:
    """What the indexes of a checkpoint say."""

    path: Path
    form: str
    generation: str
    """``llama 1/2``, ``code llama``, ``llama 3`` or ``llama 4``."""
    params: ModelParams
    numel: int
    """How many values the parameters have in total, each counted once."""
    dtypes: Mapping[str, int]
    """How many parameters are of each dtype, the most frequent first."""
    shards: int | None
    """How many files the weights are in, if the format says."""
    embedding_axis: int | None
    """The axis on which Meta's format of the model splits ``tok_embeddings.weight``."""
    tokenizer: Vocabulary
    legal_sizes: tuple[int, ...]
    """The model parallel sizes that the model can be split into."""
    max_seq_len: int
    max_batch_size: int
    memory: tuple[RankMemory, ...]
    """For each valid size up to 16."""
    oddities: tuple[str, ...]
    """What is unusual, a sentence each."""
    faults: tuple[str, ...]
    """What is wrong, a sentence each."""
    parameters: tuple[Parameter, ...]
    history: tuple[Step, ...] = ()
    """What it was made from, by which commands, the oldest first."""

    @property
    def head_dim(self) -> int:
        """Values in one attention head."""
        return self.params.head_dim

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def as_json(self, *, tensors: bool = False, history: bool = False) -> Mapping[str, Any]:
        """Return the inspection in JSON's terms.

        Args:
            tensors: list every parameter too.
            history: list the steps to it too.
        """
        values = asdict(replace(self, history=()))
        listed = values.pop("parameters")
        values["history"] = [step.as_json() for step in self.history]
        if not history:
            del values["history"]
        values["path"] = str(self.path)
        tokenizer = self.tokenizer.path
        values["tokenizer"]["path"] = None if tokenizer is None else str(tokenizer)
        values["params"] |= {"head_dim": self.head_dim, "context": self.params.context}
        return {"good": self.good, **values, **({"tensors": listed} if tensors else {})}


def inspect(
    path: Path,
    opener: Opener,
    *,
    max_seq_len: int | None = None,
    max_batch_size: int = 1,
    kv_cache: str | None = None,
) -> Inspection:
    """Say what a checkpoint is, from its indexes alone.

    Args:
        path: its folder.
        opener: opens checkpoints and tokenizers.
        max_seq_len: the longest sequence that memory is worked out for, in tokens; None: what
            the model was made for.
        max_batch_size: how many sequences at the same time.
        kv_cache: ``int8`` or None, as for ``Llama.open``.

    Raises:
        CheckpointError: it is none, or damaged.
    """
    with warnings_of() as warnings:
        checkpoint = opener.open_checkpoint(path)
    params, parameters = checkpoint.params, checkpoint.parameters
    embedding = parameters.get(EMBEDDING)
    dtypes = _dtypes(checkpoint)
    tokenizer = find_vocabulary(checkpoint, opener)
    length = max_seq_len or params.context
    history, damage = _history(path)
    return Inspection(
        path=path,
        form=checkpoint.form,
        generation=family_of(checkpoint).name,
        params=params,
        numel=_numel(checkpoint),
        dtypes=dict(dtypes.most_common()),
        shards=len(weight_files(checkpoint)) or None,
        embedding_axis=None if embedding is None else embedding.axis,
        tokenizer=tokenizer,
        legal_sizes=tuple(valid_sizes(params)),
        max_seq_len=length,
        max_batch_size=max_batch_size,
        memory=_memory(checkpoint, length, max_batch_size, kv_cache),
        oddities=(*warnings, *_oddities(checkpoint, tokenizer, dtypes)),
        faults=(*_faults(checkpoint, tokenizer), *damage),
        parameters=tuple(parameters.values()),
        history=tuple(history),
    )


def _dtypes(checkpoint: Checkpoint) -> Counter[str]:
    """Count the parameters of each dtype, or of each way of quantizing."""
    return Counter(
        quantization(checkpoint, parameter.name) or parameter.dtype
        for parameter in checkpoint.parameters.values()
        if parameter.name != ROPE_FREQS
    )


def _numel(checkpoint: Checkpoint) -> int:
    """Count the values of the model; a tied output layer is the embedding."""
    uncounted = {ROPE_FREQS, OUTPUT} if checkpoint.params.tied_embeddings else {ROPE_FREQS}
    return sum(it.numel for it in checkpoint.parameters.values() if it.name not in uncounted)


def _memory(
    checkpoint: Checkpoint, length: int, batch: int, kv_cache: str | None
) -> tuple[RankMemory, ...]:
    """Work out what a rank holds, for each valid size."""
    norm = checkpoint.parameters.get("norm.weight")
    dtype = norm.dtype if norm else "float32"
    return tuple(
        rank_memory(checkpoint, size, dtype, length, batch, kv_cache)
        for size in valid_sizes(checkpoint.params)
        if size <= _LARGEST_SIZE
    )


def _history(path: Path) -> tuple[list[Step], list[str]]:
    """Return what llamakit.json says, and what is wrong with it."""
    try:
        return read_steps(path), []
    except DamagedFileError as error:
        return [], [error.for_commands]


def _faults(checkpoint: Checkpoint, tokenizer: Vocabulary) -> list[str]:
    faults = [tokenizer.fault] if tokenizer.fault else []
    if unsupported(checkpoint):  # scales, and shapes of what is packed, are no parameters
        return faults
    try:
        check_parameters(checkpoint)
    except ParametersError as error:
        faults.append(error.for_commands)
    return faults


def _oddities(checkpoint: Checkpoint, tokenizer: Vocabulary, dtypes: Counter[str]) -> list[str]:
    params, rows = checkpoint.params, checkpoint.params.vocab_size
    conditions = {
        "no tokenizer in the folder or in its parent": tokenizer.path is None,
        f"the embedding has {rows} rows, the tokenizer only {tokenizer.size} tokens": (
            tokenizer.size is not None and tokenizer.size < rows
        ),
        f"{ROPE_FREQS} is there; it is no parameter, and nothing reads it": (
            ROPE_FREQS in checkpoint.parameters
        ),
        "mixed dtypes: " + ", ".join(f"{count} in {name}" for name, count in dtypes.items()): (
            len(dtypes) > 1 and not stored_as(checkpoint)
        ),
        "the output layer is the embedding (tied)": params.tied_embeddings,
    }
    present = [sentence for sentence, holds in conditions.items() if holds]
    stored = stored_as(checkpoint)
    multiplied = [f"{stored}; conversions write their values multiplied out"] if stored else []
    return [*oddities(checkpoint), *multiplied, *present, *_uncomputed(checkpoint)]


def _uncomputed(checkpoint: Checkpoint) -> Iterator[str]:
    """Say why a model cannot be run, although nothing is wrong with its files."""
    try:
        check_plain_weights(checkpoint)
        scaling_of(checkpoint.params, checkpoint.path)
    except LlamakitError as error:
        yield error.for_commands
