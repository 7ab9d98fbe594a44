"""A checkpoint as it is after an edit: others of its parameters, names, layers and rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llamakit.checkpoint import capabilities
from llamakit.checkpoint.checked_read import read_checked
from llamakit.checkpoint.hf_names import is_rotated
from llamakit.checkpoint.layout import EMBEDDING, OUTPUT, axis_of
from llamakit.checkpoint.params import ModelParams
from llamakit.convert.vocabulary_rows import NewRows, RowInit
from llamakit.protocols import Checkpoint, Parameter, RawRegion

if TYPE_CHECKING:
    from llamakit.checkpoint.dtypes import Array

VOCABULARY = (EMBEDDING, OUTPUT)
"""The parameters that have a row for each token."""
PARAMS = "params.json"


class EditedCheckpoint:
    """What a checkpoint becomes; nothing is read before it is written.

    Args:
        source: what is edited.
        params: the numbers of the result.
        old_names: for each parameter of the result the one of the source that it is.
        init: how rows of new tokens are made.
    """

    def __init__(
        self, source: Checkpoint, params: ModelParams, old_names: Mapping[str, str], init: RowInit
    ) -> None:
        self.path, self.form, self.params = source.path, source.form, params
        self._source, self._old_names = source, old_names
        embedding = source.parameters.get(EMBEDDING)
        self._embedding_axis = 1 if embedding is None or embedding.axis is None else embedding.axis
        self.parameters: Mapping[str, Parameter] = {
            name: self._parameter(name) for name in old_names
        }
        self._new_rows = {
            name: NewRows(source, source.parameters[old_names[name]], init)
            for name in VOCABULARY
            if name in old_names and self._is_resized(name)
        }

    @property
    def nbytes_read(self) -> int:
        """How many bytes of weights the source's ``read`` has returned so far."""
        return self._source.nbytes_read

    def read(self, name: str, *, axis: int = 0, start: int = 0, stop: int | None = None) -> Array:
        """Read one parameter, or the slice ``start:stop`` of it along ``axis``."""
        old, shape = self._old_names[name], self.parameters[name].shape
        if not self._is_resized(name):
            return read_checked(self._source, old, axis=axis, start=start, stop=stop)
        import numpy as np

        from llamakit.convert.stored_rows import read_rows

        stop = shape[axis] if stop is None else stop
        rows = self._source.parameters[old].shape[0]
        kept = min(rows, shape[0])
        if axis == 1:
            array = read_checked(self._source, old, axis=1, start=start, stop=stop)[:kept]
            added = self._new_rows[name].make(0, shape[0] - kept)[:, start:stop]
            return np.concatenate([array, added])
        stored = self._source.parameters[old]
        array = read_rows(self._source, stored, min(start, kept), min(stop, kept))
        if stop <= kept:
            return array
        added = self._new_rows[name].make(max(start, kept) - kept, stop - kept)
        return np.concatenate([array, added])

    def raw_regions(self, name: str) -> list[RawRegion] | None:
        """Say where a parameter is in the source's files; None if ``read`` has to make it."""
        stored, parameter = self._source.parameters[self._old_names[name]], self.parameters[name]
        is_as_stored = (
            stored.axis == parameter.axis
            and stored.shape == parameter.shape
            and is_rotated(stored.name) == is_rotated(name)
        )
        return capabilities.raw_regions(self._source, stored) if is_as_stored else None

    def stored_names(self) -> list[str]:
        """Return the new names in the order that the source has the old ones in."""
        new_names: dict[str, list[str]] = {}
        for new, old in self._old_names.items():
            new_names.setdefault(old, []).append(new)
        stored = capabilities.stored_names(self._source)
        return [new for old in stored for new in new_names.get(old, ())]

    def model_parallel_size(self) -> int:
        """Return how many shards the source has."""
        return capabilities.model_parallel_size(self._source)

    def weight_files(self) -> list[Path]:
        """Return the source's files of weights."""
        return capabilities.weight_files(self._source)

    def companion_files(self, target: str) -> list[Path]:
        """Return the source's, but for a params.json that no longer says what the model is."""
        files = capabilities.companion_files(self._source, target)
        is_same = self.params == self._source.params
        return [file for file in files if is_same or file.name != PARAMS]

    def provenance_sources(self) -> list[Checkpoint]:
        """Return what was edited, or what that was computed from."""
        return capabilities.provenance_sources(self._source)

    def _parameter(self, name: str) -> Parameter:
        stored = self._source.parameters[self._old_names[name]]
        shape = stored.shape
        if name in VOCABULARY and len(shape) == 2 and shape[0] == self._source.params.vocab_size:
            shape = (self.params.vocab_size, shape[1])
        is_split = len(shape) == 2 or stored.axis is not None
        axis = axis_of(name, self._embedding_axis) if is_split else None
        return replace(stored, name=name, shape=shape, axis=axis)

    def _is_resized(self, name: str) -> bool:
        return self.parameters[name].shape != self._source.parameters[self._old_names[name]].shape
