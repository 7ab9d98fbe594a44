"""Plans an edit: dtypes, names and layers by pattern, and another size of the vocabulary.

The result is a checkpoint (``EditedCheckpoint``) that is written like any other, in Meta's format.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from llamakit.checkpoint.capabilities import model_parallel_size
from llamakit.checkpoint.families import LLAMA_3, LLAMA_4
from llamakit.checkpoint.layout import EMBEDDING, OUTPUT, ROPE_FREQS, expected_shapes
from llamakit.checkpoint.llama4 import architecture_of
from llamakit.checkpoint.params import ModelParams
from llamakit.checkpoint.plain_weights import check_plain_weights
from llamakit.checkpoint.rope_scaling import default_scaling, scaling_of
from llamakit.convert.conversion_plan import ConversionPlan
from llamakit.convert.edited_checkpoint import EditedCheckpoint
from llamakit.convert.edits import Edits
from llamakit.convert.meta_format import plan_shards
from llamakit.convert.name_patterns import matching, renamed
from llamakit.convert.reshard import source_checklist
from llamakit.convert.vocabulary_rows import parse_init
from llamakit.errors import OptionError, ParametersError, UnsupportedModelError, UsageError
from llamakit.printable import listed
from llamakit.protocols import Checkpoint, ToolCommand

_LAYER = re.compile(r"layers\.([0-9]+)\.(.+)")
_MOST_ROWS = 1 << 24
"""The largest vocabulary of a Llama has 202,048 tokens."""


def plan_edit(
    checkpoint: Checkpoint,
    destination: Path,
    edits: Edits,
    size: int | None = None,
    *,
    tokens: int | None = None,
    verify: bool = False,
    unserved: Collection[str] = (),
) -> ConversionPlan:
    """Plan a folder in Meta's format of what an edit makes of a checkpoint.

    Args:
        checkpoint: what is edited; of any format.
        destination: the folder to make.
        edits: what is to change.
        size: how many shards; None: as many as the source has.
        tokens: how many the tokenizer next to the source has; None: nobody knows.
        verify: check the source against its checklist too.
        unserved: as ``plan_reshard`` takes it.

    Raises:
        OptionError: a pattern matches nothing, two names would be one, an unknown dtype or init,
            or a vocabulary that is no number of rows or smaller than the tokenizer's.
        ParametersError: what is left is no complete model, and ``partial`` is off.
        UnevenSplitError: the result cannot be split into so many shards.
        UsageError: nothing is to change.
    """
    if not any((edits.keep, edits.drop, edits.rename, edits.casts, edits.resizes)):
        raise UsageError("nothing is to change; to change the number of shards: llamakit reshard")
    check_plain_weights(checkpoint)
    selected = _selected(checkpoint, edits)
    new_names = renamed(selected, edits.rename.items())
    kept_layers = _layers(new_names.values())
    if not edits.partial:
        new_names = _renumbered(checkpoint, new_names, kept_layers)
    params = _params(checkpoint, edits, len(kept_layers))
    edited = EditedCheckpoint(
        checkpoint, params, {new: old for old, new in new_names.items()}, parse_init(edits.init)
    )
    if not edits.partial:
        _check_complete(edited)
    shards = model_parallel_size(checkpoint) if size is None else size
    _check_rows(params, shards, tokens, resized=edits.resizes)
    plan = plan_shards(
        edited,
        destination,
        shards,
        dtype=_dtypes(selected, new_names, edits.casts),
        command=ToolCommand("edit", {"model_parallel_size": shards, **edits.as_options()}),
        partial=edits.partial,
    )
    notes = _notes(checkpoint, edited, edits, kept_layers, tokens)
    expected = source_checklist(checkpoint, unserved) if verify else {}
    return replace(plan, expected=expected, notes=tuple(notes))


def _selected(checkpoint: Checkpoint, edits: Edits) -> list[str]:
    """Return the names of the source that are kept, in its order."""
    names = list(checkpoint.parameters)
    if edits.keep:
        kept = {name for pattern in edits.keep for name in matching(pattern, names, "--keep")}
        names = [name for name in names if name in kept]
    dropped = {name for pattern in edits.drop for name in matching(pattern, names, "--drop")}
    names = [name for name in names if name not in dropped]
    if not names:
        raise OptionError("no parameter is left; keep some")
    if checkpoint.params.tied_embeddings and EMBEDDING in names:
        names = [name for name in names if name != OUTPUT]  # it is made of the embedding
    return names


def _layers(names: Iterable[str]) -> list[int]:
    return sorted({int(match[1]) for name in names if (match := _LAYER.fullmatch(name))})


def _renumbered(
    checkpoint: Checkpoint, new_names: Mapping[str, str], layers: list[int]
) -> dict[str, str]:
    """Close the gaps in the numbers of layers."""
    numbers = {layer: number for number, layer in enumerate(layers)}
    is_whole = layers == list(range(checkpoint.params.n_layers))
    if not is_whole and architecture_of(checkpoint.params) is not None:
        raise UnsupportedModelError(
            f"{checkpoint.path}: which layers of a Llama 4 have experts and which a rotary "
            "embedding depends on their numbers, so none can be left out"
        )
    result = {}
    for old, new in new_names.items():
        match = _LAYER.fullmatch(new)
        result[old] = f"layers.{numbers[int(match[1])]}.{match[2]}" if match else new
    return result


def _params(checkpoint: Checkpoint, edits: Edits, layers: int) -> ModelParams:
    """Return the numbers of the result."""
    params = checkpoint.params
    rows = params.vocab_size if edits.vocab_size is None else edits.vocab_size
    multiple = edits.pad_vocab_to_multiple
    if rows < 1 or (multiple is not None and multiple < 1):
        raise OptionError("a vocabulary has at least one token, and is padded to a multiple of 1")
    if multiple is not None:
        rows = -(-rows // multiple) * multiple
    if rows > _MOST_ROWS:
        raise OptionError(f"a vocabulary of {rows} tokens is too large; expected {_MOST_ROWS}")
    if edits.partial:
        return replace(params, vocab_size=rows)
    new = replace(params, vocab_size=rows, n_layers=layers or params.n_layers)
    return _with_scaling(params, new, checkpoint.path)


def _with_scaling(old: ModelParams, new: ModelParams, path: Path) -> ModelParams:
    """Keep the scaling of the rotary embedding, which the number of layers implies in Llama 3.2."""
    if old.rope_scaling is not None or not old.use_scaled_rope or old.rope_factor is not None:
        return new
    scaling = scaling_of(old, path)
    if scaling is None or scaling.factor == default_scaling(new).factor:
        return new
    return replace(new, rope_factor=scaling.factor)


def _check_complete(edited: EditedCheckpoint) -> None:
    """Check that the result is a model.

    Raises:
        ParametersError: it is not; what is missing and what is no model's is named.
    """
    expected = expected_shapes(edited.params)
    shapes = {name: parameter.shape for name, parameter in edited.parameters.items()}
    faults = {
        "missing": [name for name in expected if name not in shapes],
        "not of this model": [
            name for name in shapes if name not in expected.keys() | {ROPE_FREQS, OUTPUT}
        ],
        "of another shape": [
            f"{name} is {shapes[name]}, expected {shape}"
            for name, shape in expected.items()
            if shapes.get(name, shape) != shape
        ],
    }
    if any(faults.values()):
        described = "; ".join(f"{fault}: {listed(it)}" for fault, it in faults.items() if it)
        raise ParametersError(
            f"what is left of {edited.path} is no complete model. {described}. Drop whole layers, "
            "and what no Llama has; or pass --partial to write it as it is."
        )


def _check_rows(params: ModelParams, size: int, tokens: int | None, *, resized: bool) -> None:
    rows = params.vocab_size
    if resized and tokens is not None and rows < tokens:
        raise OptionError(
            f"a vocabulary of {rows} tokens is too small: the tokenizer has {tokens}; expected as "
            "many or more"
        )
    if resized and params.family == LLAMA_3.name and tokens is not None:
        confused = tokens - LLAMA_3.special_tokens + LLAMA_4.special_tokens
        if rows == confused:
            raise OptionError(
                f"a vocabulary of {rows} tokens would be taken for a Llama 4's, which has so many "
                "special tokens after those in the file; choose another number"
            )
    if rows % size:
        raise OptionError(
            f"{rows} vocabulary entries do not divide by {size} shards; pass "
            f"--pad-vocab-to-multiple {size}, or a larger multiple of it"
        )


def _dtypes(
    selected: Collection[str], new_names: Mapping[str, str], casts: Mapping[str, str]
) -> dict[str, str]:
    """Return what each parameter of the result is cast to; the last pattern counts."""
    return {
        new_names[name]: dtype
        for pattern, dtype in casts.items()
        for name in matching(pattern, selected, "--dtype")
    }


def _notes(
    source: Checkpoint,
    edited: EditedCheckpoint,
    edits: Edits,
    layers: list[int],
    tokens: int | None,
) -> list[str]:
    """Say what was decided, a sentence each."""
    notes = []
    old, new = source.params, edited.params
    if edits.partial:
        notes.append("what is written may be no complete model, and then no program runs it")
    elif layers != list(range(old.n_layers)):
        notes.append(f"layers {_ranges(layers)} are kept, and called 0 to {new.n_layers - 1}")
    if edits.resizes and old.vocab_size == new.vocab_size:
        notes.append(f"the vocabulary has {new.vocab_size} rows already, and keeps them")
    if old.vocab_size != new.vocab_size:
        what = "the embedding and the output layer"
        if new.tied_embeddings:
            what = "the embedding, which is the output layer too,"
        made = f"; the new ones are made by {edits.init}" if new.vocab_size > old.vocab_size else ""
        notes.append(f"{what} had {old.vocab_size} rows and get {new.vocab_size}{made}")
        notes.append(
            "no tokenizer was found to compare that with"
            if tokens is None
            else f"the tokenizer has {tokens} tokens and stays as it is; the rows after them are "
            "of none"
        )
    return notes


def _ranges(numbers: list[int]) -> str:
    """Write numbers down as ``0-7, 16``."""
    groups: list[list[int]] = []
    for number in numbers:
        if groups and groups[-1][-1] == number - 1:
            groups[-1][1:] = [number]
        else:
            groups.append([number])
    return listed(["-".join(map(str, group)) for group in groups])
